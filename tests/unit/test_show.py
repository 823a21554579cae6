"""One image through all methods, as one picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_camrobust import cli, compute_cams, measure_stability, perturb_images
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.members import member_names
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.report.drawing import figure_to_pixels
from lightning_camrobust.study.show import SLOW_METHODS, choose_methods, draw_image_view, view_image

SPACE = PixelSpace((0.4,), (0.3,))


def tiny_network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def photograph():
    from skimage.data import chelsea

    pixels = torch.from_numpy(np.ascontiguousarray(chelsea()[40:280:3, 100:400:3])) / 255
    return pixels.permute(2, 0, 1).contiguous()


def test_maps_are_those_of_compute_cams(photograph):
    network, names = tiny_network(), ["gradcam", "eigencam", "layercam"]
    found = view_image(network, photograph, names, space=SPACE)
    inputs = ((photograph - 0.4) / 0.3)[None]
    expected = compute_cams(network, inputs, names, mean=0.4, std=0.3)
    assert [view.method for view in found.views] == names
    assert found.target_layer == "3"
    for view in found.views:
        (panel,) = view.panels
        torch.testing.assert_close(panel.heat, expected[view.method][0])
        torch.testing.assert_close(panel.pixels, photograph, atol=1e-6, rtol=0)
        assert panel.predicted == network(inputs).argmax()


def test_overlap_with_the_noisy_copy_is_that_of_a_measurement(photograph):
    network, names = tiny_network(), ["gradcam", "eigencam"]
    inputs = ((photograph - 0.4) / 0.3)[None]
    how = {"perturbation": "impulse_noise", "severity": 5, "seed": 3}
    found = view_image(network, photograph, names, space=SPACE, **how)
    measured = measure_stability(
        network, inputs, names, "impulse_noise", severities=5, seed=3, mean=0.4, std=0.3
    ).comparison
    noisy = perturb_images(inputs, "impulse_noise", 5, seed=3, mean=0.4, std=0.3)
    assert found.noise == "impulse_noise 5"
    for index, view in enumerate(found.views):
        panel = view.panels[1]
        assert panel.similarity == pytest.approx(float(measured.similarity[0, index]), abs=1e-12)
        assert panel.same is bool(measured.same_class[0, index])
        torch.testing.assert_close(panel.pixels, (noisy[0] * 0.3 + 0.4).clamp(0, 1), atol=1e-6, rtol=0)


def test_outline_is_the_segment_with_the_largest_mean(photograph):
    from lightning_camrobust import segment_images
    from lightning_camrobust.segment.grid import Grid

    network, grid = tiny_network(), Grid(rows=3, columns=4)
    (view,) = view_image(network, photograph, ["gradcam"], space=SPACE, segmenter=grid).views
    labels = segment_images(photograph[None], grid)[0]
    large = torch.nn.functional.interpolate(
        view.panels[0].heat[None, None].double(), size=labels.shape, mode="bilinear", align_corners=False
    )[0, 0]
    means = [large[labels == label].mean() for label in range(12)]
    assert torch.equal(view.panels[0].top_segment, labels == int(np.argmax(means)))


@pytest.mark.parametrize("noise", [None, "gaussian_noise"])
def test_a_map_that_cannot_be_ranked_is_not_outlined(photograph, noise):
    def flat_cam(trace):
        return torch.zeros_like(trace.activation[:, 0])

    flat, other = view_image(
        tiny_network(), photograph, [flat_cam, "gradcam"], space=SPACE, segmenter="grid", perturbation=noise
    ).views
    assert not any(panel.top_segment.any() for panel in flat.panels)
    assert all(panel.top_segment.any() for panel in other.panels)


def test_network_is_left_as_it_was(photograph):
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    view_image(network, photograph, ["gradcam"], space=SPACE, perturbation="fog")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_words_for_methods():
    fast, left_out = choose_methods(["fast"])
    everything, nothing = choose_methods(["all"])
    assert left_out == sorted(SLOW_METHODS)
    assert nothing == []
    assert set(everything) == set(fast) | set(SLOW_METHODS) == set(member_names("cams"))
    assert choose_methods(["gradcam", "rise"]) == (["gradcam", "rise"], [])
    with pytest.raises(ArgumentError, match="at least one"):
        choose_methods([])


def test_methods_that_cannot_explain_a_network(photograph):
    network, names = tiny_network(), ["attention_rollout", "gradcam"]
    found = view_image(network, photograph, names, space=SPACE, skip_failures=True)
    assert "attention" in found.views[0].failure
    assert found.views[0].panels == ()
    with pytest.raises(ModelError, match="attention"):
        view_image(network, photograph, names, space=SPACE)
    with pytest.raises(ArgumentError, match="none of these methods"):
        view_image(network, photograph, names[:1], space=SPACE, skip_failures=True)


def test_channels_that_do_not_fit(photograph):
    with pytest.raises(ArgumentError, match="2 values and the image has 3 channels"):
        view_image(tiny_network(), photograph, ["gradcam"], space=PixelSpace((0.4, 0.4), (1.0, 1.0)))
    with pytest.raises(ArgumentError, match="one float tensor"):
        view_image(tiny_network(), photograph[None], ["gradcam"], space=SPACE)


@pytest.mark.parametrize("noise", [None, "gaussian_noise"])
def test_picture_holds_image_and_overlays(photograph, noise):
    from lightning_camrobust.report.tiles import panel_tiles
    from lightning_camrobust.study.show import _CAPTION, _TILE

    names = ["gradcam", "eigencam", "layercam"]
    found = view_image(tiny_network(), photograph, names, space=SPACE, perturbation=noise)
    sheet = figure_to_pixels(draw_image_view(found, title="a cat", notes=["a note"])) / 255
    tiles = [panel_tiles(panel, side=_TILE)[0] for panel in found.views[0].panels]
    tiles += [panel_tiles(panel, side=_TILE)[1] for view in found.views for panel in view.panels]
    places = [place_of(tile, sheet) for tile in tiles]
    assert all(place is not None for place in places)
    assert len(set(places)) == len(tiles)
    # Tiles stand in reading order and leave room for their captions.
    assert places == sorted(places)
    assert min(row for row, _ in places) > _CAPTION


def place_of(tile, sheet):
    """Find a tile on a sheet; pixels were rounded to 8 bits on their way."""
    corner = tile[90:98, 90:98]
    rows, columns = np.nonzero(np.abs(sheet - corner[0, 0]).max(axis=2) < 0.005)
    for row, column in zip(rows - 90, columns - 90, strict=True):
        part = sheet[max(row, 0) : row + len(tile), max(column, 0) : column + len(tile)]
        if part.shape == tile.shape and np.abs(part - tile).max() < 0.005:
            return int(row), int(column)
    return None


def test_titles_say_what_happened(photograph):
    found = view_image(tiny_network(), photograph, ["gradcam"], space=SPACE, perturbation="impulse_noise", severity=5)
    figure = draw_image_view(found, title="a cat", notes=["a note"])
    words = " ".join(text.get_text() for text in figure.texts)
    noisy = found.views[0].panels[1]
    for word in ("a cat", "a note", "gradcam", "impulse_noise 5", f"RBO {noisy.similarity:.2f}", "Maps on 3"):
        assert word in words
    assert ("class kept" in words) is noisy.same


# --- the command


@pytest.fixture
def here(tmp_path, monkeypatch, photograph):
    monkeypatch.chdir(tmp_path)
    Image.fromarray((photograph.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save("cat.png")
    torch.save(tiny_network().state_dict(), "tiny.pt")
    return [
        "show", "--image", "cat.png", "--network", f"{__file__}:tiny_network", "--weights", "tiny.pt",
        "--output", "pictures/out.png", "--mean", "0.4", "--std", "0.3", "--segmenter", "grid",
    ]  # fmt: skip


def test_command_writes_a_picture_and_prints_its_path(here, capsys):
    assert cli.main([*here, "--methods", "gradcam", "eigencam", "--perturbation", "fog", "--size", "48"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("gradcam: class ")
    assert "fog 3: class" in lines[0]
    assert "RBO" in lines[0]
    assert lines[-1] == "pictures/out.png"
    with Image.open("pictures/out.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 600


def test_command_says_what_it_leaves_out(here, capsys):
    assert cli.main([*here, "--size", "32"]) == 0
    out = capsys.readouterr().out
    assert "Left out as slow: fusioncam, occlusion, rise, scorecam; --methods all draws them too." in out
    assert "Not drawn: attention_rollout." in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--image", "gone.png"], ["'gone.png'", "no file"]),
        (["--image", "text.png"], ["text.png", "cannot be read as an image"]),
        (["--image", "cut.png"], ["cut.png", "cannot be read as an image"]),
        (["--output", "out.gif"], ["'out.gif'", ".png"]),
        (["--methods", "gradcm"], ["'gradcam'"]),
        (["--perturbation", "fogg"], ["'fog'"]),
        (["--weights", "gone.pt"], ["gone.pt"]),
        (["--target_layers", "5x"], ["5x"]),
        (["--target_layers", "1", "3"], ["one target layer, got 2"]),
        (["--channels", "1"], ["channels"]),
        (["--severity", "9", "--perturbation", "fog"], ["9"]),
    ],
)
def test_command_refuses_what_cannot_work(here, capsys, tmp_path, more, words):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cat.png").read_bytes()[:900])
    assert cli.main([*here, *more]) == 1
    err = capsys.readouterr().err
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    assert not (tmp_path / "pictures").exists()
