"""What each baseline puts in the place of pixels, against slow versions and values by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from lightning_camrobust.baseline.blur import Blur
from lightning_camrobust.baseline.custom import Custom
from lightning_camrobust.baseline.dataset_mean import DatasetMean
from lightning_camrobust.baseline.gaussian_noise import GreyNoise
from lightning_camrobust.baseline.grey import Grey
from lightning_camrobust.baseline.image_mean import ImageMean
from lightning_camrobust.baseline.noisy_linear import NoisyLinear
from lightning_camrobust.baseline.shuffle import Shuffle
from lightning_camrobust.baseline.uniform_noise import UniformNoise
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.randomness import ImageRandomness, image_keys

DIRECT, DIAGONAL = 1 / 6, 1 / 12


def pictures(*shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def fill(baseline, pixels, removed=None, *, seed=0):
    randomness = ImageRandomness(image_keys(pixels), seed, "test", 1)
    removed = torch.ones_like(pixels[:, :1], dtype=torch.bool) if removed is None else removed
    return baseline(pixels, removed=removed, randomness=randomness)


@pytest.mark.parametrize(("name", "value"), [("black", 0.0), ("white", 1.0), ("grey", 0.5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_fills(name, value, channels):
    filled = fill(resolve_member("baseline", name), pictures(2, channels, 4, 5))
    assert (filled == value).all()


def test_dataset_mean_is_imagenets_unless_given():
    filled = fill(resolve_member("baseline", "dataset_mean"), pictures(2, 3, 4, 5))
    assert filled.flatten(2).unique(dim=2)[0].tolist() == [[0.485], [0.456], [0.406]]
    assert fill(DatasetMean((0.1, 0.9)), pictures(1, 2, 1, 1)).flatten().tolist() == [0.1, 0.9]


def test_colour_of_another_channel_count_is_averaged():
    grey = fill(DatasetMean(), pictures(2, 1, 4, 5))
    assert grey.unique().tolist() == [pytest.approx((0.485 + 0.456 + 0.406) / 3, abs=1e-12)]
    assert fill(Custom((1.0, 0.0, 0.5)), pictures(1, 2, 2, 2)).unique().tolist() == [0.5]


def test_image_mean_is_that_of_each_image_and_channel():
    pixels = pictures(3, 2, 4, 5)
    filled = fill(ImageMean(), pixels).numpy()
    for image in range(3):
        for channel in range(2):
            wanted = sum(pixels[image, channel].flatten().tolist()) / 20
            np.testing.assert_allclose(filled[image, channel], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 10.0])
def test_blur_equals_scipy(sigma):
    pixels = pictures(2, 3, 19, 13)
    wanted = ndimage.gaussian_filter(pixels.numpy(), sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(fill(Blur(sigma), pixels).numpy(), wanted, rtol=0, atol=1e-7)


def test_uniform_noise_is_even_and_channels_differ():
    filled = fill(UniformNoise(), pictures(1, 3, 64, 64))
    assert float(filled.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(filled.var()) == pytest.approx(1 / 12, rel=0.05)
    assert (filled[0, 0] != filled[0, 1]).all()


def test_grey_noise_has_its_sigma_around_middle_grey():
    filled = fill(GreyNoise(sigma=0.1), pictures(1, 3, 64, 64))
    assert float(filled.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(filled.std()) == pytest.approx(0.1, rel=0.03)
    assert (fill(GreyNoise(sigma=100.0), pictures(1, 3, 8, 8)).unique().numel()) <= 4  # clipped to black and white


def test_shuffle_moves_whole_pixels_and_loses_none():
    pixels = pictures(2, 3, 8, 9)
    filled = fill(Shuffle(), pixels)
    for before, after in zip(pixels, filled, strict=True):
        colours = [sorted(map(tuple, image.flatten(1).T.tolist())) for image in (before, after)]
        assert colours[0] == colours[1]
        assert (before != after).float().mean() > 0.9
    places = [
        (pixels[i].flatten(1)[:, None, :] == filled[i].flatten(1)[:, :, None])[0].float().argmax(1) for i in (0, 1)
    ]
    assert (places[0] != places[1]).any()  # each image has its own order


def test_shuffle_places_every_pixel_everywhere_equally_often():
    landed = torch.zeros(6)
    picture = torch.arange(6).view(1, 1, 2, 3) / 8
    for seed in range(600):
        landed += (fill(Shuffle(), picture, seed=seed).flatten() == picture.flatten()[0]).float()
    assert ((landed - 100).abs() < 4 * (600 * 5 / 36) ** 0.5).all()


def dense_imputation(image, mask):
    """Solve for the removed pixels with one dense matrix, written neighbour by neighbour."""
    channels, height, width = image.shape
    unknown = [(y, x) for y in range(height) for x in range(width) if mask[y, x]]
    number = {place: index for index, place in enumerate(unknown)}
    matrix, known = np.eye(len(unknown)), np.zeros((len(unknown), channels))
    for (y, x), row in number.items():
        around = [
            (y + dy, x + dx, DIAGONAL if dy and dx else DIRECT)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width
        ]
        total = sum(weight for *_, weight in around)
        for ny, nx, weight in around:
            if mask[ny, nx]:
                matrix[row, number[ny, nx]] -= weight / total
            else:
                known[row] += weight / total * image[:, ny, nx]
    filled = image.copy()
    for place, values in zip(unknown, np.linalg.solve(matrix, known), strict=True):
        filled[:, place[0], place[1]] = values
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("size", [(9, 7), (1, 6), (5, 2), (12, 12)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_noisy_linear_equals_a_dense_solution(channels, size, share):
    pixels = pictures(3, channels, *size)
    removed = pictures(3, 1, *size, seed=1) < share
    removed[:, 0, -1, -1] = False  # something has to be left
    filled = fill(NoisyLinear(sigma=0.0), pixels, removed).numpy()
    for found, image, mask in zip(filled, pixels.numpy(), removed.numpy(), strict=True):
        np.testing.assert_allclose(found, dense_imputation(image, mask[0]), rtol=0, atol=1e-10)


def test_noisy_linear_by_hand():
    picture = torch.tensor([[[[0.0, 0.6, 0.0], [1.0, 0.9, 0.0], [0.12, 0.0, 0.0]]]]).double()
    centre = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    centre[..., 1, 1] = True
    assert float(fill(NoisyLinear(0.0), picture, centre)[0, 0, 1, 1]) == pytest.approx(0.6 / 6 + 1 / 6 + 0.12 / 12)
    corner = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    corner[..., 0, 0] = True  # neighbours .6 and 1 at 1/6, .9 at 1/12, out of 5/12
    assert float(fill(NoisyLinear(0.0), picture, corner)[0, 0, 0, 0]) == pytest.approx(0.4 * 1.6 + 0.2 * 0.9)


def test_noise_of_noisy_linear_is_on_removed_pixels_only():
    pixels = torch.full((1, 3, 64, 64), 0.3, dtype=torch.float64)
    removed = pictures(1, 1, 64, 64) < 0.5
    change = fill(NoisyLinear(sigma=0.02), pixels, removed) - pixels
    gone = removed.expand_as(change)
    assert (change[~gone] == 0).all()
    assert float(change[gone].std()) == pytest.approx(0.02, rel=0.05)
    assert float(change[gone].mean()) == pytest.approx(0, abs=0.001)


def test_noisy_linear_without_a_pixel_left_is_grey():
    assert (fill(NoisyLinear(0.0), pictures(2, 3, 4, 4)) == 0.5).all()


def swapped(pixels):
    return 1 - pixels


def outside(pixels):
    return 3 * pixels - 1


def in_place(pixels):
    return pixels.zero_()


def test_custom_pictures_and_functions():
    picture, pixels = pictures(3, 4, 5, seed=3), pictures(2, 3, 4, 5)
    assert torch.equal(fill(Custom(picture), pixels), torch.stack([picture, picture]))
    assert torch.equal(fill(Custom(swapped), pixels), 1 - pixels)
    assert torch.equal(fill(Custom(outside), pixels), (3 * pixels - 1).clamp(0, 1))
    before = pixels.clone()
    fill(Custom(in_place), pixels)
    assert torch.equal(pixels, before)


def test_custom_members_are_equal_when_their_values_are():
    picture = pictures(3, 4, 5)
    assert Custom(picture) == Custom(picture.clone())
    assert hash(Custom(picture)) == hash(Custom(picture.clone()))
    assert Custom(picture) != Custom(1 - picture)
    assert repr(Custom(picture)) != repr(Custom(1 - picture))
    assert len(repr(Custom(picture))) < 100
    assert repr(Custom(swapped)) == f"Custom(fill={__name__}.swapped)"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grey(level=1.5), r"`level` must lie in \[0, 1\]"),
        (lambda: DatasetMean(colour=(124.0, 116.0, 104.0)), "`colour` must be a tuple of values"),
        (lambda: DatasetMean(colour=()), "`colour` must be a tuple of values"),
        (lambda: Blur(sigma=0.0), "`sigma` must be finite and above 0"),
        (lambda: GreyNoise(sigma=float("nan")), "`sigma` must be finite and above 0"),
        (lambda: NoisyLinear(sigma=-1.0), "`sigma` must be finite and at least 0"),
        (lambda: Custom(torch.rand(4, 5)), "a colour .* or a picture"),
        (lambda: Custom((0.0, 2.0)), "values in .0, 1."),
        (lambda: Custom((0.0, float("nan"))), "values in .0, 1."),
        (lambda: Custom("red"), "got 'red'"),
        (lambda: fill(Custom(torch.rand(3, 4, 4)), pictures(1, 3, 4, 5)), "but the images are"),
        (lambda: fill(Custom(lambda pixels: pixels[:, :1]), pictures(1, 3, 4, 5)), "must return finite pixels"),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_unknown_name_shows_the_nearest():
    with pytest.raises(UnknownNameError, match="'grey'"):
        resolve_member("baseline", "gray")
