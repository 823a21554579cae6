"""Values of the similarities against scipy, scikit-image, slow loops and hand values."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import braycurtis, cosine
from skimage.metrics import structural_similarity

from lightning_camrobust.compare.cosine import Cosine
from lightning_camrobust.compare.kendall import Kendall, kendall_tau
from lightning_camrobust.compare.l1 import L1
from lightning_camrobust.compare.normalised_l1 import NormalisedL1
from lightning_camrobust.compare.rbo_corrected import CorrectedRankBiasedOverlap
from lightning_camrobust.compare.relative_l2 import RelativeL2
from lightning_camrobust.compare.spearman import Spearman, spearman_correlation
from lightning_camrobust.compare.ssim import SSIM
from lightning_camrobust.compare.topk import TopKIoU, TopKOverlap
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from tests import oracles


def masked_rows(seed=5, count=300, width=40):
    """Rows of 2..40 scores with all sorts of ties, at random places among NaN and infinities; never all equal."""
    generator = np.random.default_rng(seed)
    rows = generator.choice([np.nan, np.inf, -np.inf, 7.0], (2, count, width))
    present = np.zeros((count, width), dtype=bool)
    for index in range(count):
        length = int(generator.integers(2, width + 1))
        where = generator.choice(width, length, replace=False)
        present[index, where] = True
        for row in rows[:, index]:
            row[where] = generator.integers(0, int(generator.choice([2, 3, 8, 10**6])), length)
            row[where[:2]] = generator.permutation([row[where[0]], row[where[0]] + 1])
    return torch.tensor(rows[0]), torch.tensor(rows[1]), torch.tensor(present)


def kept(clean, noisy, present):
    """The same rows one by one, without what is absent."""
    for first, second, here in zip(clean.numpy(), noisy.numpy(), present.numpy(), strict=True):
        yield first[here], second[here]


def maps(seed, count=12, size=(7, 9)):
    generator = np.random.default_rng(seed)
    return torch.tensor(np.maximum(generator.normal(size=(count, *size)), 0) * 3)


def map_pairs(clean, noisy):
    return zip(clean.numpy(), noisy.numpy(), strict=True)


# --- coefficients of rank ---


def test_spearman_equals_scipy():
    rows = masked_rows()
    wanted = [stats.spearmanr(*pair).statistic for pair in kept(*rows)]
    found = spearman_correlation(*rows[:2], present=rows[2])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    # Ranks taken by scipy, correlated by numpy: the same without scipy's own Spearman.
    by_hand = [np.corrcoef(*(stats.rankdata(row) for row in pair))[0, 1] for pair in kept(*rows)]
    np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-12)
    np.testing.assert_allclose(Spearman()(*rows[:2], present=rows[2]), (1 + np.array(wanted)) / 2, rtol=0, atol=1e-12)


def test_kendall_equals_scipy():
    rows = masked_rows(seed=6)
    wanted = [stats.kendalltau(*pair, variant="b").statistic for pair in kept(*rows)]
    np.testing.assert_allclose(kendall_tau(*rows[:2], present=rows[2]), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(Kendall()(*rows[:2], present=rows[2]), (1 + np.array(wanted)) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("coefficient", [spearman_correlation, kendall_tau])
def test_coefficients_of_hand(coefficient):
    clean = torch.tensor([[1, 2, 3, 4]])
    assert coefficient(clean, clean).item() == 1
    assert coefficient(clean, -clean).item() == -1
    # One swap of neighbours: 1 - 6 * 2 / 60, and (5 - 1) / 6.
    wanted = {spearman_correlation: 0.8, kendall_tau: 2 / 3}[coefficient]
    assert coefficient(clean, torch.tensor([[1, 3, 2, 4]])).item() == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("coefficient", [spearman_correlation, kendall_tau])
def test_an_infinite_score_that_is_present_has_a_rank(coefficient):
    clean = torch.tensor([[torch.inf, 2.0, -torch.inf, torch.inf]])
    noisy = torch.tensor([[5.0, -torch.inf, 0.0, 9.0]])
    finite = coefficient(torch.tensor([[3.0, 2.0, 1.0, 3.0]]), torch.tensor([[5.0, -1.0, 0.0, 9.0]]))
    assert coefficient(clean, noisy).item() == finite.item()
    assert math.isfinite(finite.item())


@pytest.mark.parametrize("coefficient", [spearman_correlation, kendall_tau])
def test_coefficients_are_nan_where_scipy_has_none(coefficient):
    clean = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, torch.nan, 3.0], [1.0, 2.0, 3.0]])
    noisy = torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert coefficient(clean, noisy).isnan().tolist() == [True, True, True, False]
    lone = torch.tensor([[True, False, False]])
    assert coefficient(clean[3:], noisy[3:], present=lone).isnan().item()
    assert coefficient(torch.empty(1, 0), torch.empty(1, 0)).isnan().item()


@pytest.mark.parametrize("coefficient", [spearman_correlation, kendall_tau])
def test_a_large_dead_row_but_for_one_cell_counts_exactly(coefficient):
    # Sums of ranks of thousands of equal scores overflow small integers and blur float32.
    row = torch.zeros(1, 1500)
    row[0, 7] = 1
    assert coefficient(row, row).item() == 1
    other = row.roll(1, dims=1)
    assert coefficient(row, other).item() == pytest.approx(-1 / 1499, abs=1e-12)


# --- top k ---


def fair_weights(scores, size):
    """How often each item is among the first ``size`` over all ways of breaking ties."""
    counts, ways = np.zeros(len(scores)), 0
    for order in oracles.all_tie_breaks(list(scores)):
        counts += np.argsort(np.argsort([-value for value in order])) < size
        ways += 1
    return counts / ways


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_top_k_equals_a_count_over_all_tie_breaks(k):
    generator = np.random.default_rng(k)
    rows = generator.integers(0, 3, (2, 40, 6)).astype(float)
    present = generator.random((40, 6)) < 0.8
    for index in range(40):
        present[index, :2] = True
        for row in rows[:, index]:
            row[:2] = generator.permutation([0, 1])
    given = [torch.tensor(each) for each in (*rows, present)]
    overlap, iou = TopKOverlap(k=k)(*given[:2], present=given[2]), TopKIoU(k=k)(*given[:2], present=given[2])
    for index, pair in enumerate(kept(*given)):
        size = min(k, len(pair[0]))
        first, second = (fair_weights(row, size) for row in pair)
        assert overlap[index].item() == pytest.approx(np.minimum(first, second).sum() / size, abs=1e-12)
        assert iou[index].item() == pytest.approx(
            np.minimum(first, second).sum() / np.maximum(first, second).sum(), abs=1e-12
        )


def test_top_k_of_sets_by_hand():
    generator = np.random.default_rng(0)
    for _ in range(30):
        first, second = generator.permutation(20), generator.permutation(20)
        ours, theirs = set(np.argsort(-first)[:7]), set(np.argsort(-second)[:7])
        given = [torch.tensor(row)[None] for row in (first, second)]
        present = torch.ones(1, 20, dtype=torch.bool)
        assert TopKOverlap(k=7)(*given, present=present).item() == pytest.approx(len(ours & theirs) / 7, abs=1e-15)
        iou = len(ours & theirs) / len(ours | theirs)
        assert TopKIoU(k=7)(*given, present=present).item() == pytest.approx(iou, abs=1e-15)


def test_ties_across_the_boundary_are_shared():
    # Two places; the clean row is sure of one, and two equals share the other.
    clean, noisy = torch.tensor([[9.0, 5.0, 5.0, 1.0]]), torch.tensor([[9.0, 8.0, 5.0, 1.0]])
    present = torch.ones(1, 4, dtype=torch.bool)
    assert TopKOverlap(k=2)(clean, noisy, present=present).item() == 0.75
    assert TopKIoU(k=2)(clean, noisy, present=present).item() == pytest.approx(1.5 / 2.5, abs=1e-15)
    # The place of a segment in the row decides nothing.
    turned = [row.flip(1) for row in (clean, noisy)]
    assert TopKOverlap(k=2)(*turned, present=present).item() == 0.75


def test_k_beyond_the_segments_is_cut_to_them():
    rows = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    present = torch.tensor([[True, True, True, False]])
    for member in (TopKOverlap(k=3), TopKOverlap(k=50), TopKIoU(k=3), TopKIoU(k=50)):
        assert member(rows, -rows, present=present).item() == 1
    assert TopKOverlap(k=2)(rows, -rows, present=present).item() == 0.5


@pytest.mark.parametrize(
    ("share", "segments", "size"), [(0.2, 15, 3), (0.2, 16, 4), (0.07, 100, 7), (0.01, 5, 1), (0.5, 2, 1), (0.9, 4, 4)]
)
def test_share_is_rounded_up_to_whole_segments(share, segments, size):
    generator = torch.Generator().manual_seed(segments)
    rows = torch.rand(2, 20, segments, generator=generator)
    present = torch.ones(20, segments, dtype=torch.bool)
    for member in (TopKOverlap, TopKIoU):
        by_share, by_k = (each(*rows, present=present) for each in (member(share=share), member(k=size)))
        torch.testing.assert_close(by_share, by_k, rtol=0, atol=0)


@pytest.mark.parametrize("member", [TopKOverlap, TopKIoU])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of `k` and `share`"),
        ({"k": 3, "share": 0.2}, "exactly one of `k` and `share`"),
        ({"k": 0}, "`k` must be a whole number of segments"),
        ({"k": 2.0}, "`k` must be a whole number of segments"),
        ({"k": True}, "`k` must be a whole number of segments"),
        ({"share": 0.0}, "`share` must lie strictly between"),
        ({"share": 1.0}, "`share` must lie strictly between"),
        ({"share": math.nan}, "`share` must lie strictly between"),
    ],
)
def test_sizes_that_make_no_top_are_refused(member, settings, message):
    with pytest.raises(ArgumentError, match=message):
        member(**settings)


# --- chance-corrected rank-biased overlap ---


@pytest.mark.parametrize("ties", ["b", "a", "w", "stable"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_corrected_overlap_equals_the_slow_oracle(p, ties):
    rows = masked_rows(seed=8, count=60, width=15)
    found = CorrectedRankBiasedOverlap(p=p, ties=ties)(*rows[:2], present=rows[2])
    for value, (first, second) in zip(found.tolist(), kept(*rows), strict=True):
        chance = oracles.chance_level(len(first), p)
        wanted = (oracles.rbo(first.tolist(), second.tolist(), p, ties) - chance) / (1 - chance)
        assert value == pytest.approx(wanted, abs=1e-11)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_corrected_overlap_is_0_on_average_over_all_rankings(p):
    rows = torch.tensor(list(itertools.permutations(range(5))))
    present = torch.ones_like(rows, dtype=torch.bool)
    values = CorrectedRankBiasedOverlap(p=p)(rows, rows[:1].expand_as(rows), present=present)
    assert values.mean().item() == pytest.approx(0, abs=1e-14)


def test_corrected_overlap_with_ties_is_0_on_average_with_rule_a():
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, 3, (2, 4000, 12), generator=generator)
    present = torch.ones(4000, 12, dtype=torch.bool)
    values = CorrectedRankBiasedOverlap(p=0.9, ties="a")(*rows, present=present)
    assert abs(values.mean().item()) < 4 * values.std().item() / math.sqrt(4000)
    assert CorrectedRankBiasedOverlap(p=0.9, ties="b")(*rows, present=present).mean().item() > 0.01


def test_corrected_overlap_never_falls_below_its_lowest():
    for p in (0.05, 0.5, 0.98):
        for length in (2, 3, 4, 5):
            rows = torch.tensor(list(itertools.permutations(range(length))))
            present = torch.ones_like(rows, dtype=torch.bool)
            found = CorrectedRankBiasedOverlap(p=p)(rows, rows[:1].expand_as(rows), present=present)
            chance = oracles.chance_level(length, p)
            raw = [(oracles.rbo(row, rows[0].tolist(), p, "a") - chance) / (1 - chance) for row in rows.tolist()]
            # Not an effect of cutting: the formula itself stays above -1, but for two segments, where it is -1.
            assert min(raw) == pytest.approx(-1, abs=1e-9) if length == 2 else min(raw) > -1
            assert found.min().item() == pytest.approx(min(raw), abs=1e-9)


def test_corrected_overlap_refuses_a_wrong_patience():
    with pytest.raises(ArgumentError, match="`p` must lie strictly between 0 and 1"):
        CorrectedRankBiasedOverlap(p=1)
    with pytest.raises(ArgumentError, match="`ties` must be"):
        CorrectedRankBiasedOverlap(ties="random")


# --- maps ---


def test_cosine_equals_scipy():
    clean, noisy = maps(0), maps(1)
    wanted = [1 - cosine(first.ravel(), second.ravel()) for first, second in map_pairs(clean, noisy)]
    np.testing.assert_allclose(Cosine()(clean, noisy), wanted, rtol=0, atol=1e-12)


def test_l1_equals_a_slow_loop():
    clean, noisy = maps(0), maps(1)
    wanted = []
    for first, second in map_pairs(clean, noisy):
        gaps = [abs(a / first.max() - b / second.max()) for a, b in zip(first.flat, second.flat, strict=True)]
        wanted.append(1 - math.fsum(gaps) / len(gaps))
    np.testing.assert_allclose(L1()(clean, noisy), wanted, rtol=0, atol=1e-12)


def test_normalised_l1_equals_bray_curtis_of_shares():
    clean, noisy = maps(0), maps(1)
    wanted = [1 - braycurtis(a.ravel() / a.sum(), b.ravel() / b.sum()) for a, b in map_pairs(clean, noisy)]
    np.testing.assert_allclose(NormalisedL1()(clean, noisy), wanted, rtol=0, atol=1e-12)
    common = [np.minimum(a / a.sum(), b / b.sum()).sum() for a, b in map_pairs(clean, noisy)]
    np.testing.assert_allclose(NormalisedL1()(clean, noisy), common, rtol=0, atol=1e-12)


def test_maps_without_a_common_cell_score_exactly_0():
    clean = maps(3, count=200)
    noisy = torch.where(clean > 0, 0, maps(4, count=200) + 0.1)
    for member in (Cosine(), NormalisedL1()):
        assert (member(clean, noisy) >= 0).all()
        torch.testing.assert_close(member(clean, noisy), torch.zeros(200).double(), rtol=0, atol=1e-12)


def test_relative_l2_equals_numpy():
    clean, noisy = maps(0), maps(1)
    wanted = [1 - np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in map_pairs(clean, noisy)]
    np.testing.assert_allclose(RelativeL2()(clean, noisy), wanted, rtol=0, atol=1e-12)
    # The scale of the noisy map counts, other than for a cosine: |e - 3e| / |e| = 2.
    np.testing.assert_allclose(RelativeL2()(clean, 3 * clean), -np.ones(12), rtol=0, atol=1e-12)


def test_a_map_that_went_dead_is_a_change_of_its_whole_size_yet_undefined_elsewhere():
    clean, dead = maps(0), torch.zeros(12, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(RelativeL2()(clean, dead), torch.zeros(12).double(), rtol=0, atol=1e-15)
    assert RelativeL2()(dead, clean).isnan().all()
    for member in (Cosine(), L1(), NormalisedL1(), SSIM()):
        assert member(clean, dead).isnan().all()
        assert member(dead, clean).isnan().all()


@pytest.mark.parametrize("member", [Cosine(), L1(), NormalisedL1(), SSIM(), RelativeL2()], ids=repr)
def test_a_flat_map_that_is_not_zero_is_a_map(member):
    flat = torch.full((1, 7, 7), 0.3)
    assert member(flat, flat).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("member", [L1(), NormalisedL1(), SSIM()], ids=repr)
def test_a_map_that_is_nowhere_positive_cannot_be_scaled(member):
    clean, negative = maps(0), -maps(1) - 1
    assert member(clean, negative).isnan().all()
    assert member(negative, clean).isnan().all()


def test_a_sum_beyond_all_numbers_makes_no_shares():
    clean, noisy = maps(0), torch.full((12, 7, 9), 1e308, dtype=torch.float64)
    assert NormalisedL1()(clean, noisy).isnan().all()


def structural(first, second):
    return structural_similarity(
        first, second, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def enlarged(picture, size):
    """Bilinear, half-pixel centres, edges repeated, by scipy."""
    rows, columns = (
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for new, old in zip(size, picture.shape, strict=True)
    )
    return map_coordinates(picture, np.meshgrid(rows, columns, indexing="ij"), order=1)


def test_ssim_equals_scikit_image_on_large_maps():
    clean, noisy = maps(0, count=4, size=(32, 41)), maps(1, count=4, size=(32, 41))
    noisy = (clean + noisy) / 2
    wanted = [structural(a / a.max(), b / b.max()) for a, b in map_pairs(clean, noisy)]
    np.testing.assert_allclose(SSIM()(clean, noisy), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "large"), [((7, 7), (32, 32)), ((7, 9), (32, 41)), ((31, 14), (71, 32))])
def test_ssim_enlarges_small_maps_until_the_window_fits(size, large):
    clean, noisy = maps(0, count=3, size=size), maps(1, count=3, size=size)
    wanted = [
        structural(enlarged(a / a.max(), large), enlarged(b / b.max(), large)) for a, b in map_pairs(clean, noisy)
    ]
    np.testing.assert_allclose(SSIM()(clean, noisy), wanted, rtol=0, atol=1e-10)


# --- as members ---


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("spearman", Spearman()),
        ("kendall", Kendall()),
        ("topk", TopKOverlap(share=0.2)),
        ("rbo_corrected", CorrectedRankBiasedOverlap(p=0.2, ties="b")),
        ("cosine", Cosine()),
        ("l1", L1()),
        ("normalised_l1", NormalisedL1()),
        ("relative_l2", RelativeL2()),
        ("ssim", SSIM()),
    ],
)
def test_is_found_by_name(name, kind):
    assert resolve_member("compare", name) == kind


def test_rank_biased_overlap_keeps_its_old_places():
    from lightning_camrobust import functional, overlap
    from lightning_camrobust.compare import rbo

    assert rbo.rank_biased_overlap is overlap.rank_biased_overlap is functional.rank_biased_overlap
    assert rbo.Ties is overlap.Ties
