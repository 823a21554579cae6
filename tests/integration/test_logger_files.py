"""What each logger's own reader finds after a fit: scalars, pictures, histograms, texts, layouts."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.compare.rbo import RankBiasedOverlap
from tests.integration.test_callback import make_callback, make_trainer
from tests.networks import DigitModule, digit_loader, trained

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


class SavedModule(DigitModule):
    def __init__(self, lr=0.05, shape=None):
        super().__init__(lr)
        self.save_hyperparameters()


def fit(folder, logger, *callbacks, module=None, epochs=1, **settings):
    """Train a network that knows digits a little further, so that some predictions change and others do not."""
    module = trained(SavedModule(shape={"depth": 2})) if module is None else module
    callbacks = callbacks or (make_callback(log_images=2),)
    trainer = make_trainer(folder, *callbacks, logger=logger, max_epochs=epochs, log_every_n_steps=2, **settings)
    trainer.fit(module, digit_loader(count=48), digit_loader(200, 40))
    return trainer, callbacks[0]


def events(folder, files=1):
    paths = sorted(Path(folder).rglob("events.out.*"))
    # One writer and no run folder of its own; TensorBoard begins a file for each fit, validation or test.
    assert len(paths) == files
    (run,) = {path.parent for path in paths}
    everything = dict.fromkeys(("images", "tensors", "histograms", "scalars"), 0)
    found = EventAccumulator(str(run), size_guidance=everything)
    found.Reload()
    return found


def times_written(folder, tag):
    """Count in the file itself: the accumulator keeps the first of some tags only."""
    read = [EventFileLoader(str(file)).Load() for file in Path(folder).rglob("events.out.*")]
    return sum(value.tag == tag for each in read for event in each for value in event.summary.value)


def decoded(content):
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert pixels.shape[1] == 700
    assert pixels.std() > 20  # not blank
    return pixels


def layout_of(found):
    # The tab shows the last layout of a run.
    return Layout.FromString(found.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])


def columns_of(found):
    content = found.SummaryMetadata("_hparams_/experiment").plugin_data.content
    return [each.name.tag for each in HParamsPluginData.FromString(content).experiment.metric_infos]


@pytest.fixture(scope="module")
def two_loggers(tmp_path_factory):
    """Two epochs with TensorBoard and CSV at once."""
    folder = tmp_path_factory.mktemp("two")
    loggers = [
        TensorBoardLogger(folder, name="tb", prefix="run", default_hp_metric=False),
        CSVLogger(folder, name="csv"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer, callback = fit(folder, loggers, epochs=2)
    return folder, trainer, callback


def test_tensorboard_has_pictures_at_the_step_of_the_scalars(two_loggers):
    folder, _, callback = two_loggers
    found = events(folder / "tb")
    points = found.Scalars("run-val_cam_robustness")
    assert [point.step for point in points] == [2, 5]
    assert points[-1].value == pytest.approx(callback.report["robustness"], abs=1e-6)
    for tag in ("run-cam_robustness/images", "run-cam_robustness/severity"):
        pictures = found.Images(tag)
        assert [each.step for each in pictures] == [2, 5]
        for each in pictures:
            assert decoded(each.encoded_image_string).shape[:2] == (each.height, each.width)
    assert all(tag.startswith("run-") for tag in found.Tags()["images"] + found.Tags()["histograms"])


def test_tensorboard_counts_every_image_in_its_histograms(two_loggers):
    folder, _, callback = two_loggers
    found = events(folder / "tb")
    for name in ("kept", "changed"):
        values = [each for each in callback.report["per_image"][name] if each is not None]
        last = found.Histograms(f"run-cam_robustness/per_image_{name}")[-1]
        assert last.step == 5
        assert last.histogram_value.num == len(values) > 0
        assert sum(last.histogram_value.bucket) == len(values)
        assert last.histogram_value.sum == pytest.approx(sum(values))


def test_tensorboard_layout_finds_its_scalars_and_is_written_once(two_loggers):
    folder, _, _ = two_loggers
    found = events(folder / "tb")
    assert len(found.Tensors("custom_scalars__config__")) == 1
    headline, cells = layout_of(found).category
    assert [chart.title for chart in cells.chart] == list(NOISES)
    scalars = found.Tags()["scalars"]
    for category, lines in ((headline, None), (cells, 2)):
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                assert sum(bool(re.match(pattern, tag)) for tag in scalars) == 1, pattern
            assert lines is None or len(chart.multiline.tag) == lines


def test_tensorboard_explains_the_numbers_once(two_loggers):
    folder, _, _ = two_loggers
    (text,) = events(folder / "tb").Tensors("run-cam_robustness/about/text_summary")
    words = text.tensor_proto.string_val[0].decode()
    assert "`val_cam_robustness` (RM)" in words
    assert 'page "Reading the numbers"' in words
    assert "| target layer | net.6 |" in words


def test_hparams_compare_by_the_headline_without_a_made_up_point(two_loggers):
    folder, _, _ = two_loggers
    found = events(folder / "tb")
    assert columns_of(found)[:2] == ["run-val_cam_robustness", "run-val_cam_consistency"]
    assert times_written(folder, "_hparams_/experiment") == 1
    start = HParamsPluginData.FromString(found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    assert start.session_start_info.hparams["lr"].number_value == 0.05
    assert start.session_start_info.hparams["shape/depth"].number_value == 2
    assert not [tag for tag in found.Tags()["scalars"] if "hp_metric" in tag]
    assert all(point.step > 0 for tag in found.Tags()["scalars"] for point in found.Scalars(tag))


def test_csv_has_files_beside_its_metrics(two_loggers):
    folder, trainer, callback = two_loggers
    logs = Path(trainer.loggers[1].log_dir)
    names = {f"epoch={epoch}-step={step}-{what}" for epoch, step in ((0, 2), (1, 5)) for what in
             ("images.png", "severity.png", "per-image.csv")}  # fmt: skip
    assert {each.name for each in (logs / "cam_robustness").iterdir()} == {*names, "about.md"}
    decoded((logs / "cam_robustness" / "epoch=1-step=5-images.png").read_bytes())
    with (logs / "cam_robustness" / "epoch=1-step=5-per-image.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("kept", "changed"):
        assert [float(row[name]) if row[name] else None for row in rows] == callback.report["per_image"][name]
    with (logs / "metrics.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["val_cam_robustness"]]
    assert steps == ["2", "5"]


def test_a_test_run_has_keys_of_its_own(tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path, name="csv")]
    trainer, callback = fit(tmp_path, loggers)
    trainer.test(trainer.lightning_module, digit_loader(600, 40), verbose=False)
    loggers[0].finalize("success")
    found = events(tmp_path / "tb", files=2)
    cell = "robustness/gradcam/shot_noise/5"
    # A validation's curves and pictures have nothing of the test, and the test's are where the README says.
    for kind, read, names in (
        ("scalars", found.Scalars, (cell, cell.replace("robustness", "flip_rate"))),
        ("images", found.Images, ("robustness/images", "robustness/severity")),
        ("histograms", found.Histograms, ("robustness/per_image_kept",)),
        ("tensors", found.Tensors, ("robustness/about/text_summary",)),
    ):
        for name in names:
            assert [point.step for point in read(f"cam_{name}")] == [2]
            assert [point.step for point in read(f"test_cam_{name}")] == [3]
        assert not [tag for tag in found.Tags()[kind] if "cam_" in tag and not re.match("(val_|test_)?cam_", tag)]
    rows = {(each["perturbation"], each["severity"]): each for each in callback.report["cells"]}
    row = rows["shot_noise", 5]
    assert found.Scalars(f"test_cam_{cell}")[0].value == pytest.approx(row["robustness_vacuous"], abs=1e-6)
    logs = Path(loggers[1].log_dir)
    assert {each.name for each in (logs / "test_cam_robustness").iterdir()} == {
        "about.md", "step=3-images.png", "step=3-severity.png", "step=3-per-image.csv",
    }  # fmt: skip
    assert "`test_cam_robustness`" in (logs / "test_cam_robustness" / "about.md").read_text()
    assert len(list((logs / "cam_robustness").glob("*-per-image.csv"))) == 1


def test_pictures_have_the_users_own_step_with_two_loaders(tmp_path):
    class Own(DigitModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            if dataloader_idx == 0:
                self.log("step", 100.0 * (1 + self.current_epoch), add_dataloader_idx=False)

    loggers = [TensorBoardLogger(tmp_path), Noting(".")]
    trainer = make_trainer(tmp_path, make_callback(num_samples=4, log_images=1), logger=loggers, max_epochs=2)
    trainer.fit(Own(), digit_loader(count=48), [digit_loader(200, 16), digit_loader(300, 16)])
    found = events(tmp_path)
    for points in (found.Scalars("val_cam_robustness"), found.Images("cam_robustness/images")):
        assert [point.step for point in points] == [100, 200]
    steps = [step for row, step in loggers[1].rows if "cam_flip_rate.gradcam.shot_noise.5" in row]
    assert steps == [100, 200]


def test_validations_of_one_step_overwrite_nothing(tmp_path):
    logger = CSVLogger(tmp_path)
    callback = make_callback(num_samples=4, log_images=1)
    trainer = make_trainer(
        tmp_path, callback, logger=logger, max_epochs=1, accumulate_grad_batches=4, val_check_interval=1
    )
    trainer.fit(trained(), digit_loader(count=64), digit_loader(200, 16))
    assert len(callback.history) == 4
    folder = Path(logger.log_dir, "cam_robustness")
    tables = sorted(each.name for each in folder.glob("*-per-image.csv"))
    assert len(tables) == len(list(folder.glob("*-images.png"))) == 4
    assert tables[0] == "epoch=0-step=0-2-per-image.csv"


def test_two_models_validated_with_one_logger_keep_their_files(tmp_path):
    logger, found = CSVLogger(tmp_path), []
    for module in (trained(), DigitModule()):
        # A callback and a trainer of its own for each, as in two cells of a notebook.
        callback = make_callback(num_samples=8, log_images=0)
        make_trainer(tmp_path, callback, logger=logger).validate(module, digit_loader(200, 16), verbose=False)
        found.append(callback.report["per_image"])
    folder = Path(logger.log_dir, "cam_robustness")
    for name, wanted in zip(("step=0-per-image.csv", "step=0-2-per-image.csv"), found, strict=True):
        with (folder / name).open() as file:
            kept = [float(row["kept"]) if row["kept"] else None for row in csv.DictReader(file)]
        assert kept == wanted["kept"]
    assert found[0] != found[1]


def test_a_new_callback_on_an_old_logger_writes_nothing_twice(tmp_path):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    few = {"num_samples": 4, "log_images": 0}
    for settings in (few, few, {**few, "severities": 5}):
        fit(tmp_path, logger, make_callback(**settings))
    # Other settings make another layout and another card, and the last of them are shown.
    assert times_written(tmp_path, "custom_scalars__config__") == 2
    assert times_written(tmp_path, "cam_robustness/about/text_summary") == 2
    assert times_written(tmp_path, "_hparams_/experiment") == 1


def test_a_logger_that_cannot_be_hashed_gets_everything(tmp_path):
    class Comparable(CSVLogger):
        def __eq__(self, other):
            return self is other

    logger = Comparable(tmp_path)
    fit(tmp_path, logger, make_callback(num_samples=4, log_images=0))  # a warning would be an error
    assert (Path(logger.log_dir) / "cam_robustness" / "about.md").exists()


def test_columns_are_named_by_a_fit_after_a_validation(tmp_path):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    callback = make_callback(num_samples=4, log_images=0)
    make_trainer(tmp_path, callback, logger=logger).validate(SavedModule(), digit_loader(200, 16), verbose=False)
    fit(tmp_path, logger, callback)
    assert columns_of(events(tmp_path, files=2))[0] == "val_cam_robustness"


def test_history_stays_small(two_loggers):
    _, _, callback = two_loggers
    assert len(callback.report["per_image"]["kept"]) == 24
    assert all(not isinstance(value, (list, dict)) for row in callback.history for value in row.values())


def test_csv_writes_to_other_file_systems(tmp_path):
    import fsspec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, CSVLogger("memory://run"), make_callback(num_samples=4, log_images=1))
    found = fsspec.filesystem("memory").glob("**/cam_robustness/*")
    assert [Path(each).name for each in found] == [
        "about.md", "epoch=0-step=2-images.png", "epoch=0-step=2-per-image.csv", "epoch=0-step=2-severity.png",
    ]  # fmt: skip


def test_the_users_own_layout_wins_and_there_is_a_switch(tmp_path):
    class Own(SavedModule):
        def on_train_start(self):
            self.logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["val_loss"]]}})

    few = {"num_samples": 4, "log_images": 0}
    fit(tmp_path, TensorBoardLogger(tmp_path / "own"), make_callback(**few), module=Own())
    assert [each.title for each in layout_of(events(tmp_path / "own")).category] == ["mine"]
    off = TensorBoardLogger(tmp_path / "off", default_hp_metric=False)
    fit(tmp_path, off, make_callback(arrange_tensorboard=False, **few))
    tags = events(tmp_path / "off").Tags()["tensors"]
    assert "custom_scalars__config__" not in tags
    assert "_hparams_/experiment" not in tags
    assert "cam_robustness/about/text_summary" in tags


def test_two_callbacks_share_one_layout_and_default_hp_metric_is_left_alone(tmp_path):
    few = {"num_samples": 4, "log_images": 0}
    fit(
        tmp_path,
        TensorBoardLogger(tmp_path),
        make_callback(**few),
        make_callback(name="fog", perturbations="fog", **few),
    )
    found = events(tmp_path)
    assert len(found.Tensors("custom_scalars__config__")) == 1
    titles = [each.title for each in layout_of(found).category]
    assert titles == ["cam: headline", "cam: robustness of gradcam", "fog: headline", "fog: robustness of gradcam"]
    assert columns_of(found) == ["hp_metric"]
    assert times_written(tmp_path, "_hparams_/experiment") == 1
    assert {"cam_robustness/about/text_summary", "fog_robustness/about/text_summary"} <= set(found.Tags()["tensors"])
    assert found.Tags()["images"] == []


class Noting(Logger):
    """A logger that nobody knows, with a separator of its own."""

    def __init__(self, separator):
        super().__init__()
        self.separator, self.rows = separator, []

    name = version = "noting"

    @property
    def group_separator(self):
        return self.separator

    def log_metrics(self, metrics, step=None):
        self.rows.append((dict(metrics), step))

    def log_hyperparams(self, *given, **named):
        """Not of interest."""


class Strict(Noting):
    """It takes what Lightning's loggers are given: keywords."""

    def log_metrics(self, *, metrics, step=None):
        super().log_metrics(metrics, step)


