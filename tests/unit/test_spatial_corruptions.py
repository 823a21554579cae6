"""Blurs and the elastic transform, each against a slow reading of its published formula fed with the same draws."""

import dataclasses
import math
import pickle
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import grid_sample

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import (
    fold_into,
    gaussian_filter,
    motion_filter,
    pad_with_border,
    sampling_grid,
)
from lightning_camrobust.members import resolve_member
from lightning_camrobust.perturb.defocus_blur import DefocusBlur, _disk
from lightning_camrobust.perturb.elastic import Elastic
from lightning_camrobust.perturb.gaussian_blur import GaussianBlur
from lightning_camrobust.perturb.glass_blur import GlassBlur
from lightning_camrobust.perturb.motion_blur import MotionBlur
from lightning_camrobust.perturb.zoom_blur import ZoomBlur
from lightning_camrobust.randomness import ImageRandomness, image_keys
from tests.unit.test_host_waits import Waits

SEVERITIES = (1, 2, 3, 4, 5)
COLUMNS = ("imagenet", "cifar")
BORDERS = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}  # our names, and those of numpy.pad
FAMILIES = ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic")
MOVING = ("glass_blur", "motion_blur", "zoom_blur", "elastic")

# Read off the scripts make_imagenet_c.py and make_cifar_c.py in github.com/hendrycks/robustness.
GAUSSIAN = {"imagenet": (1, 2, 3, 4, 6), "cifar": (0.4, 0.6, 0.7, 0.8, 1)}
DEFOCUS = {
    "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
}
GLASS = {
    "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
}
MOTION = {
    "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
}
ZOOM = {
    "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
}
ELASTIC = {
    "imagenet": (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    ),
    "cifar": (
        (0, 0, 32 * 0.08),
        (32 * 0.05, 32 * 0.2, 32 * 0.07),
        (32 * 0.08, 32 * 0.06, 32 * 0.06),
        (32 * 0.1, 32 * 0.04, 32 * 0.05),
        (32 * 0.1, 32 * 0.03, 32 * 0.03),
    ),
}
every_level = pytest.mark.parametrize(("column", "severity"), [(c, s) for c in COLUMNS for s in SEVERITIES])


@lru_cache
def photos(size):
    """Return three photographs that scikit-image brings along, ``(3, 3, size, size)``."""
    from skimage import data, transform

    shots = (data.astronaut(), data.chelsea(), data.coffee())
    small = [transform.resize(each, (size, size), anti_aliasing=True) for each in shots]
    return torch.from_numpy(np.stack(small)).float().permute(0, 3, 1, 2).contiguous()


def colours(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def streams(images, severity, seed=0):
    return ImageRandomness(image_keys(images), seed, "specimen", severity)


def as_array(image):
    """Return an image ``(c, H, W)`` the way numpy libraries like it, ``(H, W, c)`` float64."""
    return image.double().permute(1, 2, 0).numpy()


def assert_alike(found, wanted, atol):
    """Compare images ``(b, c, H, W)`` with a list of arrays ``(H, W, c)``."""
    wanted = np.clip(np.stack(wanted), 0, 1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=0, atol=atol)


# Borders and filters


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("border", BORDERS)
def test_borders_are_those_of_numpy_however_far_out(border, length):
    row = np.arange(length)
    wanted = np.pad(row, 20, mode=BORDERS[border])
    padded = pad_with_border(torch.from_numpy(row), 20, border, dim=0)
    np.testing.assert_array_equal(padded.numpy(), wanted)


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("border", BORDERS)
def test_places_between_pixels_are_folded_as_scipy_interpolates(border, length):
    row = colours(length).double().numpy()
    places = np.linspace(-3.3 * length - 5, 4.4 * length + 5, 997)
    wanted = ndimage.map_coordinates(row, [places], order=1, mode=border)
    folded = fold_into(torch.from_numpy(places), length, border).numpy()
    np.testing.assert_allclose(np.interp(folded, np.arange(length), row), wanted, rtol=0, atol=1e-12)


def test_unknown_border_is_refused():
    with pytest.raises(ArgumentError, match="'wrap'"):
        fold_into(torch.arange(3), 3, "wrap")


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (1, 1, 40, 31), (1, 2, 1, 5)], ids=str)
@pytest.mark.parametrize(("sigma", "truncate"), [(0, 4), (0.05, 4), (0.4, 4), (1.5, 3), (6, 4), (30, 3)])
@pytest.mark.parametrize("border", BORDERS)
def test_gaussian_filter_equals_scipy(border, sigma, truncate, shape):
    images = colours(*shape).double()
    found = gaussian_filter(images, sigma=sigma, truncate=truncate, border=border)
    wanted = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode=border, truncate=truncate)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-12)
    assert found.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_impossible_sigma_is_refused(bad):
    images = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ArgumentError, match="`sigma`"):
        gaussian_filter(images, sigma=bad)
    for settings in ({"radius": 3, "sigma": bad}, {"radius": bad, "sigma": 1.0}, {"radius": 3, "sigma": 0.0}):
        with pytest.raises(ArgumentError, match="above 0"):
            motion_filter(images, angles=torch.zeros(1), **settings)
    with pytest.raises(ArgumentError, match="above 0"):
        DefocusBlur(levels=((bad, 1.0),) * 5)(images, severity=1, randomness=streams(images, 1))


