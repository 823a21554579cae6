"""The gallery of a study: which images it shows, and the pictures and the list that it leaves in the folder."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_camrobust.study.findings import GalleryItem
from lightning_camrobust.study.gallery import extreme_images, write_gallery
from lightning_camrobust.study.outcomes import Noise, Outcomes
from lightning_camrobust.study.results import load_outcomes
from tests.integration.study_run import RandomImages, make_grid, study, tiny_model, tiny_network


def make_outcomes(similarity, same, noises):
    images = len(similarity)
    nothing = np.zeros(images, dtype=np.int64)
    return Outcomes(
        "net", "layer4", "pets", tuple(map(str, range(images))), nothing, ("gradcam", "eigencam"), tuple(noises),
        nothing, np.where(same, 0, 1), same, similarity, np.ones(images),
    )  # fmt: skip


def slow_extremes(outcomes, method, count):
    """Means of the kept, scored pairs of each image by a loop, then sorted twice."""
    kinds = {noise.kind for noise in outcomes.noises}
    means = {}
    for image in range(len(outcomes.images)):
        values = []
        for place, noise in enumerate(outcomes.noises):
            value = outcomes.similarity[image, outcomes.methods.index(method), place]
            counts = noise.kind == "photometric" or "photometric" not in kinds
            if counts and outcomes.same[image, place] and not math.isnan(value):
                values.append(value)
        if values:
            means[image] = round(sum(values) / len(values), 10)
    count = min(count, len(means) // 2)
    best = sorted(means, key=lambda image: (-means[image], image))
    return best[:count], best[::-1][:count]


@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
@pytest.mark.parametrize("kinds", [("photometric", "geometric", "photometric"), ("attack", "attack", "geometric")])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_extremes_are_those_of_a_loop(method, kinds, count):
    rng = np.random.default_rng(count)
    similarity = rng.integers(0, 5, size=(30, 2, 3)) / 4  # with many ties
    similarity[rng.random(similarity.shape) < 0.3] = np.nan
    noises = [Noise("fog", place + 1, kind) for place, kind in enumerate(kinds)]
    outcomes = make_outcomes(similarity, rng.random((30, 3)) < 0.6, noises)
    best, worst = extreme_images(outcomes, method, count)
    expected = slow_extremes(outcomes, method, count)
    assert (best.tolist(), worst.tolist()) == expected
    assert not set(best.tolist()) & set(worst.tolist())
    assert len(expected[0]) == min(count, len(expected[0]))


def test_images_without_a_kept_pair_are_in_neither():
    similarity = np.array([0.9, 0.1, 0.5, np.nan])[:, None, None] * np.ones((1, 2, 1))
    same = np.array([[False], [True], [True], [True]])
    outcomes = make_outcomes(similarity, same, [Noise("fog", 1)])
    assert [each.tolist() for each in extreme_images(outcomes, "gradcam", 9)] == [[2], [1]]
    alone = outcomes.of_images(np.array([0, 1, 3]))
    assert [each.tolist() for each in extreme_images(alone, "gradcam", 9)] == [[], []]


MODELS = {"tiny/a": tiny_model(), "b": tiny_model(1, target_layers=("3",))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = study(tmp_path_factory.mktemp("gallery"), models=MODELS)
    return folder, write_gallery(folder, load_outcomes(folder), MODELS, RandomImages(), make_grid(), count=2)


def test_each_model_and_layer_has_its_most_and_least_stable_images(drawn):
    folder, items = drawn
    listed = [GalleryItem(**each) for each in json.loads((folder / "gallery.json").read_text(encoding="utf-8"))]
    assert listed == items
    assert len(items) == 2 * 3
    assert sorted(f"gallery/{file.name}" for file in (folder / "gallery").iterdir()) == sorted(
        each.file for each in items
    )
    outcomes = load_outcomes(folder)
    for place, item in enumerate(items):
        each, how = outcomes[place // 2], ("most", "least")[place % 2]
        assert item.title.startswith(f"{each.model}, {each.target_layer}: maps that stay {how} ")
        for position in extreme_images(each, "gradcam", 2)[place % 2]:
            name, seen = each.images[position], item.alt.split(each.images[position])[1].split(". ")[0]
            # The clean class, and for every noise whether it stayed and how similar the maps are.
            assert seen.startswith(f": class {each.clean_classes[position]};"), item.alt
            for perturbation in ("gaussian_noise", "contrast"):
                column = each.noises.index(Noise(perturbation, 5))
                value, kept = each.similarity[position, 0, column], each.same[position, column]
                similar = "not rankable" if math.isnan(value) else f"RBO {value:.2f}"
                assert f"{perturbation} 5, class {'kept' if kept else 'changed'}, {similar}" in seen, (name, item.alt)
        with Image.open(folder / item.file) as picture:
            assert picture.format == "PNG"
            pixels = np.asarray(picture.convert("RGB"))
        # Two rows of images; a clean one and two noises, each with its map.
        assert pixels.shape[0] > 2 * 160
        assert pixels.shape[1] > 6 * 160
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_picture_has_three_noises_at_most_and_stays_readable_in_a_column(drawn, tmp_path):
    noises = ("gaussian_noise", "contrast", "fog", "jpeg")
    grid = make_grid(perturbations=noises, severities=2)
    folder = study(tmp_path, models={"b": MODELS["b"]}, count=4, grid=grid)
    items = write_gallery(folder, load_outcomes(folder), {"b": MODELS["b"]}, RandomImages(4), grid, count=1)
    for item in items:
        with Image.open(folder / item.file) as picture:
            assert picture.width < 1400
        assert [noise in item.alt for noise in noises] == [True, True, True, False]


def test_the_same_bytes_again(drawn, tmp_path):
    folder, items = drawn
    write_gallery(tmp_path, load_outcomes(folder), MODELS, RandomImages(), make_grid(), count=2, device="cpu")
    for name in ("gallery.json", *(each.file for each in items)):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_with_no_images_there_is_an_empty_list_and_no_file(drawn, tmp_path):
    folder, _ = drawn
    outcomes = load_outcomes(folder)
    write_gallery(tmp_path, outcomes[:1], MODELS, RandomImages(), make_grid(), count=1)
    (tmp_path / "gallery" / "mine.png").write_bytes(b"of the user")
    assert write_gallery(tmp_path, outcomes, MODELS, RandomImages(), make_grid(), count=0) == []
    assert json.loads((tmp_path / "gallery.json").read_text()) == []
    assert [file.name for file in (tmp_path / "gallery").iterdir()] == ["mine.png"]


def test_names_that_look_alike_do_not_share_a_file(drawn, tmp_path):
    folder, _ = drawn
    first = load_outcomes(folder)[0]
    models = {name: MODELS["tiny/a"] for name in ("a/b", "a-b", "A-b")}
    items = write_gallery(
        tmp_path,
        [dataclasses.replace(first, model=name) for name in models],
        models,
        RandomImages(),
        make_grid(),
        count=1,
    )
    assert len({each.file.lower() for each in items}) == len(items) == 6


def test_numbers_in_the_pictures_are_those_of_the_study(drawn, monkeypatch, tmp_path):
    folder, _ = drawn
    seen = []

    def kept(gallery, *, heading):
        from matplotlib.figure import Figure

        seen.append(gallery)
        return Figure(figsize=(1, 1))

    monkeypatch.setattr("lightning_camrobust.study.gallery.draw_gallery", kept)
    outcomes = load_outcomes(folder)[0]
    write_gallery(tmp_path, [outcomes], MODELS, RandomImages(), make_grid(), count=2)
    for gallery, positions in zip(seen, extreme_images(outcomes, "gradcam", 2), strict=True):
        for row, position in zip(gallery.rows, positions, strict=True):
            torch.testing.assert_close(row[0].pixels, RandomImages()[int(position)].pixels, rtol=0, atol=1e-5)
            for panel in row[1:]:
                perturbation, severity = panel.title.split()
                column = outcomes.noises.index(Noise(perturbation, int(severity)))
                assert panel.same == outcomes.same[position, column]
                value = outcomes.similarity[position, 0, column]
                assert (
                    panel.similarity is None
                    if math.isnan(value)
                    else panel.similarity == pytest.approx(value, abs=1e-5)
                )


def test_the_network_is_left_alone_and_moved_where_it_is_asked_for(drawn, tmp_path):
    folder, _ = drawn
    moved = []

    class Watched(nn.Sequential):
        def to(self, *given, **settings):
            moved.append(given)
            return super().to(*given, **settings)

    network = Watched(*tiny_network()).train()
    models = {"tiny/a": dataclasses.replace(MODELS["tiny/a"], network=network)}
    before = torch.get_rng_state()
    write_gallery(tmp_path, load_outcomes(folder)[:2], models, RandomImages(), make_grid(), count=1, device="cpu:0")
    assert moved == [("cpu:0",)]
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), before)