class Sulking(Noting):
    """It does not say how it separates groups."""

    @property
    def group_separator(self):
        raise OSError("no connection")


def test_unknown_loggers_get_all_scalars_and_no_picture_is_drawn(tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise AssertionError("a figure was built")

    monkeypatch.setattr("lightning_camrobust.report.publication.draw_portrait", refuse)
    logger = Noting("/")
    fit(tmp_path, logger)
    found = {key for row, _ in logger.rows for key in row}
    assert {"val_cam_robustness", "cam_robustness/gradcam/shot_noise/5"} <= found
    assert {step for _, step in logger.rows} == {2}


def test_separators_are_each_loggers_own_and_monitors_keep_theirs(tmp_path):
    loggers = [Strict("."), Noting("/")]
    trainer, _ = fit(tmp_path, loggers)
    key = "cam_flip_rate/gradcam/shot_noise/5"
    assert key in trainer.callback_metrics
    for logger in loggers:
        own = key.replace("/", logger.separator)
        ((value, step),) = [(row[own], step) for row, step in logger.rows if own in row]
        assert (value, step) == (float(trainer.callback_metrics[key]), 2)
        assert all(row["epoch"] == 0 for row, _ in logger.rows)
        assert sum("val_cam_robustness" in row for row, _ in logger.rows) == 1
    assert not [key for row, _ in loggers[0].rows for key in row if "/" in key]


def test_a_destination_that_fails_is_named_once_and_training_goes_on(tmp_path, monkeypatch):
    def fail(*given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_camrobust.report.csv._folder", fail)
    loggers = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path / "tb")]
    with pytest.warns(UserWarning, match="CSVLogger: OSError.*No space left") as told:
        trainer, callback = fit(tmp_path, loggers, make_callback(num_samples=4, log_images=1), epochs=2)
    assert len([each for each in told if "could not write" in str(each.message)]) == 1
    assert len(callback.history) == 2
    assert trainer.state.finished
    assert len(events(tmp_path / "tb").Images("cam_robustness/images")) == 2


