"""The same maps read in several ways: each reading equals a run of its own, and slow loops over enlarged maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from lightning_camrobust import measure_stability
from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.reading import Reading, make_reading
from lightning_camrobust.reducing import segment_maxima, segment_sums
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.sweep import sensitivity_readings


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    before = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(*before, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))


HOW = {"severities": (3, 5), "mean": 0.0, "std": 1.0, "chunk_size": 5}
METHODS = ("gradcam", "layercam", "eigencam")


def measure(network, images, perturbations=("gaussian_noise", "fgsm"), **settings):
    return measure_stability(network, images, METHODS, perturbations, **{**HOW, "segmenter": "grid", **settings})


@pytest.mark.parametrize(
    ("label", "alone"),
    [
        ("p=0.9", {"similarity": RankBiasedOverlap(p=0.9)}),
        ("ties=a", {"similarity": RankBiasedOverlap(ties="a")}),
        ("segmenter=slic", {"segmenter": "slic"}),
        ("reduction=sum", {"reduction": "sum"}),
        ("reduction=max", {"reduction": "max"}),
        ("target=original", {"target": "original"}),
    ],
)
def test_each_reading_equals_a_run_of_its_own(network, images, label, alone):
    readings = sensitivity_readings(make_reading(segmenter="grid"))
    together = measure(network, images, readings=readings)
    single = measure(network, images, **alone)
    torch.testing.assert_close(
        together.similarities[label], single.comparison.similarity, rtol=0, atol=1e-9, equal_nan=True
    )
    assert torch.equal(together.comparison.same_class, single.comparison.same_class)
    if label != "ties=a":  # without ties in the scores it changes nothing
        assert not torch.equal(together.similarities[label].nan_to_num(), together.comparison.similarity.nan_to_num())


def test_original_class_matters_only_where_the_prediction_changed(network, images):
    readings = {"original": replace(make_reading(segmenter="grid"), target="original")}
    found = measure(network, images, readings=readings)
    same = found.comparison.same_class
    assert 0 < int(same.sum()) < same.numel()
    # Where it stayed, nothing is computed anew.
    assert torch.equal(
        found.similarities["original"][same].nan_to_num(), found.comparison.similarity[same].nan_to_num()
    )


def test_a_reading_of_the_predicted_class_is_refused_where_the_original_one_is_explained(network, images):
    readings = {"predicted": make_reading(segmenter="grid")}
    with pytest.raises(
        ArgumentError, match=r"`readings\['predicted'\]` explains the class predicted.*target='original'"
    ):
        measure(network, images, readings=readings, target="original")
    with pytest.raises(ArgumentError, match="`target` is 'original'"):
        StudyGrid(target="original", readings=readings)
    # The other way round both can be had, and each is what its label says.
    mine = {"p=0.9": make_reading(RankBiasedOverlap(p=0.9), "grid", target="original")}
    found = measure(network, images, readings=mine, target="original")
    alone = measure(network, images, similarity=RankBiasedOverlap(p=0.9), target="original")
    torch.testing.assert_close(
        found.similarities["p=0.9"], alone.comparison.similarity, rtol=0, atol=1e-9, equal_nan=True
    )


def test_every_reading_of_a_grid_explains_the_class_that_it_says():
    plan = StudyGrid(target="original", segmenter="grid").plan()
    assert plan.reading.target == "original"
    assert {reading.target for reading in plan.readings.values()} == {"original"}
    assert len(plan.readings) == len(StudyGrid(segmenter="grid").plan().readings) - 1
    assert StudyGrid(target="original").describe()["reading"]["target"] == "original"
    assert StudyGrid(target=3).plan().reading.target == "predicted"


def test_further_readings_leave_the_main_one_alone(network, images):
    with_them = measure(network, images, readings=sensitivity_readings(make_reading(segmenter="grid")))
    alone = measure(network, images)
    assert torch.equal(with_them.comparison.similarity.nan_to_num(-1), alone.comparison.similarity.nan_to_num(-1))


def slow_reduction(maps, labels, how):
    """Enlarge, then go over the segments one by one."""
    large = interpolate(maps.double()[:, None], size=labels.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    rows = []
    for each, cut in zip(large.numpy(), labels.numpy(), strict=True):
        rows.append([getattr(np, how)(each[cut == segment]) for segment in range(cut.max() + 1)])
    return rows


def ragged_labels():
    labels = torch.randint(0, 5, (3, 9, 11), generator=torch.Generator().manual_seed(0))
    labels[1] = labels[1].clamp(max=2)
    return labels


def test_maxima_equal_a_slow_loop():
    maps, labels = torch.randn(3, 4, 3), ragged_labels()
    found = segment_maxima(maps, labels, count=5)
    for row, wanted in zip(found, slow_reduction(maps, labels, "max"), strict=True):
        np.testing.assert_allclose(row[: len(wanted)], wanted, atol=1e-12)
        assert not row[len(wanted) :].any()


def test_sums_equal_a_slow_loop_up_to_one_factor_an_image():
    maps, labels = torch.rand(3, 4, 3), ragged_labels()
    means = torch.zeros(3, 5, dtype=torch.float64)
    for row, wanted in zip(means, slow_reduction(maps, labels, "mean"), strict=True):
        row[: len(wanted)] = torch.tensor(wanted)
    found = segment_sums(means, labels)
    for row, wanted in zip(found, slow_reduction(maps, labels, "sum"), strict=True):
        ratio = row[: len(wanted)].numpy() / np.array(wanted)
        # The factor is one over the mean size of a segment.
        np.testing.assert_allclose(ratio, len(wanted) / labels[0].numel(), rtol=1e-12)


def test_sums_make_unrelated_maps_look_alike():
    labels = torch.arange(8).repeat_interleave(torch.tensor([1, 2, 4, 8, 12, 16, 24, 33])).reshape(1, 10, 10)
    means = torch.rand(2, 200, 8, generator=torch.Generator().manual_seed(0)).double()
    sums = [segment_sums(each[None], labels)[0] for each in means]
    present, rbo = torch.ones(200, 8, dtype=torch.bool), RankBiasedOverlap()
    assert rbo(*sums, present=present).mean() > 2 * rbo(*means, present=present).mean()


def test_wrong_words_are_named():
    with pytest.raises(ArgumentError, match="`reduction` must be one of 'mean', 'sum', 'max'; got 'median'"):
        make_reading(reduction="median")
    with pytest.raises(ArgumentError, match="`target` must be one of 'predicted', 'original'"):
        Reading(make_reading().similarity, make_reading().segmenter, target="mine")
    with pytest.raises(ArgumentError, match="`readings` must be 'sensitivity'"):
        StudyGrid(readings="all")
    with pytest.raises(ArgumentError, match="'original'"):
        StudyGrid(target="clean")


def test_grid_changes_one_thing_at_a_time():
    plan = StudyGrid(methods="gradcam").plan()
    assert list(plan.readings) == [
        *("p=0.5", "p=0.8", "p=0.9", "ties=a", "ties=w", "ties=stable"),
        *("segmenter=slic", "segmenter=grid", "reduction=sum", "reduction=max", "target=original"),
    ]
    assert "target=original" not in StudyGrid(methods="gradcam", target=3).plan().readings
    assert list(StudyGrid(similarity="ssim", methods="gradcam").plan().readings) == ["target=original"]


@pytest.mark.parametrize("empty", ["methods", "perturbations", "severities"])
def test_empty_grid_is_refused(empty):
    with pytest.raises(ArgumentError, match="at least one"):
        StudyGrid(**{empty: ()})
