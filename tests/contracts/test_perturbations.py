"""What every perturbation promises, and how strong the published severities are."""

import dataclasses
import functools
import random
import sys
from collections import Counter

import numpy as np
import pytest
import skimage
import torch
from torch import nn

from lightning_camrobust import perturb_images
from lightning_camrobust.members import resolve_member
from lightning_camrobust.network import network_in_pixels
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.severity import SeverityTable, resolved_level
from lightning_camrobust.trace import trace
from tests.contracts.specimens import specimens, unfinished

PERTURBATIONS = specimens("perturb")
# Some are the same in every draw, and say so.
RANDOM = [each for each in PERTURBATIONS if getattr(each, "random", True)]
OF_IMAGES = [each for each in PERTURBATIONS if not hasattr(each, "disturb_trace")]
ATTACKS = [each for each in PERTURBATIONS if getattr(each, "needs_network", False)]
PLAIN = [each for each in OF_IMAGES if each not in ATTACKS]
GEOMETRIC = [each for each in PERTURBATIONS if hasattr(each, "flow")]
# Steps (from this severity to the next) at which the published parameters themselves do not get stronger.
NOT_STRONGER = {
    ("glass_blur", "imagenet"): {3}, ("glass_blur", "cifar"): {1, 2, 4},
    ("elastic", "imagenet"): {2}, ("elastic", "cifar"): {1, 2, 3, 4},
    ("frost", "imagenet"): {3}, ("frost", "cifar"): {2, 3, 4},  # the weights of image and ice add up to less
    ("motion_blur", "cifar"): {3},  # the same width, a longer kernel
    ("saturate", "imagenet"): {2}, ("saturate", "cifar"): {2},  # from less colour to more of it
    ("snow", "imagenet"): {2},  # other flakes
    ("spatter", "cifar"): {3},  # from water to mud
}  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
# Severity 1..5 in the scripts that made ImageNet-C and CIFAR-10-C (github.com/hendrycks/robustness).
PUBLISHED = {
    "gaussian_noise": {"imagenet": (0.08, 0.12, 0.18, 0.26, 0.38), "cifar": (0.04, 0.06, 0.08, 0.09, 0.10)},
    "shot_noise": {"imagenet": (60, 25, 12, 5, 3), "cifar": (500, 250, 100, 75, 50)},
    "impulse_noise": {"imagenet": (0.03, 0.06, 0.09, 0.17, 0.27), "cifar": (0.01, 0.02, 0.03, 0.05, 0.07)},
    "speckle_noise": {"imagenet": (0.15, 0.2, 0.35, 0.45, 0.6), "cifar": (0.06, 0.1, 0.12, 0.16, 0.2)},
}


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
@pytest.mark.parametrize("size", [16, 80])
def test_a_severity_is_resolved_to_the_value_that_is_used(perturb, size, monkeypatch):
    images, value = torch.rand(1, 3, size, size), SeverityTable.value
    used = []

    def noted(table, severity, **settings):
        used.append(value(table, severity, **settings))
        return used[-1]

    for severity in (1, 5):
        used.clear()
        with monkeypatch.context() as patched:
            patched.setattr(SeverityTable, "value", noted)
            disturb(perturb, images, severity=severity)
        resolved = resolved_level(perturb, severity, images=images)
        # One that is made from a transform has no values.
        assert resolved == (used[0] if used else None)


def test_what_has_no_levels_has_no_value():
    assert resolved_level(lambda images, **settings: images, 3, images=torch.rand(1, 3, 8, 8)) is None


