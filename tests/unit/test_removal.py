"""Curves of removal against explicit pixel-by-pixel loops, and the scores made of them against values by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.integrate import trapezoid
from torch.nn.functional import interpolate

from lightning_camrobust.critique.controls import edge_maps, random_maps
from lightning_camrobust.critique.curves import RemovalCurves, RemovalSettings, removal_curve, removal_curves
from lightning_camrobust.critique.neutrality import measure_neutrality
from lightning_camrobust.critique.orders import removal_ranks
from lightning_camrobust.critique.scores import (
    BETTER,
    aopc,
    area_under_curve,
    artefact,
    bootstrap_interval,
    fidelity,
    removal_scores,
)
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.randomness import ImageRandomness, image_keys

ORDERS = ("morf", "lerf", "deletion", "insertion")
COLOURS = {"black": 0.0, "white": 1.0, "grey": 0.5}


def pictures(*shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def classify(pixels):
    """A small nonlinear classifier of three classes, each pixel with a weight of its own."""
    flat = pixels.double().flatten(1)
    weights = torch.sin(torch.arange(3 * flat.shape[1], dtype=torch.float64)).view(3, -1)
    return (flat @ weights.T).softmax(dim=1)


def loop_curve(pixels, importance, classes, order, baseline, steps):
    """Remove pixel by pixel with numpy; python's sort is stable."""
    curves = []
    for image, scores, label in zip(pixels.numpy(), importance.numpy(), classes.tolist(), strict=True):
        height, width = scores.shape
        places = [(y, x) for y in range(height) for x in range(width)]
        sign = 1 if order == "lerf" else -1
        places.sort(key=lambda place: sign * scores[place])  # noqa: B023
        curve = []
        for step in range(steps + 1):
            count = math.floor(step * height * width / steps)
            changed = image.copy()
            for y, x in places[count:] if order == "insertion" else places[:count]:
                for channel in range(len(image)):
                    changed[channel, y, x] = baseline
            curve.append(float(classify(torch.from_numpy(changed)[None])[0, label]))
        curves.append(curve)
    return torch.tensor(curves, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 5, 63])
@pytest.mark.parametrize("baseline", COLOURS)
@pytest.mark.parametrize("order", ORDERS)
def test_curves_equal_a_loop_over_pixels(order, baseline, steps):
    pixels, maps, classes = pictures(4, 3, 9, 7), pictures(4, 9, 7, seed=1), torch.tensor([0, 1, 2, 1])
    settings = RemovalSettings(baseline=baseline, steps=steps, chunk_size=7)
    found = removal_curve(classify, pixels, maps, classes, order=order, settings=settings)
    assert (found.shape, found.dtype) == ((4, steps + 1), torch.float64)
    wanted = loop_curve(pixels, maps, classes, order, COLOURS[baseline], steps)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ["morf", "lerf", "insertion"])
def test_ties_go_row_by_row_in_every_order(order):
    pixels, classes = pictures(2, 1, 6, 5), torch.tensor([0, 2])
    maps = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(2)).float()
    settings = RemovalSettings(baseline="black", steps=30)
    found = removal_curve(classify, pixels, maps, classes, order=order, settings=settings)
    torch.testing.assert_close(found, loop_curve(pixels, maps, classes, order, 0.0, 30), rtol=0, atol=1e-12)


def test_a_flat_map_has_no_fidelity():
    pixels = pictures(2, 1, 12, 12)
    # Upsampled, 0.3 is 0.3 up to rounding, which must not make an order.
    curves = removal_curves(classify, pixels, torch.full((2, 5, 5), 0.3), torch.tensor([0, 2]))
    assert (fidelity(curves) == 0).all()


@pytest.mark.parametrize("order", ["morf", "lerf", "insertion"])
def test_small_maps_are_upsampled_bilinearly(order):
    pixels, maps, classes = pictures(2, 1, 12, 9), pictures(2, 4, 3, seed=1), torch.tensor([0, 2])
    large = interpolate(maps[:, None].double(), size=(12, 9), mode="bilinear", align_corners=False)[:, 0]
    # Beyond the centres of the outermost cells a map is flat, but for rounding.
    large = (large / maps.amax(dim=(1, 2), keepdim=True)).round(decimals=6)
    found = removal_curve(classify, pixels, maps, classes, order=order)
    torch.testing.assert_close(found, loop_curve(pixels, large, classes, order, 0.5, 20), rtol=0, atol=1e-12)