def test_wide_filters_keep_their_precision_under_autocast():
    images = colours(1, 1, 9, 7)
    wanted = gaussian_filter(images, sigma=20.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gaussian_filter(images, sigma=20.0), wanted, rtol=0, atol=0)


def test_grid_of_own_places_changes_nothing():
    images = colours(2, 3, 5, 8)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(8), indexing="ij")
    grid = sampling_grid(rows.expand(2, 5, 8), columns.expand(2, 5, 8))
    torch.testing.assert_close(grid_sample(images, grid, align_corners=False), images, rtol=0, atol=1e-5)


# Members against their published formulas


@every_level
def test_gaussian_blur_equals_skimage(column, severity):
    from skimage.filters import gaussian

    images = colours(2, 3, 40, 31)
    found = GaussianBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    sigma = GAUSSIAN[column][severity - 1]
    assert_alike(found, [gaussian(as_array(each), sigma=sigma, channel_axis=-1) for each in images], atol=1e-6)


def slow_disk(radius, softness):
    """Build the kernel of the scripts, with scipy in OpenCV's place."""
    axis = np.arange(-8, 9) if radius <= 8 else np.arange(-radius, radius + 1)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    disk = np.array([[float(x * x + y * y <= radius * radius) for x in axis] for y in axis])
    disk /= disk.sum()
    bell = np.exp(-(taps**2) / (2 * softness**2))
    bell /= bell.sum()
    return ndimage.correlate1d(ndimage.correlate1d(disk, bell, 0, mode="mirror"), bell, 1, mode="mirror")


@every_level
def test_defocus_blur_equals_a_convolution_with_the_published_disk(column, severity):
    images = colours(2, 3, 40, 31)
    found = DefocusBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    kernel = slow_disk(*DEFOCUS[column][severity - 1])[..., None]
    assert_alike(found, [ndimage.correlate(as_array(each), kernel, mode="mirror") for each in images], atol=1e-6)


@every_level
def test_defocus_blur_equals_opencv(column, severity):
    cv2 = pytest.importorskip("cv2")
    radius, softness = DEFOCUS[column][severity - 1]
    axis, taps = (np.arange(-8, 9), 3) if radius <= 8 else (np.arange(-radius, radius + 1), 5)
    disk = (axis**2 + axis[:, None] ** 2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=(taps, taps), sigmaX=softness)
    images = photos(32)
    found = DefocusBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    assert_alike(found, [cv2.filter2D(as_array(each), -1, kernel) for each in images], atol=2e-6)


def test_a_disk_that_touches_its_array_is_brighter_than_published_intent():
    sums = [np.sum(_disk(*level)) for level in DEFOCUS["imagenet"]]
    assert sums == pytest.approx([1, 1, 1, 1.01298, 1.01079], abs=1e-5)


def published_swaps(values, shift, draws):
    """Visit pixels in the order of the scripts, and swap with their very statement; ``draws`` are (rounds, 2, H, W)."""
    height, width = values.shape[:2]
    for right, down in draws:
        for h in range(height - shift, shift, -1):
            for w in range(width - shift, shift, -1):
                other = h + down[h, w], w + right[h, w]
                values[h, w], values[other] = values[other], values[h, w]
    return values


