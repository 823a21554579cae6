"""What a run has to show, and which file shows it to whom."""

import csv
import io
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.plan import make_plan
from lightning_camrobust.publishing import Publisher
from lightning_camrobust.report.destinations import destination_of, destinations
from lightning_camrobust.report.drawing import draw_severity_curves, figure_to_pixels
from lightning_camrobust.report.layout import arrange_charts
from lightning_camrobust.report.naming import own_key, regrouped
from lightning_camrobust.report.portrait import draw_portrait
from lightning_camrobust.report.publication import Publication
from lightning_camrobust.summary import make_report, per_image_similarity
from lightning_camrobust.types import Comparison
from tests.unit.test_tiles import make_panel


def some_comparison(images=7, cells=6):
    similarity = torch.rand(images, cells, dtype=torch.float64)
    same, rankable = torch.rand(images, cells) > 0.4, torch.rand(images, cells) > 0.2
    same[0], same[1], rankable[2] = True, False, False
    return Comparison(torch.where(rankable, similarity, torch.nan), same, rankable)


def test_per_image_numbers_are_means_over_an_images_own_pairs():
    comparison, chosen = some_comparison(), [0, 2, 5]
    found = per_image_similarity(comparison, chosen)
    for image in range(7):
        for name, wanted in (("kept", True), ("changed", False)):
            pairs = [
                float(comparison.similarity[image, cell])
                for cell in chosen
                if comparison.rankable[image, cell] and bool(comparison.same_class[image, cell]) is wanted
            ]
            value = found[name][image]
            assert value is None if not pairs else value == pytest.approx(sum(pairs) / len(pairs), abs=1e-15)
    assert found["changed"][0] is None
    assert found["kept"][1] is None
    assert (found["kept"][2], found["changed"][2]) == (None, None)


def test_per_image_numbers_are_the_first_methods_and_plain():
    comparison = some_comparison(cells=4)
    cells = [("gradcam", "fog", 1), ("eigencam", "fog", 1), ("gradcam", "fog", 3), ("eigencam", "fog", 3)]
    report = make_report(comparison, cells)
    assert report["per_image"] == per_image_similarity(comparison, [0, 2])
    assert {type(value) for values in report["per_image"].values() for value in values} == {float, type(None)}


def make_publication(**settings):
    per_image = {"kept": [0.5, None, 1.0], "changed": [None, -0.25, 0.125]}
    return Publication({"stage": "val", "epoch": 3, "per_image": per_image}, **{"name": "cam", "step": 9, **settings})


def test_table_has_a_line_an_image_and_reads_back():
    rows = list(csv.DictReader(io.StringIO(make_publication().table)))
    assert rows == [
        {"image": "0", "kept": "0.5", "changed": ""},
        {"image": "1", "kept": "", "changed": "-0.25"},
        {"image": "2", "kept": "1.0", "changed": "0.125"},
    ]


def test_bins_hold_every_value():
    publication = make_publication()
    assert (publication.edges[0], publication.edges[-1]) == (-0.25, 1.0)
    counted = {
        name: np.histogram(each, bins=publication.edges)[0].sum() for name, each in publication.similarities.items()
    }
    assert counted == {"kept": 2, "changed": 2}


def test_test_runs_have_files_of_their_own():
    publication = make_publication()
    publication.report["stage"] = "test"
    assert publication.stem == "test-epoch=3-step=9"


def test_pictures_are_drawn_once_and_only_when_asked_for(monkeypatch):
    drawn = []
    monkeypatch.setattr("lightning_camrobust.report.publication.draw_portrait", lambda *given, **named: drawn.append(1))
    monkeypatch.setattr("lightning_camrobust.report.publication.draw_severity_curves", lambda report: None)
    monkeypatch.setattr("lightning_camrobust.report.publication.figure_to_pixels", lambda figure: figure)
    publication = make_publication(gallery=object())
    publication.report.update(num_images=3, robustness=0.5, consistency=1.0, responsiveness=0.5, flip_rate=None)
    assert not drawn
    assert publication.pictures is publication.pictures
    assert drawn == [1]


@pytest.mark.parametrize(("images", "copies"), [(1, 1), (2, 5), (3, 2), (4, 5)])
def test_portrait_has_room_for_everything(images, copies):
    from lightning_camrobust.gallery import Gallery

    clean = make_panel()
    noisy = [make_panel(same=False, similarity=0.25) for _ in range(copies - 1)]
    figure = draw_portrait(Gallery([[clean, *noisy] for _ in range(images)], "gradcam"), heading="Epoch 1 " * 20)
    pixels = figure_to_pixels(figure)
    height, width, _ = pixels.shape
    assert width == 700
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    assert len(boxes) == 2 * images * copies + 2
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    overlaps = [(one, other) for one in boxes for other in boxes if one is not other and one.overlaps(other)]
    assert not overlaps
    # Shown at half the size, a line is at least nine pixels high.
    assert min(text.get_fontsize() * figure.dpi / 72 / 2 for text in figure.texts) >= 9


