"""The peers' scores of map stability against slow loops and hand values."""

import math

import numpy as np
import pytest
import torch

from lightning_camrobust.compare.relative_l2 import RelativeL2
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.sensitivity import (
    average_sensitivity,
    local_lipschitz,
    max_sensitivity,
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
)

COPIES, BATCH = 4, 6


def positive(seed, *shape, zeros=0.0):
    generator = np.random.default_rng(seed)
    values = generator.uniform(0.2, 1.0, shape)
    return torch.tensor(np.where(generator.random(shape) < zeros, 0.0, values))


def case(zeros=0.0):
    """Maps, images, logits and activations of 6 images and their 4 noisy copies."""
    return {
        "clean": positive(0, BATCH, 3, 5, zeros=zeros),
        "noisy": positive(1, COPIES, BATCH, 3, 5, zeros=zeros),
        "images": positive(2, BATCH, 2, 6, 4, zeros=zeros),
        "noisy_images": positive(3, COPIES, BATCH, 2, 6, 4),
        "logits": positive(4, BATCH, 7),
        "noisy_logits": positive(5, COPIES, BATCH, 7),
        "representations": positive(6, BATCH, 3, 2, 2, zeros=zeros),
        "noisy_representations": positive(7, COPIES, BATCH, 3, 2, 2),
    }


def with_causes(score, case):
    """The arguments a score takes, of all that there is."""
    causes = {
        average_sensitivity: (),
        max_sensitivity: (),
        local_lipschitz: ("images",),
        relative_input_stability: ("images",),
        relative_output_stability: ("logits",),
        relative_representation_stability: ("representations",),
    }[score]
    return [case["clean"], case["noisy"], *(case[f"{start}{name}"] for name in causes for start in ("", "noisy_"))]


def test_sensitivities_may_be_relative_to_the_image():
    given = case()
    clean, noisy, images = (given[key] for key in ("clean", "noisy", "images"))
    for score, reduce in ((average_sensitivity, np.mean), (max_sensitivity, np.max)):
        wanted = [
            reduce([np.linalg.norm(clean[image] - copy[image]) / np.linalg.norm(images[image]) for copy in noisy])
            for image in range(BATCH)
        ]
        np.testing.assert_allclose(score(clean, noisy, relative_to=images), wanted, rtol=1e-12)
        assert score(clean, noisy, relative_to=torch.zeros_like(images)).isnan().all()
        with pytest.raises(ArgumentError, match="`relative_to` must be float"):
            score(clean, noisy, relative_to=images[1:])


def length(values):
    return math.sqrt(math.fsum(value * value for value in values))


def absolute(before, after):
    return length([a - b for a, b in zip(before.flat, after.flat, strict=True)])


def relative(before, after, eps):
    return length([(a - b) / (a if a != 0 else eps) for a, b in zip(before.flat, after.flat, strict=True)])


def slow(score, given, eps=1e-6, floor=1e-6):
    """One image and one copy at a time."""
    clean, noisy, *causes = (each.numpy() for each in given)
    values = []
    for image in range(len(clean)):
        ratios = []
        for copy in range(len(noisy)):
            e, f = clean[image], noisy[copy, image]
            cause = (causes[0][image], causes[1][copy, image]) if causes else None
            if cause is None:
                ratios.append(absolute(e, f) / length(e.flat))
            elif score is local_lipschitz:
                ratios.append(absolute(e, f) / max(absolute(*cause), floor))
            elif score is relative_output_stability:
                ratios.append(relative(e, f, eps) / max(absolute(*cause), floor))
            else:
                ratios.append(relative(e, f, eps) / max(relative(*cause, eps), floor))
        values.append(sum(ratios) / len(ratios) if score is average_sensitivity else max(ratios))
    return np.array(values)


SCORES = [
    average_sensitivity,
    max_sensitivity,
    local_lipschitz,
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
]
WITH_FLOOR = SCORES[2:]
WITH_EPS = SCORES[3:]