@every_level
def test_glass_blur_equals_the_published_loops(column, severity):
    sigma, shift, rounds = GLASS[column][severity - 1]
    images = photos(32)[:, :, :29]
    found = GlassBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    uniform = streams(images, severity).uniform((rounds, 2, 29 * 32)).double().numpy()
    draws = np.floor(uniform * 2 * shift).astype(int) - shift
    assert (draws.min(), draws.max()) == (-shift, shift - 1)  # the range of numpy's randint(-shift, shift)
    wanted = []
    for image, drawn in zip(images, draws.reshape(3, rounds, 2, 29, 32), strict=True):
        blurred = ndimage.gaussian_filter(as_array(image), (sigma, sigma, 0), mode="nearest")
        moved = published_swaps(blurred, shift, drawn)
        wanted.append(ndimage.gaussian_filter(moved, (sigma, sigma, 0), mode="nearest"))
    assert_alike(found, wanted, atol=1e-6)


def test_the_published_swap_copies():
    values = np.arange(27.0).reshape(3, 3, 3)
    values[1, 1], values[0, 0] = values[0, 0], values[1, 1]
    assert values[1, 1].tolist() == values[0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_blur_needs_no_pixel_to_visit(severity):
    images = colours(2, 3, 7, 4)
    found = GlassBlur(column="imagenet")(images, severity=5, randomness=streams(images, 5))
    blurred = gaussian_filter(gaussian_filter(images, sigma=1.5), sigma=1.5)
    torch.testing.assert_close(found, blurred, rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", [(1.0, 0, 1), (1.0, 1.5, 1), (1.0, 1, 0)])
def test_glass_blur_refuses_parts_of_pixels_and_rounds(level):
    with pytest.raises(ArgumentError, match="whole"):
        GlassBlur(levels=(level,) * 5)


def slow_motion(image, radius, sigma, angle):
    """Follow ImageMagick's MotionBlurImage pixel by pixel, beyond the border with the last pixel."""
    height, width = image.shape[:2]
    length = 2 * math.ceil(radius) + 1
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(length)]
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    blurred = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for i, weight in enumerate(weights):
                row, column = y + math.ceil(i * down - 0.5), x + math.ceil(i * right - 0.5)
                row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
                blurred[y, x] += weight / sum(weights) * image[row, column]
    return blurred


@every_level
def test_motion_blur_equals_imagemagick_pixel_by_pixel(column, severity):
    images = photos(32)[:, :, :14, :23]
    found = MotionBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    angles = [float(each) * 90 - 45 for each in streams(images, severity).uniform((1,))]
    level = MOTION[column][severity - 1]
    wanted = [slow_motion(as_array(image), *level, angle) for image, angle in zip(images, angles, strict=True)]
    assert_alike(found, wanted, atol=1e-6)


def test_motion_looks_rightwards_within_45_degrees():
    images = colours(300, 1, 41, 41)
    flow = MotionBlur(levels=((10, 3),) * 5).flow(images, severity=1, randomness=streams(images, 1))
    right, down = flow[:, 20, 20].double().unbind(dim=1)
    angles = torch.rad2deg(torch.atan2(down, right))
    # Evenly spread; pixels are whole, so that angles are rounded.
    assert abs(angles).max() <= 47
    assert np.quantile(angles.numpy(), [0.05, 0.25, 0.5, 0.75, 0.95]) == pytest.approx(
        [-40.5, -22.5, 0, 22.5, 40.5], abs=8
    )


def slow_zoom_blur(image, end, step):
    height, width = image.shape[:2]
    factors = np.arange(1, end, step)
    total = image.copy()
    for factor in factors:
        parts, cuts = [], []
        for size in (height, width):
            inner = math.ceil(size / factor)
            parts.append(slice((size - inner) // 2, (size - inner) // 2 + inner))
        zoomed = ndimage.zoom(image[tuple(parts)], (factor, factor, 1), order=1)
        cuts = [(outer - size) // 2 for outer, size in zip(zoomed.shape, (height, width), strict=False)]
        total += zoomed[cuts[0] : cuts[0] + height, cuts[1] : cuts[1] + width]
    return total / (len(factors) + 1)


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (9, 7), (21, 34)], ids=str)
@every_level
def test_zoom_blur_equals_scipy(column, severity, size):
    images = colours(1, 2, *size)
    found = ZoomBlur(column=column)(images, severity=severity, randomness=streams(images, severity))
    assert_alike(found, [slow_zoom_blur(as_array(images[0]), *ZOOM[column][severity - 1])], atol=2e-5)


def test_far_zooms_keep_the_centre_as_scipy_does():
    images, level = colours(1, 2, 21, 34), (4.0, 0.45)  # pixels are left over on both sides
    found = ZoomBlur(levels=(level,) * 5)(images, severity=1, randomness=streams(images, 1))
    assert_alike(found, [slow_zoom_blur(as_array(images[0]), *level)], atol=2e-5)


def slow_elastic(image, strength, sigma, jitter, noise):
    """Follow the scripts; ``jitter`` is (3, 2) as (x, y), ``noise`` is (2, H, W) for x and y."""
    height, width = image.shape[:2]
    centre, half = np.array([width // 2, height // 2]), min(height, width) // 3
    points = np.array([centre + half, [centre[0] + half, centre[1] - half], centre - half], dtype=float)
    # The affine map from moved points back to the points, as a 2 x 3 matrix.
    back = np.linalg.solve(np.column_stack([points + jitter, np.ones(3)]), points).T
    y, x = np.mgrid[:height, :width].astype(float)
    from_x, from_y = np.tensordot(back, np.stack([x, y, np.ones_like(x)]), axes=1)
    layers = range(image.shape[2])
    sheared = np.stack(
        [ndimage.map_coordinates(image[..., i], [from_y, from_x], order=1, mode="mirror") for i in layers], axis=2
    )
    right, down = (ndimage.gaussian_filter(each, sigma, mode="reflect", truncate=3) * strength for each in noise)
    places = [y + down, x + right]
    return np.stack([ndimage.map_coordinates(sheared[..., i], places, order=1, mode="reflect") for i in layers], axis=2)


def elastic_draws(images, severity, jitter):
    randomness = streams(images, severity)
    corners = (randomness.uniform((3, 2)).double().numpy() * 2 - 1) * jitter
    return corners, randomness.uniform((2, *images.shape[2:])).double().numpy() * 2 - 1


@pytest.mark.parametrize("size", [(32, 32), (96, 80)], ids=str)
@every_level
def test_elastic_equals_scipy(column, severity, size):
    images = photos(96)[:, :, : size[0], : size[1]].contiguous()
    found = Elastic(column=column)(images, severity=severity, randomness=streams(images, severity))
    strength, sigma, jitter = ELASTIC[column][severity - 1]
    corners, noise = elastic_draws(images, severity, jitter)
    wanted = [
        slow_elastic(as_array(x), strength, sigma, *draws) for x, *draws in zip(images, corners, noise, strict=True)
    ]
    # Places are float32: their error grows with the distance that the affine map carries them.
    assert_alike(found, wanted, atol=2e-3 if size[0] == 32 and column == "imagenet" else 2e-4)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_equals_opencv_and_skimage(severity):
    cv2 = pytest.importorskip("cv2")
    from skimage.filters import gaussian

    images = photos(32)
    found = Elastic()(images, severity=severity, randomness=streams(images, severity))
    strength, sigma, jitter = ELASTIC["cifar"][severity - 1]
    wanted = []
    for image, corners, noise in zip(images, *elastic_draws(images, severity, jitter), strict=True):
        points = np.float32([[26, 26], [26, 6], [6, 6]])
        turn = cv2.getAffineTransform(points, points + corners.astype(np.float32))
        pixels = as_array(image).astype(np.float32)
        sheared = cv2.warpAffine(pixels, turn, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
        right, down = (gaussian(each, sigma, mode="reflect", truncate=3) * strength for each in noise)
        y, x, z = np.mgrid[:32, :32, :3]
        places = [y + down[..., None], x + right[..., None], z]
        wanted.append(ndimage.map_coordinates(sheared, places, order=1, mode="reflect"))
    # OpenCV rounds places to 1/32 pixel.
    assert_alike(found, wanted, atol=0.03)
    assert abs(found.double().numpy() - np.stack(wanted).transpose(0, 3, 1, 2)).mean() < 0.003


class CornersOnOneLine:
    """Hold all jitter and noise at 0, but move the second corner onto the diagonal of the square."""

    def uniform(self, shape):
        draws = torch.full((2, *shape), 0.5)
        if shape == (3, 2):
            draws[:, 1, 1] = 1.0
        return draws


def test_elastic_survives_corners_on_one_line():
    images = colours(2, 3, 9, 7)
    # Half the square is 2 pixels. As in OpenCV, where a map without inverse shows one place only.
    found = Elastic(levels=((1.0, 1.0, 4.0),) * 5)(images, severity=1, randomness=CornersOnOneLine())
    torch.testing.assert_close(found, images[:, :, 2:3, 1:2].expand_as(images), rtol=0, atol=1e-6)


# What the severities and the flow mean on photographs

# Steps, each named by the weaker severity, at which the published parameters themselves do not make an image change
# more. Glass: a round less (imagenet 3), a wider Gaussian that hides what the shift did (cifar 1, 2 and 4). Elastic: a
# jitter that falls while the displacement gets finer (imagenet 2, cifar throughout).
NOT_RISING = {
    ("glass_blur", 224): {3},
    ("glass_blur", 32): {1, 2, 4},
    ("elastic", 224): {2},
    ("elastic", 32): {1, 2, 3, 4},
}


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_severity_rises_on_photographs_where_published_parameters_do(family, size):
    images, member = photos(size), resolve_member("perturb", family)
    seeds = range(3) if family in ("glass_blur", "motion_blur", "elastic") else range(1)
    distance = []
    for severity in SEVERITIES:
        draws = [member(images, severity=severity, randomness=streams(images, severity, n)) for n in seeds]
        distance.append(float((torch.stack(draws) - images).abs().mean()))
    for weaker in {1, 2, 3, 4} - NOT_RISING.get((family, size), set()):
        assert distance[weaker - 1] < distance[weaker], distance
    assert distance[0] > 0.003


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("family", MOVING)
def test_flow_leads_closer_to_the_disturbed_image_than_the_clean_one_is(family, size):
    images, member = photos(size), resolve_member("perturb", family)
    for severity in SEVERITIES:
        disturbed = member(images, severity=severity, randomness=streams(images, severity))
        flow = member.flow(images, severity=severity, randomness=streams(images, severity))
        assert flow.shape == (3, size, size, 2)
        assert flow.dtype == torch.float32
        assert flow.abs().max() <= 1
        warped = grid_sample(images, flow, align_corners=False)
        gap, change = ((other - disturbed).abs().mean(dim=(1, 2, 3)) for other in (warped, images))
        # The elastic transform interpolates twice, the flow once; the others blur, too.
        assert (gap < (0.3 if family == "elastic" else 0.9) * change).all(), (severity, gap / change)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_moves_the_object_is_geometric(family):
    member = resolve_member("perturb", family)
    assert getattr(member, "geometric", False) == hasattr(member, "flow") == (family in MOVING)


@pytest.mark.parametrize("family", MOVING)
def test_flow_of_an_image_does_not_depend_on_its_batch(family):
    images, member = colours(5, 3, 9, 7), resolve_member("perturb", family)
    together = member.flow(images, severity=3, randomness=streams(images, 3))
    alone = [member.flow(each[None], severity=3, randomness=streams(each[None], 3)) for each in images]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (9, 7)], ids=str)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_images_smaller_than_the_kernel_work(family, column, size):
    images, member = (
        colours(2, 3, *size).double(),
        dataclasses.replace(resolve_member("perturb", family), column=column),
    )
    for severity in SEVERITIES:
        disturbed = member(images, severity=severity, randomness=streams(images, severity))
        assert (disturbed.shape, disturbed.dtype) == (images.shape, images.dtype)
        assert disturbed.isfinite().all()


@pytest.mark.parametrize("size", [40, 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_waits_for_an_accelerator(family, size):
    images, member = colours(2, 3, size, size), resolve_member("perturb", family)
    randomness = streams(images, 5)
    call = {"severity": 5, "randomness": randomness}
    member(images, **call)  # constants are made once
    if hasattr(member, "flow"):
        member.flow(images, **call)
    randomness._draws = 0
    with Waits() as waits:
        member(images, **call)
        randomness._draws = 0
        if hasattr(member, "flow"):
            member.flow(images, **call)
    assert not waits.places


@pytest.mark.parametrize("family", FAMILIES)
def test_members_travel_between_processes(family):
    member = resolve_member("perturb", family)
    again = pickle.loads(pickle.dumps(member))
    assert (again, hash(again), repr(again)) == (member, hash(member), repr(member))