def test_severity_curves_overlap_nothing():
    cells = [
        {"method": "gradcam", "perturbation": noise, "severity": severity, **dict.fromkeys(scores, 0.5)}
        for scores in [("robustness", "consistency", "flip_rate")]
        for noise in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "fog")
        for severity in (1, 3)
    ]
    cells[0]["robustness"] = None
    figure = draw_severity_curves({"pooled": [{"method": "gradcam"}], "cells": cells, "num_images": 4})
    assert figure_to_pixels(figure).shape[1] == 700
    renderer = figure.canvas.get_renderer()
    parts = [figure.legends[0], figure._suptitle, *(axes.title for axes in figure.axes)]
    boxes = [part.get_window_extent(renderer) for part in parts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    assert not [1 for one in boxes for other in boxes if one is not other and one.overlaps(other)]


def test_card_names_the_settings():
    from lightning_camrobust.report.card import describe_settings, write_card

    plan = make_plan(
        ("gradcam", "eigencam"), "fog", severities=(2, 4), similarity="spearman", target=3, multilabel=True
    )
    settings = describe_settings(plan, {"num_images": 12, "target_layer": "net.3"}, space=None)
    card = write_card(settings, name="probe", measure="spearman")
    for words in (
        "gradcam, eigencam (headline: gradcam)",
        "fog",
        "2, 4",
        "net.3",
        "12",
        "spearman",
        "each class decided",
    ):
        assert words in card
    assert "`val_probe_robustness`" in card
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {3, 4}
    # TensorBoard breaks lines where the text does, so a paragraph is one line.
    paragraphs = [each for each in card.split("\n\n") if not each.startswith("|")]
    assert not [each for each in paragraphs if "\n" in each.strip()]


def test_layout_has_one_chart_a_perturbation_and_one_line_a_severity():
    plan = make_plan(("gradcam", "eigencam"), ("fog", "jpeg"), severities=(1, 5))
    layout = arrange_charts(plan.cells, name="cam")
    assert list(layout) == ["cam: headline", "cam: robustness of gradcam", "cam: robustness of eigencam"]
    assert layout["cam: robustness of eigencam"] == {
        "fog": ["cam_robustness/eigencam/fog/1", "cam_robustness/eigencam/fog/5"],
        "jpeg": ["cam_robustness/eigencam/jpeg/1", "cam_robustness/eigencam/jpeg/5"],
    }


class TensorBoardLogger:
    group_separator, _prefix, LOGGER_JOIN_CHAR = ".", "run", "-"


class OwnLogger(TensorBoardLogger):
    """A user's subclass."""


class OtherLogger:
    """Nobody's."""


def test_destinations_are_found_by_the_name_of_a_parent():
    assert destination_of(OwnLogger()).__name__.endswith("report.tensorboard")
    assert destination_of(OtherLogger()) is None
    for module in destinations().values():
        assert callable(module.publish)
        assert callable(module.introduce)


def test_keys_follow_the_logger():
    assert regrouped(OwnLogger(), "a/b/1") == "a.b.1"
    assert own_key(OwnLogger(), "a/b/1") == "run-a.b.1"
    assert own_key(OtherLogger(), "a/b/1") == "a/b/1"


def test_looking_for_destinations_loads_no_logger_library():
    code = (
        "from lightning_camrobust.report.destinations import destinations; destinations(); import sys; "
        "print([name for name in ('wandb', 'mlflow', 'tensorboard', 'lightning', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_publisher_travels_without_its_loggers():
    publisher = Publisher(make_plan(), name="cam", arrange=True)
    logger = OtherLogger()
    publisher._introduced.add(logger)
    copy = pickle.loads(pickle.dumps(publisher))
    assert len(copy._introduced) == 0
    assert copy.layout == publisher.layout
    pickle.loads(pickle.dumps(CAMRobustnessCallback()))


def test_random_streams_survive_a_logger_that_draws():
    import random

    def draw(logger, what):
        random.random(), np.random.rand(), torch.rand(1)

    streams = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    Publisher(make_plan(), name="cam", arrange=True)._try(OtherLogger(), draw, None)
    assert random.getstate() == streams[0]
    assert np.random.get_state()[1].tolist() == streams[1]
    assert torch.equal(torch.get_rng_state(), streams[2])


def test_the_users_own_step_wins():
    from lightning_camrobust.trainers import logged_step

    loop = types.SimpleNamespace(epoch_loop=types.SimpleNamespace(_batches_that_stepped=7))
    results = types.SimpleNamespace(metrics=lambda on_step: {"log": {"step": torch.tensor(2.0)}})
    assert logged_step(types.SimpleNamespace(global_step=8, fit_loop=loop, _results=results)) == 2
    results = types.SimpleNamespace(metrics=lambda on_step: {"log": {}})
    assert logged_step(types.SimpleNamespace(global_step=8, fit_loop=loop, _results=results)) == 7


def test_layout_patterns_match_one_key_only():
    import re

    from lightning_camrobust.report import tensorboard

    written = []
    writer = types.SimpleNamespace(add_custom_scalars=written.append)
    logger = types.SimpleNamespace(experiment=writer, _prefix="a+b", LOGGER_JOIN_CHAR="-")
    tensorboard.arrange(logger, {"cam: headline": {"robustness": ["val_cam_robustness"]}})
    (pattern,) = written[0]["cam: headline"]["robustness"][1]
    assert re.match(pattern, "a+b-val_cam_robustness")
    assert not re.match(pattern, "a+b-val_cam_robustness_smoothed")


def test_settings_of_every_kind_fit_the_hparams_table():
    from argparse import Namespace

    from lightning_camrobust.report.tensorboard import _flat

    found = _flat(Namespace(lr=0.1, net={"depth": 2, "act": torch.nn.ReLU()}, names=["a"], on=True, none=None))
    assert found == {"lr": 0.1, "net/depth": 2, "net/act": "ReLU()", "names": "['a']", "on": True, "none": "None"}