def disturb(perturb, images, *, severity=3, seed=0):
    """Call a member with random numbers that are fresh, as each batch brings its own.

    What is disturbed is the image, or the gradient of a trace, brought into the range of an image.
    """
    randomness = ImageRandomness(image_keys(images), seed, "specimen", severity)
    if hasattr(perturb, "disturb_trace"):
        pass_ = pass_of(images)
        noisy = perturb.disturb_trace(pass_, severity=severity, randomness=randomness).gradient
        return images + (noisy - pass_.gradient)
    if getattr(perturb, "needs_network", False):
        network = network_for(images)
        classes = network(images).argmax(dim=1)
        space = PixelSpace((0.0,), (1.0,))
        seen = network_in_pixels(network, images, target_layer=network[0], space=space, classes=classes)
        return perturb(images, severity=severity, randomness=randomness, network=seen)
    return perturb(images, severity=severity, randomness=randomness)


def network_for(images, width=6):
    """A small network without flat places, whose target layer is as large as the image."""
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(images.shape[1], width, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(16 * width, 8), nn.Tanh(), nn.Linear(8, 4),
    )  # fmt: skip
    return net.eval().to(images.device, images.dtype)


def pass_of(images):
    net = network_for(images, width=images.shape[1])
    return trace(net, images, target_layer=net[0])


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


@pytest.mark.parametrize("perturb", [each for each in RANDOM if each not in ATTACKS], ids=repr)
def test_another_seed_draws_other_noise(perturb):
    images = mid_grey_images(2, 3, 32, 32)
    first, second = disturb(perturb, images, seed=0), disturb(perturb, images, seed=1)
    assert ((first != second).flatten(1).any(dim=1)).all()


@pytest.mark.parametrize("perturb", [each for each in RANDOM if each not in ATTACKS], ids=repr)
def test_another_image_draws_other_noise(perturb):
    images = mid_grey_images(1, 3, 32, 32).repeat(2, 1, 1, 1)
    images[1, 0, 0, 0] += 0.1  # one pixel of 1024 makes another picture
    first, second = disturb(perturb, images)
    assert (first != second).sum() > 150


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
    # Grey has no colours to saturate.
    if not (type(perturb).__name__ == "Saturate" and channels == 1):
        assert (noisy != images).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("perturb", PLAIN, ids=repr)
def test_dtype_stays_through_the_public_function(perturb, dtype):
    images = mid_grey_images(2, 3, 9, 7, dtype=dtype)
    noisy = perturb_images(images, perturb, 5)
    assert (noisy.shape, noisy.dtype) == (images.shape, dtype)
    assert noisy.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("perturb", OF_IMAGES, ids=repr)
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
@pytest.mark.parametrize("perturb", PLAIN, ids=repr)
def test_noise_depends_neither_on_position_nor_on_size_of_the_batch(perturb, shape):
    images = mid_grey_images(*shape)
    together = disturb(perturb, images)
    alone = torch.cat([disturb(perturb, image[None]) for image in images])
    backwards = disturb(perturb, images.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=0)


NETWORK_BOUND = [each for each in PERTURBATIONS if each not in PLAIN]


@pytest.mark.parametrize("shape", [(3, 3, 9, 7), (3, 1, 28, 28)], ids=str)
@pytest.mark.parametrize("perturb", NETWORK_BOUND, ids=repr)
def test_an_attack_depends_neither_on_position_nor_on_size_of_the_batch(perturb, shape):
    images = mid_grey_images(*shape, dtype=torch.float64)
    together = disturb(perturb, images)
    alone = torch.cat([disturb(perturb, image[None]) for image in images])
    backwards = disturb(perturb, images.flip(0)).flip(0)
    for other in (alone, backwards):
        # A network's own arithmetic depends on the batch in the last bits, which may turn the sign of a zero gradient.
        assert float(((together - other).abs() > 1e-7).double().mean()) < 0.01


