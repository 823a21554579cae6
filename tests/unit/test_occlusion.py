"""How much occlusion hides, where, and behind what."""

import dataclasses

import pytest
import torch

from lightning_camrobust import perturb_images
from lightning_camrobust.baseline.white import White
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.perturb.occlusion import Occlusion

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)


def hidden(occlusion, *shape, severity=3, seed=0):
    """Where pictures with content everywhere turned white, ``(b, H, W)`` bool."""
    images = 0.1 + 0.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    noisy = perturb_images(images, dataclasses.replace(occlusion, baseline="white"), severity, seed=seed)
    turned = noisy != images
    assert (turned == turned[:, :1]).all()  # all channels go together
    assert (noisy[turned] == 1).all()
    return turned[:, 0]


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(32, 32), (224, 160)])
def test_severity_is_the_share_of_the_area(size, severity):
    for mask in hidden(Occlusion(), 3, 3, *size, severity=severity):
        assert float(mask.double().mean()) == pytest.approx(SHARES[severity - 1], abs=0.02)


@pytest.mark.parametrize("severity", [1, 5])
def test_what_is_hidden_is_one_rectangle_of_the_picture_s_shape(severity):
    for mask in hidden(Occlusion(), 5, 1, 60, 90, severity=severity):
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert int(mask.sum()) == height * width
        assert width / height == pytest.approx(1.5, abs=0.1)


def test_rectangles_reach_every_edge_and_every_place():
    masks = torch.cat([hidden(Occlusion(), 20, 1, 12, 10, severity=1, seed=seed) for seed in range(20)])
    assert masks.any(dim=0).all()
    # A rectangle of 3 x 2 pixels has 10 x 9 places; its upper left corner finds each equally often.
    corners = torch.stack([mask.nonzero()[0] for mask in masks])
    assert corners.amin(dim=0).tolist() == [0, 0]
    assert corners.amax(dim=0).tolist() == [9, 8]
    assert corners.double().mean(dim=0).tolist() == pytest.approx([4.5, 4.0], abs=0.5)


@pytest.mark.parametrize(("severity", "cells"), [(1, 2), (2, 5), (3, 10), (4, 15), (5, 20)])
def test_a_grid_hides_whole_cells(severity, cells):
    for mask in hidden(Occlusion(grid=7), 4, 3, 28, 35, severity=severity):
        shares = mask.view(7, 4, 7, 5).double().mean(dim=(1, 3))
        assert sorted(shares.unique().tolist()) == [0.0, 1.0]
        assert int(shares.sum()) == cells


def test_cells_of_a_grid_are_hidden_equally_often():
    masks = torch.cat([hidden(Occlusion(grid=3), 20, 1, 9, 9, severity=3, seed=seed) for seed in range(30)])
    often = masks.double().mean(dim=0)
    assert (often - 2 / 9).abs().max() < 4 * (2 / 9 * 7 / 9 / len(masks)) ** 0.5


def test_the_baseline_fills_the_hole():
    images = torch.rand(2, 3, 32, 32)
    for baseline in ("black", "blur", "noisy_linear", White()):
        noisy = perturb_images(images, Occlusion(baseline=baseline), 5)
        assert (noisy != images).any()
    by_name, by_instance = (perturb_images(images, Occlusion(baseline=each), 2) for each in ("white", White()))
    assert torch.equal(by_name, by_instance)


def test_everything_can_be_hidden():
    images = torch.rand(2, 3, 9, 7)
    assert (perturb_images(images, Occlusion(baseline="black", levels=(1.0, 1.0, 1.0, 2.0, 7.0)), 5) == 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Occlusion(grid=0), "`grid` must be a whole number"),
        (lambda: Occlusion(levels=(0.0, 0.1, 0.2, 0.3, 0.4)), "`levels` must be above 0"),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_unknown_baseline_is_refused():
    with pytest.raises(UnknownNameError, match="'black'"):
        perturb_images(torch.rand(1, 3, 9, 7), Occlusion(baseline="blak"))