def test_a_picture_that_fails_costs_no_number(tmp_path, monkeypatch):
    def fail(*given, **named):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr("lightning_camrobust.report.publication.draw_portrait", fail)
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tb")]
    with pytest.warns(UserWarning, match="latex could not be found"):
        fit(tmp_path, loggers, make_callback(num_samples=8, log_images=1))
    assert len(list((tmp_path / "csv").rglob("*-per-image.csv"))) == 1
    assert "cam_robustness/per_image_kept" in events(tmp_path / "tb").Tags()["histograms"]


def test_nothing_of_the_users_can_end_training_while_loggers_are_told(tmp_path):
    @dataclass(frozen=True)
    class Nameless(RankBiasedOverlap):
        def __repr__(self):
            raise ValueError("no words")

    loggers = [CSVLogger(tmp_path), Sulking("/")]
    callback = make_callback(similarity=Nameless(), num_samples=4, log_images=1)
    with pytest.warns(UserWarning, match="could not write") as told:
        trainer, _ = fit(tmp_path, loggers, callback)
    assert trainer.state.finished
    words = [str(each.message) for each in told]
    for part in ("CSVLogger: ValueError: no words", "Sulking: OSError: no connection"):
        assert sum(part in each for each in words) == 1
    # Only the card needs those words.
    names = {each.name for each in Path(loggers[0].log_dir, "cam_robustness").iterdir()}
    assert names == {f"epoch=0-step=2-{what}" for what in ("images.png", "severity.png", "per-image.csv")}
    assert any("cam_robustness/gradcam/shot_noise/5" in row for row, _ in loggers[1].rows)