@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("score", SCORES)
def test_equals_a_slow_loop(score, zeros):
    given = with_causes(score, case(zeros))
    found = score(*given)
    assert (found.shape, found.dtype) == ((BATCH,), torch.float64)
    np.testing.assert_allclose(found, slow(score, given), rtol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_float32_counts_in_float64(score):
    given = [each.float() for each in with_causes(score, case(zeros=0.3))]
    np.testing.assert_allclose(score(*given), slow(score, [each.double() for each in given]), rtol=1e-12)


@pytest.mark.parametrize("score", WITH_EPS)
def test_eps_stands_for_zeros_only(score):
    given = with_causes(score, case(zeros=0.3))
    np.testing.assert_allclose(score(*given, eps=0.05), slow(score, given, eps=0.05), rtol=1e-12)
    whole = with_causes(score, case(zeros=0))
    torch.testing.assert_close(score(*whole, eps=0.05), score(*whole), rtol=0, atol=0)


@pytest.mark.parametrize("score", WITH_FLOOR)
def test_floor_bounds_the_denominator(score):
    given = with_causes(score, case())
    given[3] = given[3].clone()
    given[3][1, 2] = given[2][2]
    default = score(*given)
    assert default[2] > 1e4
    assert default.isfinite().all()
    for floor in (1e-6, 0.5, 4.0):
        np.testing.assert_allclose(score(*given, floor=floor), slow(score, given, floor=floor), rtol=1e-12)


def test_values_of_hand():
    clean = torch.tensor([[[3.0, 4.0]]])
    noisy = torch.tensor([[[[3.0, 3.0]]], [[[0.0, 4.0]]], [[[3.0, 4.0]]]])
    assert average_sensitivity(clean, noisy).item() == pytest.approx((0.2 + 0.6 + 0) / 3, abs=1e-15)
    assert max_sensitivity(clean, noisy).item() == pytest.approx(0.6, abs=1e-15)
    images = torch.ones(1, 1, 2, 2)
    noisy_images = images + torch.tensor([1.0, 3.0, 1.0])[:, None, None, None, None]
    # |x - x'| = 2, 6, 2 and |e - e'| = 1, 3, 0.
    assert local_lipschitz(clean, noisy, images, noisy_images).item() == pytest.approx(0.5, abs=1e-15)
    # Cell by cell: 1/4 and 1 over the same images, as x = 1.
    assert relative_input_stability(clean, noisy, images, noisy_images).item() == pytest.approx(1 / 6, abs=1e-15)


def test_one_dead_cell_that_wakes_adds_ten_thousand():
    clean, noisy = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[[1.0, 0.01]]]])
    logits, noisy_logits = torch.tensor([[0.0, 0.0]]), torch.tensor([[[1.0, 0.0]]])
    value = relative_output_stability(clean, noisy, logits, noisy_logits)
    assert value.item() == pytest.approx(1e4, rel=1e-6)


def test_average_sensitivity_is_one_minus_the_mean_of_relative_l2():
    given = with_causes(average_sensitivity, case(zeros=0.3))
    similarity = torch.stack([RelativeL2()(given[0], copy) for copy in given[1]]).mean(dim=0)
    torch.testing.assert_close(average_sensitivity(*given), 1 - similarity, rtol=0, atol=1e-14)


