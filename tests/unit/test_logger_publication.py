"""What a run has to show, and which file shows it to whom."""

import csv
import dataclasses
import io
import pickle
import subprocess
import sys
import types
from fractions import Fraction

import numpy as np
import pytest
import torch

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.gallery import Gallery, measure_name, picture_noises
from lightning_camrobust.heldout import HeldOutImages
from lightning_camrobust.plan import make_plan
from lightning_camrobust.publishing import Publisher
from lightning_camrobust.report.card import describe_settings, write_card
from lightning_camrobust.report.curves import draw_severity_curves
from lightning_camrobust.report.destinations import destination_of, destinations
from lightning_camrobust.report.drawing import draw_gallery, figure_to_pixels, png_bytes
from lightning_camrobust.report.layout import arrange_charts
from lightning_camrobust.report.naming import own_key, regrouped, unused_stem
from lightning_camrobust.report.portrait import draw_portrait
from lightning_camrobust.report.publication import Publication
from lightning_camrobust.session import ProbeSession
from lightning_camrobust.summary import make_report, per_image_similarity, scores_to_log
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
    report = {"stage": "val", "epoch": 3, "per_image": per_image}
    return Publication(report, make_plan(), **{"name": "cam", "step": 9, **settings})


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


def test_test_runs_have_keys_and_files_of_their_own():
    publication = make_publication(in_fit=False)
    publication.report.update(stage="test", num_images=3, target_layer="net.6")
    # After a fit the trainer's epoch is one ahead, and `trainer.test` may have loaded any checkpoint.
    assert (publication.folder, publication.stem) == ("test_cam_robustness", "step=9")
    assert "`test_cam_flip_rate`" in publication.card
    assert "val_" not in publication.card
    cell = {"method": "gradcam", "perturbation": "fog", "severity": 1, "flip_rate": 0.5}
    report = {"cells": [{**cell, "robustness_vacuous": 0.25, "consistency_vacuous": 0.75}], "robustness": 0.5}
    assert list(scores_to_log(report, stage="test", name="cam")) == [
        "test_cam_robustness", "test_cam_robustness/gradcam/fog/1", "test_cam_consistency/gradcam/fog/1",
        "test_cam_flip_rate/gradcam/fog/1",
    ]  # fmt: skip
    assert "cam_robustness/gradcam/fog/1" in scores_to_log(report, stage="val", name="cam")


@pytest.mark.parametrize(
    ("stage", "in_fit", "words"),
    [("val", True, "Epoch 3, all"), ("val", False, "Validation, all"), ("test", False, "Test, all")],
)
def test_headings_say_which_run_it_was(monkeypatch, stage, in_fit, words):
    headings = []
    place = "lightning_camrobust.report.publication."
    monkeypatch.setattr(f"{place}draw_portrait", lambda gallery, *, heading: headings.append(heading))
    monkeypatch.setattr(f"{place}draw_severity_curves", lambda report: None)
    monkeypatch.setattr(f"{place}figure_to_pixels", lambda figure: figure)
    publication = make_publication(gallery=object(), in_fit=in_fit)
    publication.report.update(
        stage=stage, num_images=3, robustness=0.5, consistency=1.0, responsiveness=0.5, flip_rate=None
    )
    assert set(publication.pictures) == {"severity", "images"}
    assert headings[0].startswith(words)


def test_runs_that_share_epoch_and_step_share_no_file():
    paths = []
    for _ in range(12):
        paths.append(f"a/b/{unused_stem('epoch=1-step=2', paths)}-per-image.csv")
    assert len(set(paths)) == 12
    assert paths[0].endswith("/epoch=1-step=2-per-image.csv")
    assert paths[11].endswith("/epoch=1-step=2-12-per-image.csv")


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


def boxes_of_texts(figure):
    """Render a figure, and list the boxes of its texts, which lie inside it and apart from each other."""
    height, width, _ = figure_to_pixels(figure).shape
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in figure.texts]
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    assert not [(one, other) for one in boxes for other in boxes if one is not other and one.overlaps(other)]
    return boxes


@pytest.mark.parametrize(("images", "copies"), [(1, 1), (2, 5), (3, 2), (4, 5)])
def test_portrait_has_room_for_everything(images, copies):
    clean = make_panel()
    noisy = [make_panel(same=False, similarity=0.25) for _ in range(copies - 1)]
    figure = draw_portrait(Gallery([[clean, *noisy] for _ in range(images)], "gradcam"), heading="Epoch 1 " * 20)
    assert figure_to_pixels(figure).shape[1] == 700
    assert len(boxes_of_texts(figure)) == 2 * images * copies + 2
    # Shown at half the size, a line is at least nine pixels high.
    assert min(text.get_fontsize() * figure.dpi / 72 / 2 for text in figure.texts) >= 9


SIMILARITIES = (
    "rbo",
    "rbo_corrected",
    "spearman",
    "kendall",
    "topk",
    "cosine",
    "l1",
    "normalised_l1",
    "ssim",
    "relative_l2",
)


