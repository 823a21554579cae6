"""Quickshift against scikit-image, whose labels it must give, and against slow loops that say what it means."""

import itertools
import math
import random
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from skimage import color, data
from torch.nn.functional import interpolate

from lightning_camrobust import quickshift_forest
from lightning_camrobust.enlarging import enlarge_images
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.quickshift_density import pixel_density, rgb_to_lab
from lightning_camrobust.quickshift_forest import nearest_denser
from lightning_camrobust.segment import quickshift
from lightning_camrobust.segment.quickshift import Quickshift
from lightning_camrobust.segment.quickshift_skimage import QuickshiftSkimage
from lightning_camrobust.segment.slic import Slic

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
# kernel_size, max_dist, ratio
SETTINGS = (
    (5.0, 200.0, 0.2),
    (3.0, 200.0, 0.2),
    (1.0, 10.0, 1.0),
    (2.5, 1.5, 0.2),
    (2.0, 1.0, 0.05),
    (3.0, 6.0, 0.5),
    (2.0, math.inf, 0.0),
    (2.0, 0.0, 0.2),
)
IMAGES = Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample-224"


@cache
def photographs(height=88, width=104):
    """Four photographs, ``(4, 3, H, W)``."""
    pictures = [torch.from_numpy(getattr(data, each)()).permute(2, 0, 1)[None].float() / 255 for each in PHOTOGRAPHS]
    return torch.cat([interpolate(each, size=(height, width), mode="area").clamp(0, 1) for each in pictures])


def both(images, kernel_size=3.0, max_dist=200.0, ratio=0.2, min_side=1):
    ours = Quickshift(kernel_size, max_dist, ratio, min_side)(images)
    return ours, QuickshiftSkimage(kernel_size, max_dist, ratio, min_side)(images)


def assert_same_labels(ours, theirs):
    assert (ours.dtype, ours.shape) == (torch.int64, theirs.shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def agreement(ours, theirs):
    """Share of pixels with the same label, under the best matching of labels."""
    pairs = np.zeros((int(ours.max()) + 1, int(theirs.max()) + 1))
    np.add.at(pairs, (ours.flatten().numpy(), theirs.flatten().numpy()), 1)
    return pairs[linear_sum_assignment(pairs, maximize=True)].sum() / pairs.sum()


@pytest.mark.parametrize(("kernel_size", "max_dist", "ratio"), SETTINGS)
def test_photographs_get_the_labels_of_skimage(kernel_size, max_dist, ratio):
    assert_same_labels(*both(photographs(), kernel_size, max_dist, ratio))


def test_links_longer_than_the_limit_are_cut():
    counts = [int(Quickshift(3.0, limit, 0.2, 1)(photographs()[:1]).max()) + 1 for limit in (0.0, 1.0, 1.5, 200.0)]
    assert counts[0] == photographs()[0, 0].numel()
    assert counts == sorted(set(counts), reverse=True)


def flat(height, width, colour):
    return torch.tensor(colour)[:, None, None].expand(1, 3, height, width).clone()


def with_square(ground, colour):
    images = ground.clone()
    images[:, :, 10:30, 15:45] = torch.tensor(colour)[:, None, None]
    return images


@pytest.mark.parametrize(
    "images",
    [
        flat(60, 50, (0.0, 0.0, 0.0)),
        flat(60, 50, (0.3, 0.6, 0.1)),
        with_square(flat(60, 50, (1.0, 1.0, 1.0)), (0.9, 0.1, 0.2)),
        with_square(flat(60, 50, (0.5, 0.5, 0.5)), (0.5, 0.5, 0.5 + 1 / 255)),
        (torch.arange(50) // 10 % 2).expand(1, 3, 60, 50).float(),
    ],
    ids=["black", "green", "square", "faint square", "stripes"],
)
@pytest.mark.parametrize("kernel_size", [5.0, 1.5])
def test_flat_areas_are_cut_by_the_same_noise(images, kernel_size):
    assert_same_labels(*both(images, kernel_size))


def test_a_flat_picture_falls_apart_under_a_small_kernel():
    assert int(Quickshift(1.0, min_side=1)(flat(60, 50, (0.5, 0.5, 0.5))).max()) > 10


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (30, 2), (5, 5), (17, 64)])
def test_images_smaller_than_the_window(size):
    assert_same_labels(*both(photographs(*size), kernel_size=5.0))


