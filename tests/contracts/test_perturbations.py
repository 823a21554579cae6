"""What every perturbation promises, and how strong the published severities are."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import torch

from lightning_camrobust import perturb_images
from lightning_camrobust.members import resolve_member
from lightning_camrobust.randomness import ImageRandomness, image_keys
from tests.contracts.specimens import specimens, unfinished

PERTURBATIONS = specimens("perturb")
SEVERITIES = (1, 2, 3, 4, 5)
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
# Severity 1..5 in the scripts that made ImageNet-C and CIFAR-10-C (github.com/hendrycks/robustness).
PUBLISHED = {
    "gaussian_noise": {"imagenet": (0.08, 0.12, 0.18, 0.26, 0.38), "cifar": (0.04, 0.06, 0.08, 0.09, 0.10)},
    "shot_noise": {"imagenet": (60, 25, 12, 5, 3), "cifar": (500, 250, 100, 75, 50)},
    "impulse_noise": {"imagenet": (0.03, 0.06, 0.09, 0.17, 0.27), "cifar": (0.01, 0.02, 0.03, 0.05, 0.07)},
    "speckle_noise": {"imagenet": (0.15, 0.2, 0.35, 0.45, 0.6), "cifar": (0.06, 0.1, 0.12, 0.16, 0.2)},
}


def disturb(perturb, images, *, severity=3, seed=0):
    """Call a member with random numbers that are fresh, as each batch brings its own."""
    randomness = ImageRandomness(image_keys(images), seed, "specimen", severity)
    return perturb(images, severity=severity, randomness=randomness)


def mid_grey_images(*shape, dtype=torch.float32):
    return (0.3 + 0.4 * torch.rand(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


def random_streams():
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tolist(), rest), torch.get_rng_state().tolist()


def test_every_file_shows_examples():
    assert PERTURBATIONS
    assert unfinished("perturb") == []


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, PERTURBATIONS)).items() if count > 1] == []


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_same_keys_give_the_same_image(perturb):
    images = mid_grey_images(2, 3, 9, 7)
    torch.testing.assert_close(disturb(perturb, images), disturb(perturb, images), rtol=0, atol=0)


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_another_seed_draws_other_noise(perturb):
    images = mid_grey_images(2, 3, 32, 32)
    first, second = disturb(perturb, images, seed=0), disturb(perturb, images, seed=1)
    assert ((first != second).flatten(1).any(dim=1)).all()


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_another_image_draws_other_noise(perturb):
    images = torch.full((2, 3, 32, 32), 0.5)
    images[1, 0, 0, 0] = 0.6  # one pixel of 1024 makes another picture
    first, second = disturb(perturb, images)
    assert (first != second).sum() > 1


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_input_stays_as_it_is(perturb, severity):
    images = mid_grey_images(2, 3, 9, 7)
    before = images.clone()
    noisy = disturb(perturb, images, severity=severity)
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    assert noisy.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_shape_dtype_and_device_stay(perturb, channels, dtype, device):
    images = mid_grey_images(2, channels, 9, 7, dtype=dtype).to(device)
    noisy = disturb(perturb, images)
    assert (noisy.shape, noisy.dtype, noisy.device) == (images.shape, images.dtype, images.device)
    assert (noisy != images).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_dtype_stays_through_the_public_function(perturb, dtype):
    images = mid_grey_images(2, 3, 9, 7, dtype=dtype)
    noisy = perturb_images(images, perturb, 5)
    assert (noisy.shape, noisy.dtype) == (images.shape, dtype)
    assert noisy.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_output_lies_in_the_unit_interval(perturb, severity, dtype):
    ramp = torch.linspace(0, 1, 32, dtype=dtype).expand(3, 32, 32)
    images = torch.stack([torch.zeros_like(ramp), ramp, torch.ones_like(ramp)])
    noisy = disturb(perturb, images, severity=severity)
    assert noisy.isfinite().all()
    assert float(noisy.min()) >= 0
    assert float(noisy.max()) <= 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# Odd sizes leave a remainder behind every vector register; large ones are split over threads.
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(5, 3, 9, 7), (5, 1, 28, 28), (2, 3, 128, 128)], ids=str)
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_noise_depends_neither_on_position_nor_on_size_of_the_batch(perturb, shape):
    images = mid_grey_images(*shape)
    together = disturb(perturb, images)
    alone = torch.cat([disturb(perturb, image[None]) for image in images])
    backwards = disturb(perturb, images.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=0)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_severity_rises(perturb, size):
    images = mid_grey_images(1, 3, size, size)
    changes = [float((disturb(perturb, images, severity=each) - images).abs().mean()) for each in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert len(set(changes)) == 5


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_global_generators_stay(perturb):
    before = random_streams()
    disturb(perturb, mid_grey_images(2, 3, 9, 7))
    perturb_images(mid_grey_images(2, 3, 9, 7), perturb)
    assert random_streams() == before


@pytest.mark.parametrize("perturb", [each for each in PERTURBATIONS if hasattr(each, "levels")], ids=repr)
def test_own_levels_override_the_published_ones(perturb):
    images = mid_grey_images(2, 3, 32, 32)
    keys = image_keys(images)
    levels = (7.0, 11.0, 0.5, 0.25, 0.125)

    def noisy(own_levels, severity):
        randomness = ImageRandomness(keys, 0, "specimen", 1)  # the same stream for every strength
        return dataclasses.replace(perturb, levels=own_levels)(images, severity=severity, randomness=randomness)

    for severity, level in zip(SEVERITIES, levels, strict=True):
        torch.testing.assert_close(noisy(levels, severity), noisy((level,) * 5, 1), rtol=0, atol=0)
    assert (noisy((0.25,) * 5, 3) != noisy(None, 3)).any()


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("size", "column"), [((32, 32), "cifar"), ((64, 200), "cifar"), ((65, 65), "imagenet"), ((224, 224), "imagenet")]
)
@pytest.mark.parametrize("family", PUBLISHED)
def test_image_size_chooses_the_published_column(family, size, column, severity):
    images = mid_grey_images(1, 3, *size)
    by_size = resolve_member("perturb", family)
    by_value = dataclasses.replace(by_size, levels=PUBLISHED[family][column])
    noisy, wanted = (disturb(perturb, images, severity=severity) for perturb in (by_size, by_value))
    torch.testing.assert_close(noisy, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "column"), [(32, "imagenet"), (224, "cifar")])
@pytest.mark.parametrize("family", PUBLISHED)
def test_named_column_overrides_the_image_size(family, size, column):
    images = mid_grey_images(1, 3, size, size)
    by_size = resolve_member("perturb", family)
    by_name = dataclasses.replace(by_size, column=column)
    by_value = dataclasses.replace(by_size, levels=PUBLISHED[family][column])
    noisy, wanted = (disturb(perturb, images, severity=4) for perturb in (by_name, by_value))
    torch.testing.assert_close(noisy, wanted, rtol=0, atol=0)


# 64 pixels is the largest small image; a grey picture of one value gives as many draws as it has pixels.
COLUMNS = [(64, "cifar"), (224, "imagenet")]


def grey_under_noise(family, size, severity, grey=0.5):
    return perturb_images(torch.full((1, 3, size, size), grey), family, severity).double()


@pytest.mark.parametrize(("size", "column"), COLUMNS)
def test_gaussian_level_is_the_standard_deviation(size, column):
    noisy = grey_under_noise("gaussian_noise", size, 1)
    assert float(noisy.std()) == pytest.approx(PUBLISHED["gaussian_noise"][column][0], rel=0.03)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("severity", [1, 2])
@pytest.mark.parametrize(("size", "column"), COLUMNS)
def test_shot_level_is_the_number_of_photons(size, column, severity):
    noisy = grey_under_noise("shot_noise", size, severity)
    level = PUBLISHED["shot_noise"][column][severity - 1]
    assert float(noisy.mean()) == pytest.approx(0.5, rel=0.05)
    assert float(noisy.var()) == pytest.approx(0.5 / level, rel=0.05)
    # Counts are whole.
    torch.testing.assert_close(noisy * level, (noisy * level).round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("size", "column"), COLUMNS)
def test_impulse_level_is_the_share_of_salt_and_pepper(size, column, severity):
    noisy = grey_under_noise("impulse_noise", size, severity)
    level = PUBLISHED["impulse_noise"][column][severity - 1]
    pepper, salt = float((noisy == 0).double().mean()), float((noisy == 1).double().mean())
    error = 4 * (level / 2 / noisy.numel()) ** 0.5
    assert pepper == pytest.approx(level / 2, abs=error)
    assert salt == pytest.approx(level / 2, abs=error)
    assert float((noisy == 0.5).double().mean()) == pytest.approx(1 - pepper - salt, abs=1e-12)


@pytest.mark.parametrize("grey", [0.25, 0.5])
@pytest.mark.parametrize(("size", "column"), COLUMNS)
def test_speckle_level_is_the_standard_deviation_of_a_white_pixel(size, column, grey):
    noisy = grey_under_noise("speckle_noise", size, 1, grey)
    assert float(noisy.std()) == pytest.approx(PUBLISHED["speckle_noise"][column][0] * grey, rel=0.03)
    assert float(noisy.mean()) == pytest.approx(grey, abs=0.003)