@pytest.mark.parametrize("draw", [draw_portrait, draw_gallery])
@pytest.mark.parametrize("similarity", [*SIMILARITIES, "of a user who likes long names"])
def test_captions_fit_whatever_maps_are_compared_by(similarity, draw):
    measure = measure_name(make_plan(similarity=similarity)) if similarity in SIMILARITIES else similarity
    clean, noisy = make_panel(), make_panel(same=False, similarity=-0.12)
    clean = dataclasses.replace(clean, predicted=1283)
    noisy = dataclasses.replace(noisy, predicted=1283, title="my_scanner_banding_artefact 3")
    figure = draw(Gallery([[clean, noisy], [clean, noisy]], "gradcam", measure), heading="Epoch 1")
    boxes_of_texts(figure)
    words = " ".join(text.get_text() for text in figure.texts)
    assert words.count(f"{measure} -0.12") == 2
    if similarity in SIMILARITIES:
        assert min(text.get_fontsize() for text in figure.texts) > 5


def curves_of(names, **scores):
    cells = [
        {"method": "gradcam", "perturbation": noise, "severity": severity}
        | {"robustness": 0.5, "consistency": 0.5, "flip_rate": 0.5, **scores}
        for noise in names
        for severity in (1, 3)
    ]
    cells[0]["robustness"] = None
    return draw_severity_curves({"pooled": [{"method": "gradcam"}], "cells": cells, "num_images": 4})


FIVE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "fog")


