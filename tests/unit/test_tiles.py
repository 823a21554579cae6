import numpy as np
import pytest
import torch
from matplotlib import colormaps
from torch import nn

from lightning_camrobust.gallery import Gallery, Panel, collect_gallery
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import make_plan
from lightning_camrobust.probe import probe
from lightning_camrobust.report.drawing import draw_gallery, figure_to_pixels
from lightning_camrobust.report.tiles import panel_tiles


def make_panel(*, height=8, width=8, channels=3, heat=None, segment=None, **settings):
    heat = torch.rand(2, 2) if heat is None else heat
    segment = torch.zeros(height, width, dtype=torch.bool) if segment is None else segment
    return Panel(torch.rand(channels, height, width), heat, segment, 3, "clean", **settings)


def test_small_images_keep_their_pixels():
    panel = make_panel()
    picture, _ = panel_tiles(panel, side=32)
    torch.testing.assert_close(torch.from_numpy(picture[2::4, 2::4]).permute(2, 0, 1), panel.pixels)


def test_map_lies_over_the_image_in_grey():
    heat = torch.tensor([[0.0, 5.0], [5.0, 0.0]])
    panel = make_panel(heat=heat)
    picture, overlay = panel_tiles(panel, side=32)
    for corner, level in (((0, 0), 0.0), ((0, -1), 1.0)):
        wanted = 0.4 * picture[corner].mean() + 0.6 * np.array(colormaps["inferno"](level)[:3])
        np.testing.assert_allclose(overlay[corner], wanted, atol=1e-5)


def test_first_segment_is_outlined_and_a_whole_one_is_not():
    segment = torch.zeros(8, 8, dtype=torch.bool)
    segment[2:6, 2:6] = True
    _, overlay = panel_tiles(make_panel(segment=segment), side=32)
    white = (overlay == 1).all(axis=2)
    assert white[7, 16]
    assert not white[16, 16]
    assert not white[0, 0]
    _, overlay = panel_tiles(make_panel(segment=torch.ones(8, 8, dtype=torch.bool)), side=32)
    assert not (overlay == 1).all(axis=2).any()


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 4, 3), (4, 8, 1), (300, 200, 3), (5, 5, 4)])
def test_any_size_fits(height, width, channels):
    segment = torch.zeros(height, width, dtype=torch.bool)
    segment[0] = True
    for tile in panel_tiles(make_panel(height=height, width=width, channels=channels, segment=segment), side=40):
        assert tile.shape == (40, 40, 3)
        assert tile.min() >= 0
        assert tile.max() <= 1


@pytest.mark.parametrize("heat", [torch.zeros(2, 2), torch.full((2, 2), torch.nan)])
def test_flat_and_broken_maps_are_drawn(heat):
    _, overlay = panel_tiles(make_panel(heat=heat), side=16)
    assert np.isfinite(overlay).all()


@pytest.mark.parametrize(("rows", "panels"), [(1, 1), (1, 2), (4, 5)])
def test_gallery_grows_with_what_it_shows(rows, panels):
    clean = make_panel()
    noisy = [make_panel(same=index % 2 == 0, similarity=0.5 if index else None) for index in range(panels - 1)]
    gallery = Gallery([[clean, *noisy] for _ in range(rows)], "gradcam")
    pixels = figure_to_pixels(draw_gallery(gallery, heading="Epoch 1, all 32 images and noises: robustness 0.5"))
    assert pixels.shape[1] == 2 * panels * 168 + 8
    assert pixels.shape[0] > rows * 196
    # The last tile of the last row is there.
    assert (pixels[-80:-60, -40:-20] != 255).any()


def flat_cam(trace):
    return torch.zeros_like(trace.activation[:, 0])


def uneven_cam(trace):
    maps = torch.zeros_like(trace.activation[:, 0])
    maps[:, 0, 0] = 1.0
    return maps


@pytest.mark.parametrize(("method", "outlined"), [(flat_cam, False), (uneven_cam, True)])
def test_a_map_that_cannot_be_ranked_has_no_first_segment(method, outlined):
    gallery = small_gallery(make_plan(method, "gaussian_noise", severities=1, segmenter="grid"))
    for panel in gallery.rows[0]:
        assert bool(panel.top_segment.any()) is outlined
        _, overlay = panel_tiles(panel, side=32)
        assert bool((overlay == 1).all(axis=2).any()) is outlined


def small_gallery(plan):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    images, space = torch.rand(1, 3, 8, 8) * 0.8, PixelSpace((0.0,), (1.0,))
    found = probe(network, images, plan=plan, target_layer=network[1], space=space, keep_noises=(0,))
    return collect_gallery(found, plan, space=space, count=1)


@pytest.mark.parametrize(("similarity", "name"), [("rbo", "RBO"), ("kendall", "kendall"), ("cosine", "cosine")])
def test_captions_name_the_similarity_that_was_measured(similarity, name):
    gallery = small_gallery(make_plan(uneven_cam, "gaussian_noise", severities=1, similarity=similarity))
    assert gallery.measure == name
    words = " ".join(text.get_text() for text in draw_gallery(gallery).texts)
    assert f"a high {name} is good" in " ".join(words.split())
    assert ("RBO" in words) is (name == "RBO")
    if gallery.rows[0][1].similarity is not None:
        assert f"{name} {gallery.rows[0][1].similarity:.2f}" in words
