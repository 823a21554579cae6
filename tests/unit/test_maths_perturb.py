"""How strong a severity is where nobody says otherwise, and ends of the range that other tests do not reach."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_camrobust.content import content_keys
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.ferns import frost_picture
from lightning_camrobust.members import resolve_member
from lightning_camrobust.perturb.brightness import Brightness
from lightning_camrobust.perturb.cam_attack import CAMAttack
from lightning_camrobust.perturb.contrast import Contrast
from lightning_camrobust.perturb.defocus_blur import DefocusBlur
from lightning_camrobust.perturb.lvat import _best_that_keeps_class
from lightning_camrobust.perturb.pgd import PGD
from lightning_camrobust.perturb.pixelate import Pixelate
from lightning_camrobust.perturb.shot_noise import ShotNoise
from lightning_camrobust.perturb.zoom_blur import ZoomBlur
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.severity import resolved_level

LARGE, SMALL = torch.zeros(1, 3, 80, 70), torch.zeros(1, 3, 64, 80)
OF_255 = tuple(each / 255 for each in (1, 2, 4, 8, 16))
# Written off the docs and the released scripts of ImageNet-C and CIFAR-C: (large images, small images).
LEVELS = {
    "fgsm": (OF_255, OF_255),
    "cam_attack": (OF_255, OF_255),
    "pgd": (OF_255, OF_255),
    "vat": ((0.25, 0.5, 1, 2, 4),) * 2,
    "lvat": ((0.25, 0.5, 1, 2, 4),) * 2,
    "gradient_noise": ((0.1, 0.25, 0.5, 1, 2),) * 2,
    "uniform_noise": ((0.05, 0.1, 0.2, 0.3, 0.4),) * 2,
    "gaussian_noise": ((0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": ((60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse_noise": ((0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": ((0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": ((1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1)),
    "contrast": ((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "jpeg": ((25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
    "occlusion": ((0.05, 0.1, 0.2, 0.3, 0.4),) * 2,
    "defocus_blur": (
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": (
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": (((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    # The scripts give an end that `numpy.arange` leaves out, and a step.
    "zoom_blur": (
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "snow": (
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    # Shares of an image's size, which was 244 and 32.
    "elastic": (
        [
            (244 * a, 244 * b, 244 * c)
            for a, b, c in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ],
        [
            (32 * a, 32 * b, 32 * c)
            for a, b, c in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
        ],
    ),
}


@pytest.mark.parametrize("name", LEVELS)
def test_a_severity_is_as_strong_as_documented(name):
    member = resolve_member("perturb", name)
    for images, levels in zip((LARGE, SMALL), LEVELS[name], strict=True):
        found = [resolved_level(member, severity, images=images) for severity in range(1, 6)]
        np.testing.assert_allclose(found, levels, rtol=1e-9)


def test_pgd_in_l2_has_levels_of_its_own():
    levels = [resolved_level(PGD(norm="l2"), severity, images=LARGE) for severity in range(1, 6)]
    assert levels == [0.25, 0.5, 1.0, 2.0, 4.0]


class Flat:
    """A network as an attack sees it: it keeps the class, maps the first channel, and notes what it is shown."""

    explained = classes = torch.tensor([0, 0])

    def __init__(self):
        self.shown = []

    def maps(self, pixels, classes):
        return pixels[:, 0].square()

    def logits(self, pixels):
        return pixels.flatten(1)[:, :2] * torch.tensor([0.0, -1.0])

    def logits_and_maps(self, pixels, classes):
        self.shown.append(pixels.detach().clone())
        return self.logits(pixels), self.maps(pixels, classes)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_map_attack_shows_the_network_nothing_but_pictures(steps):
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).round()
    network = Flat()
    randomness = ImageRandomness(image_keys(images), 0, "cam_attack", 1)
    CAMAttack(steps=steps, levels=(0.5,) * 5)(images, severity=1, randomness=randomness, network=network)
    assert len(network.shown) == steps + 1
    for pixels in network.shown:
        assert (pixels - images).abs().max() > 0
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@pytest.mark.parametrize("level", [0.5, 3.0])
def test_contrast_of_any_level_stays_a_picture(level):
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = Contrast(levels=(level,) * 5)(images, severity=1, randomness=None)
    mean = images.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(found, (mean + level * (images - mean)).clamp(0, 1))


@pytest.mark.parametrize("level", [3, 60, 500, 2000])
def test_where_no_photon_comes_none_is_counted(level):
    black = torch.zeros(2, 3, 40, 40)
    randomness = ImageRandomness(image_keys(black), 0, "shot_noise", 1)
    assert not ShotNoise(levels=(level,) * 5)(black, severity=1, randomness=randomness).any()


@pytest.mark.parametrize("level", [(0, 0.5), (3, 0), (torch.inf, 0.5)])
def test_a_disk_of_no_size_is_refused(level):
    with pytest.raises(ArgumentError, match="defocus blur"):
        DefocusBlur(levels=(level,) * 5)(torch.rand(1, 3, 8, 8), severity=1, randomness=None)


@pytest.mark.parametrize("level", [0.95, 0.9, 0.85, 0.75, 0.65, 0.6, 0.5, 0.4, 0.3, 0.25])
def test_boxes_of_every_length_are_pillows(level):
    for length in range(2, 70):
        row = np.random.default_rng(length).random((1, length), dtype=np.float32)
        small = Image.fromarray(row).resize((max(1, int(length * level)), 1), Image.Resampling.BOX)
        wanted = np.asarray(small.resize((length, 1), Image.Resampling.BOX))
        found = Pixelate(levels=(level,) * 5)(torch.tensor(row)[None, None], severity=1, randomness=None)
        np.testing.assert_allclose(found[0, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_uniform_noise_spans_its_level_on_both_sides(severity):
    images = torch.full((2, 3, 60, 60), 0.5)
    randomness = ImageRandomness(image_keys(images), 0, "uniform_noise", severity)
    drawn = ImageRandomness(image_keys(images), 0, "uniform_noise", severity).uniform((3, 60, 60))
    level = LEVELS["uniform_noise"][0][severity - 1]
    noisy = resolve_member("perturb", "uniform_noise")(images, severity=severity, randomness=randomness)
    torch.testing.assert_close(noisy, 0.5 + level * (2 * drawn - 1))
    assert (noisy - 0.5).abs().max() < level * (1 + 1e-6)


@pytest.mark.parametrize("level", [(1, 0.01), (1.2, 0), (torch.inf, 0.1), (1.2, torch.inf), (0.9, 0.01)])
def test_a_zoom_that_goes_nowhere_is_refused(level):
    with pytest.raises(ArgumentError, match="zoom blur"):
        ZoomBlur(levels=(level,) * 5)(torch.rand(1, 3, 8, 8), severity=1, randomness=None)


def test_content_is_keyed_by_its_bytes():
    values = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 100
    as_bytes = np.frombuffer(values.numpy().tobytes(), dtype=np.uint8).reshape(3, 2, 5, 20)
    assert torch.equal(content_keys(values), image_keys(torch.tensor(as_bytes / 255)))
    assert torch.equal(content_keys(values.requires_grad_()), content_keys(values.detach()))


def test_the_frost_of_a_picture_stays_the_same_in_later_versions():
    # Nobody publishes pictures of ice, so ours define what `frost` means: a thumbnail, written down once.
    images = torch.linspace(0, 1, 48).reshape(1, 3, 4, 4)
    picture = frost_picture(ImageRandomness(image_keys(images), 0, "frost", 1), size=(48, 64))
    thumbnail = picture.reshape(3, 3, 16, 4, 16).mean(dim=(2, 4))
    green = [[0.6776, 0.4583, 0.5501, 0.8102], [0.7028, 0.4665, 0.2907, 0.5024], [0.4279, 0.4564, 0.3013, 0.5201]]
    torch.testing.assert_close(thumbnail[1], torch.tensor(green), rtol=0, atol=2e-4)
    torch.testing.assert_close(thumbnail.mean(dim=(1, 2)), torch.tensor([0.4588, 0.5137, 0.5529]), rtol=0, atol=2e-4)
    torch.testing.assert_close(picture.std(dim=(0, 2, 3)), torch.tensor([0.2553, 0.2384, 0.2268]), rtol=0, atol=2e-4)


def test_a_latent_shift_that_kills_the_map_has_not_moved_it():
    reference, other = torch.rand(2, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    black = torch.zeros_like(reference)
    for candidates in ([black, other], [other, black]):
        assert torch.equal(_best_that_keeps_class(reference, candidates, Flat()), other)
    assert torch.equal(_best_that_keeps_class(reference, [black], Flat()), reference)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_taken_away_ends_at_black(channels):
    images = torch.linspace(0, 1, 25 * channels).reshape(1, channels, 5, 5)
    darker = Brightness(levels=(-0.3,) * 5)(images, severity=1, randomness=None)
    strongest = images.amax(dim=1, keepdim=True)
    ratios = torch.where(strongest > 0, images / strongest, 1)
    torch.testing.assert_close(darker, ratios * (strongest - 0.3).clamp(0, 1))
