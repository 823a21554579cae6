"""Segmenters that ask scikit-image hand over the image as it is; images are enlarged and pooled as told."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.segmentation import slic

from lightning_camrobust.cache import SegmentCache
from lightning_camrobust.enlarging import enlarge_images
from lightning_camrobust.pooling import build_pooling
from lightning_camrobust.segment.quickshift_skimage import QuickshiftSkimage
from lightning_camrobust.segment.slic import Slic
from lightning_camrobust.segmentation import segment_images


def photograph(dtype=torch.float32):
    picture = torch.from_numpy(data.astronaut()[40:170:2, 150:290:2].copy())
    return (picture.permute(2, 0, 1)[None] / 255).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("settings", [(30, 10.0, 1.0), (80, 2.0, 0.0)])
def test_slic_is_skimages(settings, dtype):
    image = photograph(dtype)
    count, compactness, sigma = settings
    wanted = slic(
        image[0].permute(1, 2, 0).numpy().astype(float),
        n_segments=count,
        compactness=compactness,
        sigma=sigma,
        start_label=0,
    )
    found = Slic(n_segments=count, compactness=compactness, sigma=sigma)(image)
    np.testing.assert_array_equal(found[0], wanted)
    assert found.min() == 0


def test_an_image_that_wants_a_gradient_can_be_cut():
    image = photograph()
    for segmenter in (Slic(), QuickshiftSkimage(min_side=32)):
        wanted = segmenter(image)
        assert torch.equal(segmenter(image.clone().requires_grad_()), wanted)


def test_small_images_are_enlarged_between_the_middles_of_pixels():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float64, torch.float32, torch.float16):
        large = enlarge_images(images.to(dtype), min_side=10)
        assert large.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for axis, size in ((2, 10), (3, 14)):
            # A row of the enlarged image lies a quarter of a pixel beside the middle of the one below it.
            row = np.clip((np.arange(size) + 0.5) / 2 - 0.5, 0, size / 2 - 1)
            source = images.to(dtype).double().mean(dim=5 - axis).numpy()
            wanted = np.stack([[np.interp(row, np.arange(size // 2), line) for line in image] for image in source])
            np.testing.assert_allclose(large.double().mean(dim=5 - axis), wanted, atol=1e-6)


def test_pooling_operators_have_a_row_a_segment_and_one_at_least():
    for labels, rows in (([[0, 0], [0, 0]], 1), ([[-1, -1], [-1, -1]], 1), ([[0, 2], [1, 2]], 3)):
        operator, present = build_pooling(torch.tensor([labels]), map_size=(2, 2))
        assert operator.shape == (1, rows, 4)
        assert present.shape == (1, rows)
    operator, present = build_pooling(torch.zeros(0, 4, 4, dtype=torch.long), map_size=(2, 3))
    assert (operator.shape, present.shape) == ((0, 1, 6), (0, 1))


def test_a_segmenter_gets_images_without_a_graph():
    def halves(images):
        assert not images.requires_grad
        return (torch.arange(images.shape[3]) * 2 // images.shape[3]).expand(len(images), *images.shape[2:]).clone()

    labels = segment_images(photograph().requires_grad_(), halves, cache=SegmentCache(0))
    assert labels.unique().tolist() == [0, 1]
