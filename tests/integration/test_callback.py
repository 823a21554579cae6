import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_camrobust import CAMRobustnessCallback
from tests.networks import DigitModule, digit_loader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ModelCheckpoint.*contains metrics in its default filename.*"),
]
HEADLINE = (
    "val_cam_robustness", "val_cam_consistency", "val_cam_responsiveness", "val_cam_flip_rate",
    "val_cam_degenerate_rate", "val_cam_num_images", "val_cam_seconds",
)  # fmt: skip


def make_trainer(folder, *callbacks, **settings):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    chosen = {**quiet, "accelerator": "cpu", "max_epochs": 2, "default_root_dir": folder, **settings}
    return pl.Trainer(callbacks=list(callbacks), **chosen)


def make_callback(**settings):
    return CAMRobustnessCallback(**{"segmenter": "grid", "num_samples": 24, "severities": (1, 5), **settings})


def fit(folder, *callbacks, module=None, validation=None, **settings):
    torch.manual_seed(3)
    module = DigitModule() if module is None else module
    trainer = make_trainer(folder, *callbacks, **settings)
    trainer.fit(module, digit_loader(shuffle=True), validation or digit_loader(200, 40))
    return trainer, module


def test_one_line_gives_finite_scores_each_epoch(tmp_path):
    callback = CAMRobustnessCallback(num_samples=4)
    trainer, _ = fit(tmp_path, callback)
    assert all(math.isfinite(trainer.callback_metrics[key]) for key in HEADLINE)
    assert trainer.callback_metrics["val_cam_num_images"] == 4
    assert [row["epoch"] for row in callback.history] == [0, 1]
    assert len(callback.report["cells"]) == 12
    for noise in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"):
        for severity in (1, 3, 5):
            for score in ("cam_robustness", "cam_consistency", "cam_flip_rate"):
                assert f"{score}/gradcam/{noise}/{severity}" in trainer.callback_metrics


def test_training_ends_bitwise_equal_with_and_without(tmp_path):
    runs = []
    for callbacks in ([], [make_callback(methods=("gradcam", "ablationcam", "pytorch_grad_cam:GradCAM"))]):
        trainer, module = fit(tmp_path, *callbacks, max_epochs=3)
        runs.append((module.state_dict(), trainer.optimizers[0].state_dict(), torch.get_rng_state()))
    plain, watched = runs
    assert all(torch.equal(plain[0][key], watched[0][key]) for key in plain[0])
    for key, state in plain[1]["state"].items():
        assert torch.equal(state["momentum_buffer"], watched[1]["state"][key]["momentum_buffer"])
    assert torch.equal(plain[2], watched[2])


def test_the_bitwise_test_sees_a_polluting_callback(tmp_path):
    class Polluter(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            torch.rand(1)

    _, plain = fit(tmp_path)
    _, watched = fit(tmp_path, Polluter())
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


@pytest.mark.parametrize("loop", ["validate", "test"])
def test_validate_and_test_work_in_inference_mode(tmp_path, loop):
    callback, module = make_callback(), DigitModule()
    trainer = make_trainer(tmp_path, callback)
    getattr(trainer, loop)(module, digit_loader(200, 40), verbose=False)
    stage = "val" if loop == "validate" else "test"
    assert math.isfinite(trainer.callback_metrics[f"{stage}_cam_robustness"])
    assert callback.history[0]["stage"] == stage
    # And the other way round on the same objects.
    trainer.fit(module, digit_loader(), digit_loader(200, 40))
    assert len(callback.history) == 3


def test_batch_size_and_epoch_do_not_matter(tmp_path):
    module, reports = DigitModule(), []
    for batch_size in (1, 7, 32):
        callback = make_callback(methods=("gradcam", "gradcam_plusplus"), num_samples=30)
        trainer = make_trainer(tmp_path, callback)
        trainer.validate(module, digit_loader(200, 40, batch_size=batch_size), verbose=False)
        trainer.validate(module, digit_loader(200, 40, batch_size=batch_size), verbose=False)
        assert {**callback.history[0], "seconds": 0} == {**callback.history[1], "seconds": 0}
        reports.append(callback.report)
    for other in reports[1:]:
        for one, two in zip(reports[0]["cells"], other["cells"], strict=True):
            for key in ("consistency", "responsiveness", "flip_rate"):
                assert one[key] == pytest.approx(two[key], abs=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 7, 32])