@pytest.mark.parametrize("names", [FIVE, [f"my_scanner_banding_{index}" for index in range(40)]])
def test_severity_curves_overlap_nothing(names):
    figure = curves_of(names)
    height, width, _ = figure_to_pixels(figure).shape
    assert width == 700
    renderer = figure.canvas.get_renderer()
    parts = [figure.legends[0], figure._suptitle, *(axes.title for axes in figure.axes)]
    boxes = [part.get_window_extent(renderer) for part in parts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    assert not [1 for one in boxes for other in boxes if one is not other and one.overlaps(other)]
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(names)


@pytest.mark.parametrize(("low", "high"), [(-0.4, -0.52), (-12.25, 1.5), (0.25, 0.5)])
def test_no_value_lies_outside_of_the_curves(low, high):
    figure = curves_of(["fog"], consistency=low, robustness=high)
    figure_to_pixels(figure)
    for axes in figure.axes:
        (line,) = axes.lines
        bottom, top = axes.get_ylim()
        assert bottom < min(0.0, *line.get_ydata())
        assert top > max(1.0, *line.get_ydata())
        labels = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        ticks = [label.get_window_extent() for place, label in labels if bottom <= place <= top]
        assert min(box.x0 for box in ticks) >= 0


def test_pictures_are_the_same_whatever_the_user_set():
    import matplotlib as mpl
    import matplotlib.style

    panels = [make_panel(), make_panel(same=False, similarity=0.25)]
    gallery = Gallery([panels], "gradcam")

    def draw():
        figures = (draw_portrait(gallery, heading="a $ b"), draw_gallery(gallery, heading="c"), curves_of(FIVE))
        return [png_bytes(figure_to_pixels(figure)) for figure in figures]

    plain = draw()
    ours = {"text.usetex": True, "figure.constrained_layout.use": True, "image.origin": "lower", "font.size": 20}
    with matplotlib.style.context(["dark_background", ours]):
        before = dict(mpl.rcParams)
        assert draw() == plain
        assert dict(mpl.rcParams) == before


def small_session(plan, chunk_size, count):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    torch.manual_seed(3)
    for each in network.parameters():
        torch.nn.init.normal_(each)
    images = torch.rand(6, 1, 8, 8)
    session = ProbeSession(plan, network.eval(), HeldOutImages(6, chunk_size), gallery_size=count)
    session.take(images, last=True)
    session.finish()
    return session.gallery, images


@pytest.mark.parametrize(("chunk_size", "count"), [(1, 4), (2, 5), (6, 4), (4, 9)])
def test_a_gallery_may_need_several_chunks(chunk_size, count):
    plan = make_plan(perturbations=("gaussian_noise", "fog"), segmenter="grid")
    gallery, images = small_session(plan, chunk_size, count)
    assert len(gallery.rows) == min(count, 6)
    for index, (clean, *noisy) in enumerate(gallery.rows):
        torch.testing.assert_close(clean.pixels, images[index])
        assert [panel.title for panel in noisy] == ["gaussian_noise 3", "fog 3"]


def test_a_gallery_survives_running_out_of_memory(monkeypatch):
    from lightning_camrobust import session

    real = session.probe

    def tight(model, images, **settings):
        if len(images) > 2:
            raise RuntimeError("can't allocate memory")
        return real(model, images, **settings)

    monkeypatch.setattr(session, "probe", tight)
    with pytest.warns(UserWarning, match="out of memory"):
        gallery, images = small_session(make_plan(segmenter="grid"), 6, 5)
    for index, row in enumerate(gallery.rows):
        torch.testing.assert_close(row[0].pixels, images[index])
    assert len(gallery.rows) == 5


def test_a_picture_of_some_perturbations_says_so():
    panels = [make_panel(), *(make_panel(similarity=0.5) for _ in range(4))]
    for total, said in ((21, True), (4, False), (None, False)):
        for draw in (draw_portrait, draw_gallery):
            figure = draw(Gallery([panels], "gradcam", num_perturbations=total))
            words = " ".join(" ".join(text.get_text() for text in figure.texts).split())
            assert ("4 of 21 perturbations are shown" in words) is said
    plan = make_plan(perturbations=("fog", "frost", "snow", "jpeg", "contrast"), segmenter="grid")
    assert len(picture_noises(plan)) == 4
    assert small_session(plan, 6, 1)[0].num_perturbations == 5


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_card_speaks_of_the_similarity_that_was_used(similarity):
    plan = make_plan(similarity=similarity)
    card = write_card({}, plan, name="cam")
    ranks = similarity in ("rbo", "rbo_corrected", "spearman", "kendall", "topk")
    assert ("compares the two rankings" in card) is ranks
    assert ("compares the two maps themselves" in card) is not ranks
    assert ("0.05" in card and "0.25" in card) is (similarity == "rbo")
    assert "docs/" not in card
    own = dataclasses.replace(plan.reading, similarity=lambda clean, noisy, *, present: None)
    assert "two rows of scores" in write_card({}, dataclasses.replace(plan, reading=own), name="cam")


def test_a_setting_of_several_lines_stays_one_row():
    card = write_card({"compared by": "Own(\n  p=1 | 2,\n)", "images": "3"}, make_plan(), name="cam")
    assert "\n| compared by | Own( p=1 / 2, ) |\n| images | 3 |" in card


def test_card_names_the_settings():
    plan = make_plan(
        ("gradcam", "eigencam"), "fog", severities=(2, 4), similarity="spearman", target=3, multilabel=True
    )
    settings = describe_settings(plan, {"num_images": 12, "target_layer": "net.3"}, space=None)
    card = write_card(settings, plan, name="probe")
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


def test_a_publisher_travels():
    publisher = Publisher(make_plan(), name="cam", arrange=True)
    assert pickle.loads(pickle.dumps(publisher)).layout == publisher.layout
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


def logged(value, *, name="step", loader=None, **settings):
    meta = {"name": name, "logger": True, "on_epoch": True, "on_step": False, "add_dataloader_idx": False, **settings}
    meta = types.SimpleNamespace(**meta, dataloader_idx=loader)
    return types.SimpleNamespace(meta=meta, _computed=None if value is None else torch.tensor(value))


@pytest.mark.parametrize(
    ("results", "step"),
    [
        ([logged(2.0)], 2),
        ([logged(2.0, loader=1), logged(3.0, loader=0)], 3),
        ([logged(2.0, loader=0), logged(3.0), logged(4.0), logged(5.0, loader=1)], 4),
        ([], 7),
        ([logged(2.0, name="val_loss"), logged(None), logged(2.0, logger=False), logged(2.0, on_epoch=False)], 7),
        ([logged(2.0, loader=0, add_dataloader_idx=True), logged(2.0, on_step=True)], 7),  # both get another name
    ],
)
def test_the_users_own_step_wins(results, step):
    from lightning_camrobust.trainers import logged_step

    loop = types.SimpleNamespace(epoch_loop=types.SimpleNamespace(_batches_that_stepped=7))
    results = dict(enumerate(results))
    assert logged_step(types.SimpleNamespace(global_step=8, fit_loop=loop, _results=results)) == step


def test_mlflow_overwrites_no_artifact_of_another_run():
    from lightning_camrobust.report import mlflow

    written = {}
    client = types.SimpleNamespace(
        log_text=lambda run, text, path: written.setdefault(path, text),
        log_image=lambda run, image, path: written.setdefault(path, image),
        list_artifacts=lambda run, folder: [types.SimpleNamespace(path=each) for each in written],
    )
    logger = types.SimpleNamespace(experiment=client, run_id="1", _prefix="a")
    for robustness in (0.25, 0.75):
        publication = make_publication()
        publication.report["per_image"] = {"kept": [robustness], "changed": [None]}
        mlflow.publish(logger, publication)
    assert written == {
        "a-cam_robustness/epoch=3-step=9-per-image.csv": "image,kept,changed\n0,0.25,\n",
        "a-cam_robustness/epoch=3-step=9-2-per-image.csv": "image,kept,changed\n0,0.75,\n",
    }


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
    found = _flat({"width": np.int64(3), "lr": np.float32(0.5), "on": np.bool_(True), "share": Fraction(1, 4)})
    assert found == {"width": 3, "lr": 0.5, "on": True, "share": 0.25}
    assert [type(value) for value in found.values()] == [int, float, bool, float]