def test_ranks_by_hand():
    maps = torch.tensor([[[0.1, 0.9], [0.9, 0.5]]])
    assert removal_ranks(maps, size=(2, 2), descending=True).tolist() == [[3, 0, 1, 2]]
    assert removal_ranks(maps, size=(2, 2), descending=False).tolist() == [[0, 2, 3, 1]]


def test_a_baseline_that_looks_at_what_is_left_is_asked_at_each_step():
    pixels, maps, classes = pictures(2, 1, 8, 8), pictures(2, 8, 8, seed=1), torch.tensor([0, 2])
    seen = []

    def listening(pixels, *, removed, randomness):
        seen.extend(removed.flatten(1).sum(dim=1).tolist())
        return pixels

    settings = RemovalSettings(baseline=listening, steps=4)
    removal_curve(classify, pixels, maps, classes, order="morf", settings=settings)
    assert seen == [0, 16, 32, 48, 64] * 2


@pytest.mark.parametrize("baseline", ["uniform_noise", "shuffle", "noisy_linear"])
def test_random_fills_are_the_same_at_each_step_and_in_any_company(baseline):
    pixels, maps, classes = pictures(3, 3, 8, 8), pictures(3, 8, 8, seed=1), torch.tensor([0, 2, 1])

    def curve(rows, chunk_size=64, seed=0):
        settings = RemovalSettings(baseline=baseline, steps=8, seed=seed, chunk_size=chunk_size)
        return removal_curve(classify, pixels[rows], maps[rows], classes[rows], order="morf", settings=settings)

    everyone = slice(0, 3)
    torch.testing.assert_close(curve(everyone, chunk_size=2), curve(everyone), rtol=0, atol=1e-12)
    alone = torch.cat([curve(slice(index, index + 1)) for index in range(3)])
    torch.testing.assert_close(alone, curve(everyone), rtol=0, atol=1e-12)
    assert (curve(everyone, seed=1)[:, 1:] != curve(everyone)[:, 1:]).all()


def test_one_noise_image_serves_all_steps():
    pixels, classes = pictures(1, 1, 4, 4), torch.tensor([0])
    pictures_seen = []

    def remember(images):
        pictures_seen.append(images)
        return classify(images)

    settings = RemovalSettings(baseline="uniform_noise", steps=16)
    removal_curve(remember, pixels, pictures(1, 4, 4, seed=1), classes, order="morf", settings=settings)
    steps = torch.cat(pictures_seen)
    # From one step to the next one pixel changes, and what has been replaced stays.
    assert ((steps[1:] != steps[:-1]).flatten(1).sum(dim=1) == 1).all()


def test_forward_passes_come_in_chunks_and_without_a_graph():
    sizes = []
    weight = torch.ones((), requires_grad=True)

    def watched(pixels):
        sizes.append(len(pixels))
        assert not torch.is_grad_enabled()
        return classify(pixels) * weight

    settings = RemovalSettings(steps=10, chunk_size=8)
    maps = pictures(2, 9, 7, seed=1)
    curve = removal_curve(watched, pictures(2, 3, 9, 7), maps, torch.tensor([0, 1]), order="morf", settings=settings)
    assert sizes == [8, 8, 6]
    assert not curve.requires_grad


def test_a_map_that_is_not_finite_spoils_its_own_image_only():
    pixels, maps, classes = pictures(3, 3, 9, 7), pictures(3, 9, 7, seed=1), torch.tensor([0, 1, 2])
    clean = removal_curves(classify, pixels, maps, classes)
    maps[1, 0, 0] = torch.nan
    curves = removal_curves(classify, pixels, maps, classes)
    assert curves.morf[1].isnan().all()
    for name in ("morf", "lerf", "insertion"):
        torch.testing.assert_close(getattr(curves, name)[[0, 2]], getattr(clean, name)[[0, 2]], rtol=0, atol=0)