@pytest.mark.parametrize("size", [(32, 32), (20, 31)])
def test_small_images_are_enlarged(size):
    images = photographs(*size)
    ours, theirs = both(images, min_side=64)
    assert_same_labels(ours, theirs)
    assert ours.shape == (4, *size)
    assert int(ours.max()) > int(both(images, min_side=1)[0].max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_is_accepted(dtype):
    assert_same_labels(*both(photographs(40, 40).to(dtype), min_side=64))


def test_images_that_want_a_gradient_are_accepted():
    images = photographs(40, 40)
    wanting = images.clone().requires_grad_()
    for segmenter in (Quickshift(min_side=1), QuickshiftSkimage(min_side=1), Slic()):
        assert_same_labels(segmenter(wanting), segmenter(images))


def test_each_image_of_a_batch_is_segmented_as_if_alone():
    segmenter = Quickshift(min_side=1)
    together = segmenter(photographs())
    alone = torch.cat([segmenter(each[None]) for each in photographs()])
    assert_same_labels(together, alone)
    assert_same_labels(segmenter(photographs().flip(0)), together.flip(0))


@pytest.mark.parametrize("pixels", [1, 2**30])
@pytest.mark.parametrize("pairs", [1000, 2**30])
def test_size_of_blocks_does_not_matter(monkeypatch, pixels, pairs):
    images, segmenter = photographs(40, 40), Quickshift(2.0, min_side=1, ratio=1.0)
    usual = segmenter(images)
    monkeypatch.setattr(quickshift, "_PIXELS_ON_PROCESSOR", pixels)
    monkeypatch.setattr(quickshift_forest, "_PAIRS_IN_CACHE", pairs)
    assert_same_labels(segmenter(images), usual)


def test_a_broken_pixel_spoils_only_its_window():
    images = photographs(40, 60).clone()
    images[1:, 1, 20, 50] = math.nan
    assert_same_labels(*both(images, kernel_size=2.0))


@pytest.fixture
def _two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("count", [1, 3])
def test_labels_are_the_same_from_several_threads(count):
    images, segmenter = photographs(60, 60)[:count], Quickshift(min_side=64)
    with torch.inference_mode(), torch.autocast("cpu"):
        labels = segmenter(images * 1)
    for _ in range(3):
        assert_same_labels(segmenter(images), labels)
    torch.set_num_threads(1)
    assert_same_labels(segmenter(images), labels)


@pytest.mark.usefixtures("_two_threads")
def test_later_threads_find_the_number_of_threads_unchanged():
    Quickshift(min_side=1)(photographs(30, 30))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2


def test_empty_batch_gives_no_labels():
    assert Quickshift(min_side=1)(torch.zeros(0, 3, 8, 9)).shape == (0, 8, 9)
    assert Quickshift()(torch.zeros(0, 3, 32, 32)).shape == (0, 32, 32)


def test_too_small_a_kernel_is_refused():
    with pytest.raises(ArgumentError, match="`kernel_size` must be 1 pixel or more, got 0.5"):
        Quickshift(kernel_size=0.5)


def test_random_streams_stay_as_they_are():
    def streams():
        return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))

    quickshift.tie_noise.cache_clear()
    before = streams()
    Quickshift(min_side=1)(photographs(30, 30))
    assert streams() == before