def test_sanity_check_and_validate_alone(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    callback = make_callback(num_samples=4, log_images=1)
    trainer = make_trainer(tmp_path, callback, logger=logger)
    trainer.validate(trained(SavedModule()), digit_loader(200, 40), verbose=False)
    logger.finalize("success")
    found = events(tmp_path)
    assert [each.step for each in found.Images("cam_robustness/images")] == [0]
    assert "custom_scalars__config__" not in found.Tags()["tensors"]


def test_the_other_package_writes_as_well(tmp_path):
    other = pytest.importorskip("pytorch_lightning")

    class Module(other.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = trained().net

        def forward(self, images):
            return self.net(images)

        def validation_step(self, batch, batch_idx):
            """Only the callback measures."""

    loggers = [other.loggers.TensorBoardLogger(tmp_path / "tb"), other.loggers.CSVLogger(tmp_path / "csv")]
    trainer = other.Trainer(
        callbacks=[make_callback(num_samples=4, log_images=1)], logger=loggers, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.validate(Module(), digit_loader(200, 16), verbose=False)
    for logger in loggers:
        logger.finalize("success")
    assert "cam_robustness/images" in events(tmp_path / "tb").Tags()["images"]
    assert len(list((tmp_path / "csv").rglob("*-images.png"))) == 1


def run_in_own_process(folder, case):
    command = [sys.executable, "-m", "tests.integration.logger_run", str(folder), case]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=480, check=False,
        env={**os.environ, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
    )  # fmt: skip


def test_only_the_first_process_writes_and_all_know_the_same(tmp_path):
    done = run_in_own_process(tmp_path, "ddp")
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [each["written"] for each in ranks] == [2, 0]
    assert len(list(tmp_path.rglob("*-images.png"))) == 1
    assert "cam_robustness/images" in events(tmp_path).Tags()["images"]
    # One process has the very numbers of two.
    callback = CAMRobustnessCallback(segmenter="grid", num_samples=24, chunk_size=8, mean=0.0, std=1.0)
    make_trainer(tmp_path, callback).validate(trained(), digit_loader(200, 33, batch_size=4), verbose=False)
    assert ranks[0]["per_image"] == ranks[1]["per_image"] == callback.report["per_image"]
    assert any(value is not None for value in callback.report["per_image"]["changed"])


@pytest.fixture(scope="module")
def four_loggers(tmp_path_factory):
    """Two epochs with W&B, MLflow, CSV and TensorBoard at once, in a process of their own."""
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("four")
    done = run_in_own_process(folder, "all")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, torch.load(folder / "told.pt")


def wandb_records(content):
    """Take apart a .wandb file: seven bytes, then blocks of 32 KiB with pieces of records, as in a LevelDB log."""
    place, begun = 7, b""
    while place + 7 <= len(content):
        left = -place % 2**15
        if 0 < left < 7:  # too little for a piece's head
            place += left
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        begun += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield begun
            begun = b""


def wandb_rows(folder):
    """Read the history of a run that was never sent: wandb's own records, for which newer versions have no reader."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.rglob("*.wandb")
    records = [wandb_internal_pb2.Record.FromString(each) for each in wandb_records(file.read_bytes())]
    rows = []
    for items in [each.history.item for each in records if each.WhichOneof("record_type") == "history"]:
        row = {}
        for item in items:
            first, *rest = item.nested_key or [item.key]
            place = row.setdefault(first, {}) if rest else row
            place[rest[0] if rest else first] = json.loads(item.value_json)
        rows.append(row)
    return file.parent / "files", rows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_reads_back_pictures_histograms_and_the_card(four_loggers):
    folder, told = four_loggers
    files, rows = wandb_rows(folder)
    shown = [row for row in rows if "run-cam_robustness/images" in row]
    scored = [row for row in rows if "run-val_cam_robustness" in row]
    assert [row["trainer/global_step"] for row in shown] == [row["trainer/global_step"] for row in scored] == [2, 5]
    assert scored[-1]["run-val_cam_robustness"] == pytest.approx(told["report"]["robustness"])
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    for row in shown:
        for key in ("run-cam_robustness/images", "run-cam_robustness/severity"):
            decoded((files / row[key]["filenames"][0]).read_bytes())
    counted = [row for row in rows if "run-cam_robustness/per_image_kept" in row]
    assert [row["trainer/global_step"] for row in counted] == [2, 5]
    for name, values in told["report"]["per_image"].items():
        histogram = counted[-1][f"run-cam_robustness/per_image_{name}"]
        assert sum(histogram["values"]) == sum(value is not None for value in values)
        assert histogram["bins"] == pytest.approx(np.linspace(0, 1, 21))
    (card,) = [row["run-cam_robustness/about"] for row in rows if "run-cam_robustness/about" in row]
    assert "val_cam_robustness" in (files / card["path"]).read_text()


@pytest.mark.filterwarnings("ignore")  # of MLflow, about its own store of plain files
def test_mlflow_reads_back_pictures_numbers_and_the_card(four_loggers, monkeypatch):
    from mlflow.tracking import MlflowClient

    folder, told = four_loggers
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(f"file:{folder}/mlruns")
    points = client.get_metric_history(told["mlflow"], "run-val_cam_robustness")
    assert [point.step for point in points] == [2, 5]
    artifacts = client.list_artifacts(told["mlflow"], "run-cam_robustness")
    names = {Path(each.path).name for each in artifacts}
    wanted = {f"epoch={epoch}-step={step}-{what}" for epoch, step in ((0, 2), (1, 5)) for what in
              ("images.png", "severity.png", "per-image.csv")}  # fmt: skip
    assert names == {*wanted, "about.md"}
    root = Path(client.get_run(told["mlflow"]).info.artifact_uri.removeprefix("file:").replace("//", "/"))
    decoded((root / "run-cam_robustness" / "epoch=1-step=5-images.png").read_bytes())
    with (root / "run-cam_robustness" / "epoch=1-step=5-per-image.csv").open() as file:
        kept = [float(row["kept"]) if row["kept"] else None for row in csv.DictReader(file)]
    assert kept == told["report"]["per_image"]["kept"]
    assert "C x R" in (root / "run-cam_robustness" / "about.md").read_text()


def test_four_loggers_show_one_and_the_same_picture(four_loggers):
    folder, _ = four_loggers
    found = events(folder / "tb").Images("cam_robustness/images")[-1]
    pictures = [decoded(found.encoded_image_string)]
    for pattern in ("csv/**/epoch=1-step=5-images.png", "mlruns/**/epoch=1-step=5-images.png"):
        (file,) = folder.glob(pattern)
        pictures.append(decoded(file.read_bytes()))
    files, rows = wandb_rows(folder)
    last = [row["run-cam_robustness/images"] for row in rows if "run-cam_robustness/images" in row][-1]
    pictures.append(decoded((files / last["filenames"][0]).read_bytes()))
    assert all(np.array_equal(pictures[0], each) for each in pictures[1:])