def test_inputs_and_generators_stay():
    pixels, maps, classes = pictures(2, 3, 9, 7), pictures(2, 9, 7, seed=1), torch.tensor([0, 1])
    before, state = (pixels.clone(), maps.clone()), torch.get_rng_state()
    removal_curves(classify, pixels, maps, classes, settings=RemovalSettings(baseline="uniform_noise"))
    torch.testing.assert_close((pixels, maps), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": 2 * torch.ones(2, 3, 9, 7)}, r"`pixels` must lie in \[0, 1\]"),
        ({"pixels": torch.ones(3, 9, 7)}, "must be 4-d"),
        ({"maps": torch.rand(2, 10, 7)}, "at most as large as the images"),
        ({"maps": torch.rand(3, 9, 7)}, "`maps` must be"),
        ({"classes": torch.tensor([0.0, 1.0])}, "`classes` must be"),
        ({"classes": torch.tensor([0])}, "`classes` must be"),
        ({"order": "roar"}, "`order` must be"),
        ({"settings": RemovalSettings(steps=64)}, "`steps` must not exceed"),
        ({"classify": lambda pixels: pixels}, "`classify` must return"),
    ],
)
def test_wrong_arguments_are_refused(change, words):
    arguments = {
        "classify": classify,
        "pixels": pictures(2, 3, 9, 7),
        "maps": pictures(2, 9, 7),
        "classes": torch.tensor([0, 1]),
        "order": "morf",
        "settings": RemovalSettings(),
    } | change
    with pytest.raises(ArgumentError, match=words):
        removal_curve(**arguments)


@pytest.mark.parametrize("name", ["steps", "chunk_size"])
@pytest.mark.parametrize("value", [0, 2.5, True])
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ArgumentError, match=f"`{name}` must be a whole number"):
        RemovalSettings(**{name: value})


CURVES = RemovalCurves(
    share=torch.tensor([0.0, 0.25, 1.0]).double(),
    morf=torch.tensor([[1.0, 0.2, 0.1]]).double(),
    lerf=torch.tensor([[1.0, 0.9, 0.1]]).double(),
    insertion=torch.tensor([[0.1, 0.7, 1.0]]).double(),
)


def test_scores_by_hand():
    scores = {name: float(value) for name, value in removal_scores(CURVES).items()}
    assert scores == {
        "deletion": pytest.approx(0.25 * 0.6 + 0.75 * 0.15),
        "insertion": pytest.approx(0.25 * 0.4 + 0.75 * 0.85),
        "aopc": pytest.approx((0 + 0.8 + 0.9) / 3),
        "symmetric": pytest.approx(0.25 * 0.35 + 0.75 * 0.35),
        "fidelity": pytest.approx(0.7 / 3),
        "artefact": pytest.approx((0 + 0.1 + 0.9) / 3),
    }
    assert set(BETTER) == set(scores) - {"artefact"}
    assert artefact(CURVES).tolist() == [pytest.approx([0.0, 0.1, 0.9])]
    assert fidelity(CURVES).tolist() == [pytest.approx([0.0, 0.7, 0.0])]
    assert CURVES.deletion is CURVES.morf


def test_areas_and_aopc_against_loops():
    curve, share = pictures(5, 12, dtype=torch.float64), torch.linspace(0, 1, 12).double()
    np.testing.assert_allclose(area_under_curve(curve, share), trapezoid(curve, share, axis=1), rtol=0, atol=1e-14)
    wanted = [sum(row[0] - value for value in row) / len(row) for row in curve.tolist()]
    np.testing.assert_allclose(aopc(curve), wanted, rtol=0, atol=1e-14)


def test_bootstrap_interval_agrees_with_scipy():
    values = pictures(60, dtype=torch.float64) ** 3
    found = bootstrap_interval(values, confidence=0.9, resamples=20000)
    theirs = stats.bootstrap(
        (values.numpy(),), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.mean == pytest.approx(float(values.mean()))
    width = theirs.high - theirs.low
    assert (found.low, found.high) == (
        pytest.approx(theirs.low, abs=width / 40),
        pytest.approx(theirs.high, abs=width / 40),
    )
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)


