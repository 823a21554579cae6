"""Sums, shares and plots of the scores, and which of two maps is the clean one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lightning_camrobust.compare.relative_l2 import RelativeL2
from lightning_camrobust.comparison import compare_maps
from lightning_camrobust.metric import CAMConsistency, CAMRobustness
from lightning_camrobust.reducing import segment_maxima, segment_sums
from lightning_camrobust.stability import StabilitySums, sum_up
from lightning_camrobust.types import Comparison
from tests import oracles


def some_comparison(seed=0, shape=(60, 3)):
    generator = np.random.default_rng(seed)
    return generator.random(shape), generator.random(shape) < 0.7, generator.random(shape) < 0.8


def test_rates_are_shares_of_counts():
    similarity, same, rankable = some_comparison()
    sums = sum_up(Comparison(*(torch.tensor(each) for each in (similarity, same, rankable))))
    for cell in range(3):
        kept = [s for s, ok in zip(same[:, cell], rankable[:, cell], strict=True) if ok]
        assert sums.flip_rate()[cell].item() == pytest.approx(kept.count(False) / len(kept))
        assert sums.degenerate_rate()[cell].item() == pytest.approx(1 - len(kept) / len(same))
        wanted = oracles.stability(*(each[:, cell] for each in (similarity, same, rankable)))
        found = sums.consistency()[cell], sums.responsiveness()[cell], sums.robustness()[cell]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_pooled_counts_every_pair_once():
    similarity, same, rankable = some_comparison(seed=1)
    sums = sum_up(Comparison(*(torch.tensor(each) for each in (similarity, same, rankable)))).pooled()
    wanted = oracles.stability(*(each.ravel() for each in (similarity, same, rankable)))
    np.testing.assert_allclose([sums.consistency(), sums.responsiveness(), sums.robustness()], wanted, rtol=1e-12)
    assert sums.same_count + sums.changed_count + sums.degenerate_count == similarity.size


def test_scored_pairs_of_either_kind_make_an_empty_set_vacuous():
    def of(same, changed):
        return StabilitySums(*(torch.tensor(float(each)) for each in (same, same, changed, changed, 1)))

    for same, changed in ((3, 0), (0, 3)):
        assert of(same, changed).robustness("vacuous") == 1
        assert of(same, changed).robustness().isnan()
    assert of(0, 0).robustness("vacuous").isnan()


@dataclass(frozen=True)
class OfClean:
    """A similarity that looks at the clean scores only."""

    def __call__(self, clean, noisy, *, present):
        return clean[:, 0] / clean.sum(dim=1)


def test_the_clean_maps_are_the_first_that_a_similarity_gets():
    generator = torch.Generator().manual_seed(0)
    clean, noisy = (torch.rand(4, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    classes = torch.arange(4)
    segments = torch.arange(36).view(6, 6).expand(4, -1, -1)
    found = compare_maps(clean, noisy, classes, classes, segments, similarity=RelativeL2()).similarity
    change = np.linalg.norm((clean - noisy).flatten(1), axis=1) / np.linalg.norm(clean.flatten(1), axis=1)
    np.testing.assert_allclose(found, 1 - change, rtol=1e-12)
    shares = compare_maps(clean, noisy, classes, classes, segments, similarity=OfClean()).similarity
    np.testing.assert_allclose(shares, clean[:, 0, 0] / clean.sum(dim=(1, 2)), rtol=1e-4)


def test_a_metric_tells_its_settings_and_draws_what_it_is_given():
    metric = CAMConsistency(p=0.7, ties="a")
    assert (metric.p, metric.ties, metric.undefined) == (0.7, "a", "nan")
    axes = Figure().subplots()
    _, drawn = CAMRobustness().plot([torch.tensor(0.25), torch.tensor(0.5)], axes)
    assert drawn is axes
    assert [float(value) for value in axes.get_lines()[0].get_ydata()] == [0.25, 0.5]


def test_sums_and_maxima_of_segments_equal_a_loop():
    generator = np.random.default_rng(3)
    labels = torch.tensor(generator.integers(0, 5, (3, 8, 9)))
    labels[0][labels[0] == 4] = 3
    means = torch.tensor(generator.random((3, 2, 5)))
    found = segment_sums(means, labels)
    maps = torch.tensor(generator.random((3, 2, 8, 9))) - 2
    highest = segment_maxima(maps, labels, count=6)
    for image in range(3):
        there = sorted(set(labels[image].flatten().tolist()))
        mean_size = 72 / len(there)
        for segment in range(6):
            size = int((labels[image] == segment).sum())
            for which in range(2):
                if segment < 5:
                    wanted = means[image, which, segment] * size / mean_size
                    assert found[image, which, segment].item() == pytest.approx(float(wanted))
                cells = maps[image, which][labels[image] == segment]
                # At the maps' own size nothing is interpolated.
                assert highest[image, which, segment].item() == pytest.approx(float(cells.max()) if size else 0)