def test_chunk_size_does_not_matter(tmp_path, chunk_size):
    module, scores = DigitModule(), []
    for size in (chunk_size, 24):
        callback = make_callback(chunk_size=size)
        make_trainer(tmp_path, callback).validate(module, digit_loader(200, 40), verbose=False)
        scores.append(callback.report["robustness"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize("callback_first", [True, False])
def test_early_stopping_and_checkpoint_monitor_the_score_from_the_first_epoch(tmp_path, callback_first):
    keep = ModelCheckpoint(tmp_path, monitor="val_cam_robustness", mode="max", filename="{val_cam_robustness:.3f}")
    stop = EarlyStopping("val_cam_robustness", mode="max", patience=1, min_delta=2.0)  # nothing can improve by 2
    order = (make_callback(), stop, keep) if callback_first else (stop, keep, make_callback())
    trainer, _ = fit(tmp_path, *order, max_epochs=5, enable_checkpointing=True)
    assert trainer.current_epoch == 2
    assert "val_cam_robustness=" in keep.best_model_path


def test_monitors_work_when_no_prediction_ever_flips(tmp_path):
    callback = make_callback(severities=(1,))
    module = DigitModule(lr=0.0)
    with torch.no_grad():
        module.net[-1].bias[3] = 100.0  # one class wins whatever the image shows
    keep = ModelCheckpoint(tmp_path, monitor="val_cam_robustness", mode="max", filename="stable")
    stop = EarlyStopping("val_cam_robustness", mode="max", patience=3, check_finite=True)
    trainer, _ = fit(tmp_path, callback, stop, keep, module=module, max_epochs=2, enable_checkpointing=True)
    assert trainer.callback_metrics["val_cam_flip_rate"] == 0
    assert trainer.callback_metrics["val_cam_robustness"] == trainer.callback_metrics["val_cam_consistency"]
    assert trainer.callback_metrics["val_cam_responsiveness"] == 1
    assert callback.report["pooled"][0]["responsiveness"] is None
    assert keep.best_model_score == max(row["robustness"] for row in callback.history)
    assert trainer.current_epoch == 2


def test_sanity_check_measures_nothing_but_finds_a_wrong_network(tmp_path):
    callback = make_callback()
    fit(tmp_path, callback, num_sanity_val_steps=2, max_epochs=1)
    assert len(callback.history) == 1

    class Untrained(DigitModule):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training began although the layer is unusable")

        def forward(self, images):
            return self.net[:7](images)

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    with pytest.raises(RuntimeError, match="must return float logits"):
        fit(tmp_path, make_callback(), module=Untrained(), num_sanity_val_steps=1, max_epochs=1)


def test_every_n_epochs_probes_the_first_epoch_and_every_nth(tmp_path):
    callback = make_callback(every_n_epochs=2, num_samples=8)
    fit(tmp_path, callback, max_epochs=5)
    assert [row["epoch"] for row in callback.history] == [0, 2, 4]


def test_test_run_logs_under_its_own_prefix(tmp_path):
    trainer = make_trainer(tmp_path, make_callback())
    trainer.test(DigitModule(), digit_loader(200, 40), verbose=False)
    assert "test_cam_robustness" in trainer.callback_metrics
    assert "val_cam_robustness" not in trainer.callback_metrics


def test_tensorboard_gets_scalars_and_pictures_from_the_runs_own_writer(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    callback = make_callback(log_images=2)
    fit(tmp_path, callback, logger=logger, max_epochs=3)
    events = list((tmp_path / "run" / "version_0").glob("events.out.*"))
    assert len(events) == 1  # one writer, one file
    written = EventAccumulator(str(events[0]), size_guidance={"images": 0})
    written.Reload()
    points = written.Scalars("val_cam_robustness")
    assert len(points) == 3
    assert all(math.isfinite(point.value) for point in points)
    assert "cam_flip_rate/gradcam/shot_noise/5" in written.Tags()["scalars"]
    for tag in ("cam_robustness/images", "cam_robustness/severity"):
        assert len(written.Images(tag)) == 3
        assert min(written.Images(tag)[0].width, written.Images(tag)[0].height) > 300


@pytest.mark.parametrize("log_images", [0, 4])
def test_no_figure_is_built_when_none_is_wanted(tmp_path, monkeypatch, log_images):
    def refuse(*args, **settings):
        raise AssertionError("a figure was built")

    monkeypatch.setattr("lightning_camrobust.report.publication.draw_portrait", refuse)
    monkeypatch.setattr("lightning_camrobust.report.publication.draw_severity_curves", refuse)
    logger = False if log_images else [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    fit(tmp_path, make_callback(log_images=log_images), logger=logger, max_epochs=1, log_every_n_steps=1)


def test_state_travels_with_the_checkpoint(tmp_path):
    first = make_callback()
    trainer, module = fit(tmp_path, first, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    second = make_callback()
    trainer = make_trainer(tmp_path, second, max_epochs=3)
    # weights_only is torch's default and refuses anything but plain data.
    trainer.fit(module, digit_loader(), digit_loader(200, 40), ckpt_path=tmp_path / "a.ckpt")
    assert [row["epoch"] for row in second.history] == [0, 1, 2]
    assert second.history[:2] == first.history


def test_pytorch_lightning_trainers_take_it_too(tmp_path):
    other = pytest.importorskip("pytorch_lightning")

    class OtherModule(other.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = DigitModule().net

        def forward(self, images):
            return self.net(images)

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    callback = make_callback()
    trainer = other.Trainer(
        callbacks=[callback, other.callbacks.EarlyStopping("val_cam_robustness", mode="max")],
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(OtherModule(), digit_loader(), digit_loader(200, 40))
    assert math.isfinite(trainer.callback_metrics["val_cam_robustness"])
    assert len(callback.history) == 2


def test_normalised_inputs_score_as_the_raw_ones_when_the_constants_are_known(tmp_path):
    raw, module = digit_loader(200, 40), DigitModule()

    class Normalised(DigitModule):
        def forward(self, images):
            return self.net(images * 0.5 + 0.25)

    shifted = Normalised()
    shifted.load_state_dict(module.state_dict())
    images, labels = raw.dataset.tensors
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset((images - 0.25) / 0.5, labels), batch_size=16)
    one, two = make_callback(), make_callback(mean=0.25, std=0.5)
    make_trainer(tmp_path, one).validate(module, raw, verbose=False)
    make_trainer(tmp_path, two).validate(shifted, loader, verbose=False)
    assert one.report["robustness"] == pytest.approx(two.report["robustness"], abs=1e-6)


def test_unknown_constants_are_estimated_once_with_one_warning(tmp_path):
    images, labels = digit_loader(200, 40).dataset.tensors
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset((images - 0.3) / 0.2, labels), batch_size=16)
    callback, module = make_callback(), DigitModule()
    trainer = make_trainer(tmp_path, callback)
    with pytest.warns(UserWarning, match=r"CAMRobustnessCallback\(mean=.*std="):
        trainer.validate(module, loader, verbose=False)
    trainer.validate(module, loader, verbose=False)  # a second warning would be an error here
    space = callback.state_dict()["pixel_space"]
    # Digits use the whole range, so the estimate is the truth.
    assert space["mean"] == pytest.approx([0.3], abs=1e-3)
    assert space["std"] == pytest.approx([0.2], abs=1e-3)


def test_dict_batches_and_prepare_batch(tmp_path):
    class Scans(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            image, label = digit_loader().dataset[index]
            return {"id": index, "label": label, "scan": image}

    class ScanModule(DigitModule):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.nn.functional.cross_entropy(self(batch["scan"]), batch["label"]), batch_size=5)

    for settings in ({}, {"prepare_batch": lambda batch: batch["scan"]}):
        callback = make_callback(num_samples=10, **settings)
        make_trainer(tmp_path, callback).validate(
            ScanModule(), torch.utils.data.DataLoader(Scans(), batch_size=5), verbose=False
        )
        assert callback.report["num_images"] == 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, about Lightning's own use of it
def test_yaml_builds_the_callback(tmp_path, monkeypatch):
    from lightning.pytorch.cli import LightningCLI

    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
trainer:
  default_root_dir: {tmp_path}
  logger: false
  accelerator: cpu
  callbacks:
    - class_path: lightning_camrobust.CAMRobustnessCallback
      init_args:
        methods:
          - gradcam
          - class_path: lightning_camrobust.cams.gradcam_plusplus.GradCAMPlusPlus
            init_args: {{epsilon: 1.0e-9}}
        perturbations: [shot_noise]
        severities: [2, 4]
        target_layer: net.3
        num_samples: 8
        mean: [0.5]
        std: [0.5]
"""
    )
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back afterwards, as the CLI sets it
    cli = LightningCLI(
        DigitModule, args=["--config", str(config)], run=False, save_config_callback=None, seed_everything_default=0
    )
    (callback,) = [each for each in cli.trainer.callbacks if isinstance(each, CAMRobustnessCallback)]
    assert [cell[:2] for cell in callback._plan.cells[:2]] == [
        ("gradcam", "shot_noise"),
        ("gradcam_plusplus", "shot_noise"),
    ]
    assert callback._plan.methods["gradcam_plusplus"].epsilon == 1e-9
    assert (callback.target_layer, callback.num_samples) == ("net.3", 8)
