"""Several target layers, and maps that move along with the object."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from lightning_camrobust import compute_cams, measure_stability
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.fusion import fuse_layers
from lightning_camrobust.perturb.transformed import Transformed
from lightning_camrobust.warping import warp_maps


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def scaled(maps):
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_layers_are_scaled_enlarged_and_fused(how):
    generator = torch.Generator().manual_seed(0)
    large, small = torch.rand(3, 8, 6, generator=generator), torch.rand(3, 4, 3, generator=generator)
    # Half-pixel centres: the place of a fine cell in the coarse grid.
    rows, columns = (np.arange(8) + 0.5) / 2 - 0.5, (np.arange(6) + 0.5) / 2 - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    coarse = np.stack([map_coordinates(each, grid, order=1, mode="nearest") for each in scaled(small.double().numpy())])
    both = np.stack([scaled(large.double().numpy()), coarse])
    wanted = both.mean(axis=0) if how == "mean" else both.max(axis=0)
    np.testing.assert_allclose(fuse_layers([small, large], how=how), wanted, rtol=0, atol=1e-6)


def test_one_layer_stays_as_it_is():
    maps = torch.rand(2, 3, 3) * 7
    assert fuse_layers([maps]) is maps


def test_a_flat_map_has_no_say_and_nan_stays():
    maps, flat = torch.tensor([[[0.0, 2.0]], [[1.0, 3.0]]]), torch.full((2, 1, 2), 5.0)
    assert fuse_layers([maps, flat]).tolist() == [[[0.0, 0.5]], [[0.0, 0.5]]]
    broken = torch.where(torch.tensor([True, False])[:, None, None], torch.nan, maps)
    fused = fuse_layers([broken, maps])
    assert fused[0].isnan().all()
    assert fused[1].tolist() == [[0.0, 1.0]]


def test_volumes_are_fused():
    assert fuse_layers([torch.rand(2, 4, 4, 4), torch.rand(2, 2, 2, 2)]).shape == (2, 4, 4, 4)


@pytest.mark.parametrize("how", ["sum", None])
def test_unknown_fusion_is_refused(how):
    with pytest.raises(ArgumentError, match="`layer_fusion` must be 'mean' or 'max'"):
        compute_cams(network(), torch.rand(1, 3, 8, 8), target_layer=["0", "3"], layer_fusion=how)


def test_two_layers_equal_pytorch_grad_cam():
    net, images = network(), torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    classes = net(images).argmax(dim=1)
    with pytorch_grad_cam.GradCAM(net, [net[0], net[3]]) as cam:
        # Theirs are enlarged to the image's size, which is that of the first layer.
        wanted = cam(images, targets=None)
    (ours,) = compute_cams(net, images, target_layer=["0", "3"], classes=classes).values()
    np.testing.assert_allclose(scaled(ours.numpy()), wanted, rtol=0, atol=1e-4)


def test_a_layer_twice_the_size_decides_the_size():
    (maps,) = compute_cams(network(), torch.rand(2, 3, 16, 16), target_layer=["3", "0"], layer_fusion="max").values()
    assert maps.shape == (2, 16, 16)


def shifted_by(cells, height=8, width=8):
    """Each pixel comes from `cells` further right and down."""
    x, y = (2 * (torch.arange(size) + 0.5 + cells) / size - 1 for size in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


def test_maps_are_moved_by_whole_cells():
    maps = torch.rand(1, 8, 8)
    moved = warp_maps(maps, shifted_by(2))
    torch.testing.assert_close(moved[:, :6, :6], maps[:, 2:, 2:])
    torch.testing.assert_close(moved[:, 7, 7], maps[:, 7, 7])


def test_coarse_maps_are_moved_by_the_mean_of_their_pixels():
    maps = torch.rand(1, 4, 4, dtype=torch.float64)
    moved = warp_maps(maps, shifted_by(1))  # one pixel is half a cell
    torch.testing.assert_close(moved[:, :3, :3], torch.nn.functional.avg_pool2d(maps, 2, stride=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("pixels", "cells"), [(32, 15), (33, 17), (224, 13), (8, 8)])
def test_a_flow_that_moves_nothing_leaves_maps_as_they_are(pixels, cells):
    maps = torch.rand(1, cells, cells, dtype=torch.float64)
    torch.testing.assert_close(warp_maps(maps, shifted_by(0, pixels, pixels)), maps, rtol=0, atol=1e-5)


class Shift:
    """Move the picture by four pixels, around the border."""

    geometric = True

    def __call__(self, images, *, severity, randomness):
        return images.roll((-4, -4), dims=(2, 3))

    def flow(self, images, *, severity, randomness):
        return shifted_by(4, *images.shape[2:]).expand(len(images), -1, -1, -1)


class Locator(nn.Module):
    """Its map is the picture itself, so it follows whatever moves."""

    def __init__(self):
        super().__init__()
        self.layer = nn.AvgPool2d(2)

    def forward(self, images):
        total = self.layer(images).mean(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)


def test_a_map_that_follows_the_object_is_stable_only_when_aligned():
    images = torch.zeros(3, 1, 32, 32)
    for index, place in enumerate((8, 12, 16)):
        images[index, :, place : place + 6, place : place + 6] = torch.rand(6, 6) * 0.5 + 0.5
    how = {"target_layer": "layer", "segmenter": "grid", "severities": 3}
    moved, aligned = (
        measure_stability(Locator(), images, "hirescam", Shift(), align_geometric=align, **how).table()[0]
        for align in (False, True)
    )
    assert moved["geometric"]
    assert aligned["consistency"] == pytest.approx(1, abs=1e-6)
    assert moved["consistency"] < 0.6


def test_a_geometric_perturbation_without_a_flow_cannot_be_aligned():
    turned = Transformed(torch.fliplr, geometric=True)
    how = {"target_layer": "layer", "segmenter": "grid"}
    assert measure_stability(Locator(), torch.rand(2, 1, 32, 32), "hirescam", turned, **how).table()[0]["geometric"]
    with pytest.raises(ArgumentError, match="'transformed' is geometric but has no method `flow`"):
        measure_stability(Locator(), torch.rand(2, 1, 32, 32), "hirescam", turned, align_geometric=True, **how)