@functools.lru_cache(maxsize=2)
def photographs(size):
    """Two of scikit-image's photographs: noise pictures have no edges to blur and no colours to wash out."""
    pictures = [skimage.data.astronaut()[:400, 50:450], skimage.data.chelsea()[:, 75:375]]
    small = [skimage.transform.resize(each, (size, size), anti_aliasing=True) for each in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float().contiguous()


@pytest.mark.parametrize(("size", "column"), [(32, "cifar"), (224, "imagenet")])
@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_severity_rises(perturb, size, column):
    if getattr(perturb, "column", "auto") not in ("auto", column):
        return
    images = photographs(size if perturb in PLAIN else 32)
    family = type(perturb).__module__.rpartition(".")[2]
    changes = [mean_change(perturb, images, severity=each) for each in SEVERITIES]
    assert min(changes) > 0
    weaker = {severity for severity in (1, 2, 3, 4) if changes[severity] <= changes[severity - 1]}
    assert weaker <= NOT_STRONGER.get((family, column), set())


def mean_change(perturb, images, *, severity):
    # Angles and places differ from draw to draw.
    seeds = range(6 if perturb in RANDOM and perturb in PLAIN else 1)
    return np.mean(
        [float((disturb(perturb, images, severity=severity, seed=each) - images).abs().mean()) for each in seeds]
    )


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("perturb", GEOMETRIC, ids=repr)
def test_flow_tells_where_pixels_come_from(perturb, size):
    images, errors = photographs(size), []
    for seed in range(4):
        noisy = disturb(perturb, images, seed=seed)
        randomness = ImageRandomness(image_keys(images), seed, "specimen", 3)
        flow = perturb.flow(images, severity=3, randomness=randomness)
        assert (flow.shape, flow.dtype) == ((2, size, size, 2), torch.float32)
        moved = nn.functional.grid_sample(images, flow, padding_mode="border", align_corners=False)
        errors.append([float((each - noisy).abs().mean()) for each in (moved, images)])
    warped, still = np.mean(errors, axis=0)
    assert perturb.geometric
    assert warped < 0.95 * still


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("perturb", PLAIN, ids=repr)
def test_torchs_default_dtype_has_no_say(perturb, default):
    images = photographs(32)
    wanted = perturb_images(images, perturb, 5)
    torch.set_default_dtype(default)
    try:
        noisy = perturb_images(images, perturb, 5)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(noisy, wanted, rtol=0, atol=0)


def test_there_are_members_of_each_kind():
    assert min(map(len, (RANDOM, ATTACKS, PLAIN, GEOMETRIC))) > 3
    assert len(PERTURBATIONS) > len(OF_IMAGES) > len(PLAIN)


@pytest.mark.parametrize("perturb", PERTURBATIONS, ids=repr)
def test_global_generators_stay(perturb):
    images = mid_grey_images(2, 3, 9, 7)
    network = network_for(images)
    before = random_streams()
    perturb_images(images, perturb, model=network, target_layer=network[0])
    assert random_streams() == before


@pytest.mark.parametrize("perturb", [each for each in PERTURBATIONS if hasattr(each, "levels")], ids=repr)
def test_own_levels_override_the_published_ones(perturb):
    images, levels = photographs(32), own_levels_for(perturb)
    for severity, level in zip(SEVERITIES, levels, strict=True):
        # The streams are those of the severity, so both are asked for the same one.
        own, alone = (dataclasses.replace(perturb, levels=each) for each in (levels, (level,) * 5))
        noisy, wanted = (disturb(each, images, severity=severity) for each in (own, alone))
        torch.testing.assert_close(noisy, wanted, rtol=0, atol=0)
    strongest = dataclasses.replace(perturb, levels=(levels[0],) * 5)
    assert (disturb(strongest, images, severity=1) != disturb(perturb, images, severity=1)).any()


def own_levels_for(perturb):
    """Published values of large images, backwards: whatever they are made of, they are valid."""
    module = sys.modules[type(perturb).__module__]
    table = getattr(module, "_TABLE", None)
    published = table.imagenet if table is not None else module._LEVELS
    published = published[perturb.norm] if isinstance(published, dict) else published
    if type(perturb).__name__ == "Elastic":
        # Its levels are in pixels and not in shares.
        return tuple((share * 32, sigma * 32 + 1, move * 32) for share, sigma, move in reversed(table.cifar))
    return tuple(reversed(published))


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
