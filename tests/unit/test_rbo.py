import math

import numpy as np
import pytest
import torch

from lightning_camrobust.functional import rank_biased_overlap
from tests import oracles

TIES = ("b", "a", "w", "stable")


def random_rows(seed, count):
    """Rows of 1..60 scores, with all sorts of ties, padded and masked at random places."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        length = int(generator.integers(1, 61))
        levels = int(generator.choice([1, 2, 3, 8, 30, 10**6]))
        clean, noisy = generator.integers(0, levels, (2, length)).astype(float)
        width = length + int(generator.integers(0, 10))
        present = np.zeros(width, dtype=bool)
        present[generator.choice(width, length, replace=False)] = True
        yield clean, noisy, present


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_equals_the_slow_oracle(ties, p):
    worst, rows = 0.0, list(random_rows(seed=7, count=350))
    width = max(len(present) for _, _, present in rows)
    clean = torch.full((len(rows), width), -3.0, dtype=torch.float64)
    noisy, mask = clean.clone(), torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (first, second, present) in enumerate(rows):
        where = np.flatnonzero(present)
        clean[index, where], noisy[index, where] = torch.tensor(first), torch.tensor(second)
        mask[index, where] = True
    found = rank_biased_overlap(clean, noisy, p, ties=ties, present=mask)
    for value, (first, second, _) in zip(found.tolist(), rows, strict=True):
        worst = max(worst, abs(value - oracles.rbo(list(first), list(second), p, ties)))
    assert worst <= 1e-12


def test_a_variant_is_the_mean_over_all_tie_breaks():
    generator = np.random.default_rng(3)
    for _ in range(30):
        clean, noisy = generator.integers(0, 3, (2, 5)).astype(float)
        wanted = oracles.rbo_over_all_tie_breaks(clean.tolist(), noisy.tolist(), 0.7)
        found = rank_biased_overlap(torch.tensor(clean)[None], torch.tensor(noisy)[None], 0.7, ties="a")
        assert found.item() == pytest.approx(wanted, abs=1e-12)


def test_hand_value():
    # Depth 1: top agrees, 1. Depth 2: {3, 2} against {3, 1}, 1/2. Depth 3: all. 0.5 (1 + 0.25 + 0.25) + 0.125.
    clean, noisy = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[3.0, 1.0, 2.0]])
    assert rank_biased_overlap(clean, noisy, 0.5).item() == 0.875


def test_published_example_of_webber_with_conjoint_lists_reversed():
    # Reversed lists of length m share 2d - m items at depth d, nothing above the middle.
    m, p = 6, 0.8
    row = torch.arange(m, dtype=torch.float64)[None]
    wanted = (1 - p) * sum(p ** (d - 1) * max(0, 2 * d - m) / d for d in range(1, m + 1)) + p**m
    assert rank_biased_overlap(row, -row, p).item() == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("ties", ["b", "w", "stable"])
def test_a_ranking_is_fully_similar_to_itself(ties):
    row = torch.tensor([[2.0, 2.0, 0.0, 0.0, 0.0, 1.0]])
    assert rank_biased_overlap(row, row, 0.9, ties=ties).item() == pytest.approx(1, abs=1e-15)


def test_tie_variants_are_ordered_as_published():
    rows = torch.randint(0, 4, (2, 200, 12), generator=torch.Generator().manual_seed(0)).double()
    a, b = (rank_biased_overlap(rows[0], rows[1], 0.9, ties=ties) for ties in ("a", "b"))
    assert (b >= a - 1e-15).all()


def test_chance_level_of_unrelated_rankings():
    rows = torch.rand(2, 20_000, 25, generator=torch.Generator().manual_seed(1))
    for p in (0.2, 0.5, 0.9):
        values = rank_biased_overlap(rows[0], rows[1], p)
        error = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - oracles.chance_level(25, p)) < 3.5 * error


def test_undefined_rows_are_nan():
    row = torch.tensor([[1.0, torch.nan], [1.0, 2.0], [1.0, 2.0]])
    present = torch.tensor([[True, True], [False, False], [True, True]])
    found = rank_biased_overlap(row, torch.ones(3, 2), present=present)
    assert found.isnan().tolist() == [True, True, False]
    # A NaN in an absent segment has no say.
    present[0, 1] = False
    assert rank_biased_overlap(row, torch.ones(3, 2), present=present)[0].item() == 1


def test_result_is_float64_for_any_input():
    row = torch.tensor([[3, 1, 2]])
    assert rank_biased_overlap(row, row).dtype == torch.float64
    assert rank_biased_overlap(row.half(), row.half()).dtype == torch.float64