@pytest.mark.parametrize("score", SCORES)
def test_a_map_that_stays_scores_0(score):
    given = with_causes(score, case(zeros=0.3))
    given[1] = given[0].expand(COPIES, *given[0].shape)
    assert (score(*given) == 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_a_flipped_prediction_makes_its_image_nan_if_asked_for(score):
    given = with_causes(score, case())
    same_class = torch.ones(COPIES, BATCH, dtype=torch.bool)
    torch.testing.assert_close(score(*given, same_class=same_class), score(*given), rtol=0, atol=0)
    same_class[2, 1] = False
    values = score(*given, same_class=same_class)
    assert values.isnan().tolist() == [False, True, False, False, False, False]
    others = [0, 2, 3, 4, 5]
    torch.testing.assert_close(values[others], score(*given)[others], rtol=0, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("score", SCORES)
def test_what_is_not_finite_makes_its_own_image_nan(score, bad):
    given = with_causes(score, case())
    wanted = score(*given)
    for position in range(len(given)):
        broken = [each.clone() for each in given]
        image = broken[position][:, 3] if position % 2 else broken[position][3]
        image[(0,) * image.dim()] = bad
        values = score(*broken)
        assert values.isnan().tolist() == [False, False, False, True, False, False]
        others = [0, 1, 2, 4, 5]
        torch.testing.assert_close(values[others], wanted[others], rtol=0, atol=0)


@pytest.mark.parametrize("score", SCORES)
def test_a_dead_clean_map_is_undefined_not_perfect(score):
    given = with_causes(score, case())
    given[0][4] = 0
    given[1][:, 4] = 0
    assert score(*given).isnan().tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize("score", SCORES)
def test_images_do_not_sway_each_other(score):
    given = with_causes(score, case(zeros=0.3))
    alone = [
        score(*(each[:, i : i + 1] if position % 2 else each[i : i + 1] for position, each in enumerate(given)))
        for i in range(BATCH)
    ]
    torch.testing.assert_close(score(*given), torch.cat(alone), rtol=1e-14, atol=0)


@pytest.mark.parametrize("score", SCORES)
def test_no_copies_or_no_images_give_no_numbers(score):
    given = with_causes(score, case())
    without = [each[:0] if position % 2 else each for position, each in enumerate(given)]
    assert score(*without).isnan().tolist() == [True] * BATCH
    empty = [each[:, :0] if position % 2 else each[:0] for position, each in enumerate(given)]
    assert score(*empty).shape == (0,)


@pytest.mark.parametrize("score", SCORES)
def test_input_stays_as_it_is_and_may_want_gradients(score):
    given = [each.requires_grad_() for each in with_causes(score, case())]
    before = [each.detach().clone() for each in given]
    score(*given)
    torch.testing.assert_close([each.detach() for each in given], before, rtol=0, atol=0)


@pytest.mark.parametrize("score", SCORES)
def test_shapes_that_do_not_fit_are_refused(score):
    given = with_causes(score, case())
    with pytest.raises(ArgumentError, match="`noisy` must be maps"):
        score(given[0], given[1][0], *given[2:])
    with pytest.raises(ArgumentError, match="`noisy` must be maps"):
        score(given[0][:1], *given[1:])
    with pytest.raises(ArgumentError, match="must be float maps"):
        score(given[0].long(), given[1].long(), *given[2:])
    with pytest.raises(ArgumentError, match="`same_class` must be bool"):
        score(*given, same_class=torch.ones(COPIES, BATCH))
    with pytest.raises(ArgumentError, match="`same_class` must be bool"):
        score(*given, same_class=torch.ones(BATCH, dtype=torch.bool))


@pytest.mark.parametrize("score", WITH_FLOOR)
def test_causes_that_do_not_fit_are_refused(score):
    given = with_causes(score, case())
    for images, noisy_images in [(given[2], given[3][:2]), (given[2][:1], given[3]), (given[2], given[3][..., :1])]:
        with pytest.raises(ArgumentError, match="`noisy_.*` must be \\(n, b, ...\\)"):
            score(*given[:2], images, noisy_images)
    for floor in (0, -1.0, math.inf, "1"):
        with pytest.raises(ArgumentError, match="`floor` must be a finite number above 0"):
            score(*given, floor=floor)


@pytest.mark.parametrize("score", WITH_EPS)
def test_eps_of_0_is_refused(score):
    with pytest.raises(ArgumentError, match="`eps` must be a finite number above 0"):
        score(*with_causes(score, case()), eps=0)