def test_lab_is_that_of_skimage():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 50, generator=generator, dtype=torch.float64)
    images[1] /= 20  # both sides of the two bends near black
    images[1, :, 0, :3] = torch.tensor([0.0, -1e-6, 0.04045], dtype=torch.float64)
    images[0, :, 0, :2] = torch.tensor([1.0, 1 + 1e-6], dtype=torch.float64)
    wanted = color.rgb2lab(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(rgb_to_lab(images).permute(0, 2, 3, 1).numpy(), wanted, rtol=0, atol=1e-10)


def window_of(place, size, reach):
    rows, columns = (range(max(0, at - reach), min(end, at + reach + 1)) for at, end in zip(place, size, strict=True))
    return itertools.product(rows, columns)


def slow_distance(colours, one, other):
    colour = sum((colours[c][one] - colours[c][other]) ** 2 for c in range(3))
    return colour + (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2


def slow_density(colours, kernel_size):
    size, reach = colours[0].shape, math.ceil(3 * kernel_size)
    density = np.zeros(size)
    for place in np.ndindex(size):
        gaps = (slow_distance(colours, place, other) for other in window_of(place, size, reach))
        density[place] = sum(math.exp(-gap / (2 * kernel_size**2)) for gap in gaps)
    return density


def slow_parents(colours, density, reach):
    """Position of the nearest denser pixel; `min` keeps the first of equals, and the window is in raster order."""
    size = density.shape
    parents = np.arange(density.size).reshape(size)
    for place in np.ndindex(size):
        denser = [other for other in window_of(place, size, reach) if density[other] > density[place]]
        if denser:
            parents[place] = np.ravel_multi_index(min(denser, key=lambda it: slow_distance(colours, place, it)), size)
    return parents


@pytest.mark.parametrize("kernel_size", [1.0, 1.4])
def test_density_is_the_sum_over_the_window(kernel_size):
    colours = torch.randn(3, 2, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = [slow_density(colours[:, image].numpy(), kernel_size) for image in range(2)]
    np.testing.assert_allclose(pixel_density(colours, kernel_size=kernel_size).numpy(), wanted, rtol=1e-13)


@pytest.mark.parametrize(("levels", "step"), [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("reach", [3, 6])
@pytest.mark.parametrize("pairs", [1, 2**18])
def test_first_in_raster_order_wins_among_equally_near(monkeypatch, levels, step, reach, pairs):
    # Whole numbers, so that a near pixel of another colour is often exactly as far as a further one of its own.
    monkeypatch.setattr(quickshift_forest, "_PAIRS_IN_CACHE", pairs)
    generator = torch.Generator().manual_seed(levels)
    colours = torch.randint(0, levels, (3, 2, 11, 9), generator=generator).double() * step
    density = torch.randint(0, 5, (2, 11, 9), generator=generator).double()
    parent, distance = nearest_denser(colours, density, reach=reach)
    wanted = [slow_parents(colours[:, image].numpy(), density[image].numpy(), reach) for image in range(2)]
    wanted[1] += 11 * 9
    np.testing.assert_array_equal(parent.view(2, 11, 9).numpy(), wanted)
    assert torch.equal(distance.isinf(), parent == torch.arange(len(parent)))


def test_a_pixel_further_off_wins_the_tie_with_a_neighbour_of_another_colour():
    colours = torch.tensor([0.0, 0.0, 0.0, 1.0]).double().view(1, 1, 4, 1).expand(3, -1, -1, -1)
    density = torch.tensor([3.0, 0.0, 1.0, 2.0]).double().view(1, 4, 1)
    parent, distance = nearest_denser(colours, density, reach=3)
    assert parent[2] == 0
    assert distance[2] == 2**2 + 0 == 1 + 3


def test_device_without_double_precision_is_recognised(monkeypatch):
    def refuse(*_, **__):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    device = torch.device("cpu")
    assert quickshift._has_float64.__wrapped__(device)
    monkeypatch.setattr(torch, "zeros", refuse)
    assert not quickshift._has_float64.__wrapped__(device)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_labels_are_those_of_the_processor_and_lie_beside_the_images(device):
    if not getattr(torch, device).is_available():
        pytest.skip(f"needs a device {device}")
    for segmenter in (Quickshift(min_side=1), QuickshiftSkimage(min_side=1), Slic()):
        labels = segmenter(photographs().to(device))
        assert labels.device.type == device
        assert_same_labels(labels.cpu(), segmenter(photographs()))


def test_imagenet_agrees_with_skimage():
    from PIL import Image

    if not IMAGES.is_dir():
        pytest.skip("needs data/imagenet-sample-224 in a folder named shared beside the checkout")
    files = sorted(IMAGES.glob("*.jpg"))[::100]
    pixels = np.stack([np.array(Image.open(file).convert("RGB")) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    assert enlarge_images(images, min_side=224) is images
    ours, theirs = both(images, kernel_size=5.0, min_side=224)
    assert len(images) == 10
    assert min(agreement(one, other) for one, other in zip(ours, theirs, strict=True)) > 0.99