def test_bootstrap_leaves_out_what_is_unknown():
    values = torch.tensor([1.0, torch.nan, 3.0])
    assert bootstrap_interval(values) == bootstrap_interval(values[[0, 2]])
    assert all(math.isnan(each) for each in bootstrap_interval(values[1:2]))
    with pytest.raises(ArgumentError, match="`confidence` strictly between 0 and 1"):
        bootstrap_interval(values, confidence=95)


def test_edges_equal_scipys_sobel():
    pixels = pictures(2, 3, 9, 7, dtype=torch.float64)
    for found, image in zip(edge_maps(pixels).numpy(), pixels.numpy(), strict=True):
        grey = image.mean(axis=0)
        wanted = np.hypot(*(ndimage.sobel(grey, axis=axis, mode="nearest") for axis in (0, 1)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_random_order_belongs_to_image_and_seed():
    pixels = pictures(3, 3, 9, 7)
    maps = random_maps(pixels)
    assert maps.shape == (3, 9, 7)
    assert torch.equal(random_maps(pixels[1:2]), maps[1:2])
    assert (random_maps(pixels, seed=1) != maps).flatten(1).any(dim=1).all()
    keys = image_keys(pixels)
    assert not torch.equal(maps, ImageRandomness(keys, 0, "uniform_noise", 1).uniform((9, 7)))
    assert stats.kstest(torch.cat([random_maps(pixels, seed=i).flatten() for i in range(20)]), "uniform").pvalue > 0.01


def test_neutrality_by_hand():
    rows = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    found = measure_neutrality(lambda pixels: rows[: len(pixels)], torch.zeros(3, 1, 2, 2), torch.tensor([2, 0, 3]))
    assert found.most_likely.tolist() == [0.25, 1.0, 0.5]
    assert found.own_class.tolist() == [0.25, 1.0, 0.0]
    assert found.divergence.tolist() == pytest.approx([0.0, math.log(4), math.log(2)])


def test_divergence_equals_scipys_entropy():
    pixels, classes = pictures(5, 3, 9, 7), torch.tensor([0, 1, 2, 0, 1])
    found = measure_neutrality(classify, pixels, classes, chunk_size=2)
    probabilities = classify(pixels).numpy()
    np.testing.assert_allclose(
        found.divergence, stats.entropy(probabilities, np.full((5, 3), 1 / 3), axis=1), atol=1e-12
    )
    np.testing.assert_allclose(found.own_class, probabilities[range(5), classes.tolist()], atol=1e-12)


def test_neutrality_wants_probabilities():
    with pytest.raises(ArgumentError, match="softmax"):
        measure_neutrality(lambda pixels: pixels.flatten(1), pictures(2, 3, 4, 4), torch.tensor([0, 0]))


def test_neutrality_refuses_nan():
    with pytest.raises(ArgumentError, match="softmax"):
        measure_neutrality(
            lambda pixels: torch.full((len(pixels), 2), torch.nan), pictures(2, 3, 4, 4), torch.tensor([0, 0])
        )


@pytest.mark.parametrize("label", [-1, 3])
def test_classes_beyond_the_networks_are_refused(label):
    pixels, classes = pictures(2, 3, 9, 7), torch.tensor([0, label])
    with pytest.raises(ArgumentError, match=r"`classes` must lie in 0\.\.2"):
        removal_curve(classify, pixels, pixels[:, 0], classes, order="morf")
    with pytest.raises(ArgumentError, match=r"`classes` must lie in 0\.\.2"):
        measure_neutrality(classify, pixels, classes)


def test_share_is_exact_to_float64():
    pixels = pictures(1, 3, 9, 7)
    settings = RemovalSettings(baseline="black", steps=7)
    share = removal_curves(classify, pixels, pixels[:, 0], torch.tensor([0]), settings=settings).share
    assert share.dtype == torch.float64
    assert share.tolist() == [(step * 63 // 7) / 63 for step in range(8)]
