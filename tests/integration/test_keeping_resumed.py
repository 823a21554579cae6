"""StableCheckpoint after a resume: which files it takes up, and what ``last`` is a copy of."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from packaging.version import Version

from lightning_camrobust import StableCheckpoint
from lightning_camrobust.both_lightnings import AnyModelCheckpoint
from tests.integration.stopping_run import quiet
from tests.integration.test_keeping import files, fit, keeper, pairs, pytestmark, told  # noqa: F401

PACKAGES = pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
# Before Lightning 2.5 a training that is resumed goes through the end of its last epoch once more.
resumes_exactly = pytest.mark.skipif(
    Version(pl.__version__) < Version("2.5"), reason="before Lightning 2.5 a resumed training repeats a validation"
)


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


@resumes_exactly
@PACKAGES
def test_last_and_best_are_found_by_name(tmp_path, package):
    rows = pairs((0.5, 0.5), (0.6, 0.6), (0.7, 0.7), (0.4, 0.4))
    fit(rows, keeper(tmp_path, save_last=True), package=package, epochs=2)
    again = keeper(tmp_path, save_last=True)
    started = Started(package)
    fit(rows, again, started.callback, package=package, ckpt_path="last")
    assert started.epochs == [2, 3]
    assert told(again) == [("epoch=2", 0.7, 0.7)]
    assert files(tmp_path) == ["epoch=2", "last"]


class Started:
    def __init__(self, package):
        self.epochs = []
        self.callback = package.callbacks.LambdaCallback(
            on_train_epoch_start=lambda trainer, module: self.epochs.append(trainer.current_epoch)
        )


@PACKAGES
def test_a_trainer_takes_it_for_its_own_checkpoint(package):
    assert isinstance(StableCheckpoint(), package.callbacks.ModelCheckpoint)
    trainer = quiet([StableCheckpoint()], epochs=1, package=package, enable_checkpointing=True)
    assert [type(each) for each in trainer.checkpoint_callbacks] == [StableCheckpoint]  # and none of its own beside it


def test_of_two_parents_the_first_does_all_the_work():
    """Both packages carry the same class; nothing of the second may run where the first has it as well."""
    assert AnyModelCheckpoint.__mro__.index(pl.callbacks.ModelCheckpoint) == 1
    for name in vars(pytorch_lightning.callbacks.ModelCheckpoint):
        if name != "__init__" and callable(getattr(AnyModelCheckpoint, name)):
            assert getattr(AnyModelCheckpoint, name).__module__.startswith("lightning."), name


def test_last_stays_a_copy_of_the_last_one_kept(tmp_path):
    script = pairs((0.7, 0.5), (0.1, 0.5), (0.1, 0.6), (0.1, 0.7))
    settings = {"accuracy_floor": 0.6, "save_last": True}
    fit(script, keeper(tmp_path / "kept", **settings), ModelCheckpoint(tmp_path / "all", filename="all"), epochs=2)
    again = keeper(tmp_path / "kept", **settings)
    fit(script, again, ckpt_path=tmp_path / "all" / "all.ckpt")
    assert files(tmp_path / "kept") == ["epoch=0", "last"]
    assert epoch_of(again.last_model_path) == 0


@pytest.mark.parametrize("save_last", [True, "link"])
def test_without_a_checkpoint_there_is_no_last_one(tmp_path, save_last):
    kept = keeper(tmp_path, accuracy_floor=0.9, save_last=save_last)
    with pytest.warns(UserWarning, match="kept no checkpoint"):
        fit(pairs((0.5, 0.5), (0.6, 0.6)), kept)
    assert files(tmp_path) == []
    fit(pairs((0.95, 0.5)), keeper(tmp_path, save_last=save_last), fast_dev_run=True)
    assert files(tmp_path) == []


@pytest.mark.parametrize("save_last", [True, "link"])
def test_last_follows_what_is_kept(tmp_path, save_last):
    kept = keeper(tmp_path, rule="pareto", accuracy_floor=0.3, save_last=save_last)
    fit(pairs((0.5, 0.5), (0.6, 0.6), (0.4, 0.4), (0.1, 0.9)), kept)
    assert files(tmp_path) == ["epoch=1", "last"]
    assert epoch_of(kept.last_model_path) == 1


ROWS = [(0.5, 0.5), (0.7, 0.7), (0.9, 0.9)]
LATER = [(0.5, 0.5), (0.7, 0.7), (0.6, 0.6), (0.69, 0.69)]


@pytest.mark.parametrize("rule", ["weighted", "pareto"])
def test_a_file_that_is_gone_beats_nobody(tmp_path, rule):
    """From the second epoch on it goes another way, when the third has already driven the file of the second out."""
    every = ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1)
    fit(pairs(*ROWS), keeper(tmp_path / "kept", rule=rule), every)
    assert files(tmp_path / "kept") == ["epoch=2"]
    again = keeper(tmp_path / "kept", rule=rule)
    with pytest.warns(UserWarning, match=r"StableCheckpoint: .*epoch=1\.ckpt.* no longer exist") as warned:
        fit(pairs(*LATER), again, ckpt_path=tmp_path / "all" / "epoch=1.ckpt")
    assert len([each for each in warned if "no longer exist" in str(each.message)]) == 1
    assert told(again) == [("epoch=3", 0.69, 0.69)]
    assert Path(again.best_model_path).name == "epoch=3.ckpt"
    assert Path(again.best_model_path).exists()
    assert float(again.best_model_score) == pytest.approx(0.69)


def test_the_others_stay(tmp_path):
    settings = {"save_top_k": 3}
    every = ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1)
    fit(pairs((0.5, 0.5), (0.7, 0.7), (0.6, 0.6)), keeper(tmp_path / "kept", **settings), every)
    Path(tmp_path / "kept" / "epoch=1.ckpt").unlink()
    again = keeper(tmp_path / "kept", **settings)
    with pytest.warns(UserWarning, match="no longer exist"):
        fit(pairs(*ROWS, (0.1, 0.1), (0.55, 0.55)), again, ckpt_path=tmp_path / "all" / "epoch=2.ckpt")
    assert told(again) == [("epoch=2", 0.6, 0.6), ("epoch=4", 0.55, 0.55), ("epoch=0", 0.5, 0.5)]
    assert files(tmp_path / "kept") == ["epoch=0", "epoch=2", "epoch=4"]
    assert Path(again.best_model_path).stem == "epoch=2"


def test_fewer_may_be_kept_after_one_is_gone(tmp_path):
    every = ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1)
    fit(pairs((0.5, 0.5), (0.7, 0.7), (0.6, 0.6)), keeper(tmp_path / "kept", save_top_k=3), every)
    Path(tmp_path / "kept" / "epoch=1.ckpt").unlink()
    again = keeper(tmp_path / "kept", save_top_k=1)
    with pytest.warns(UserWarning, match="no longer exist"):
        fit(pairs(*ROWS, (0.1, 0.1), (0.8, 0.8)), again, ckpt_path=tmp_path / "all" / "epoch=2.ckpt")
    assert Path(again.best_model_path).stem == "epoch=4"
    assert float(again.best_model_score) == pytest.approx(0.8)


class Elsewhere(TorchCheckpointIO):
    """A plugin that keeps checkpoints where nobody else finds them, under names of its own."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        super().save_checkpoint(checkpoint, f"{path}.bin", storage_options)

    def load_checkpoint(self, path, *args, **settings):
        return super().load_checkpoint(f"{path}.bin", *args, **settings)

    def remove_checkpoint(self, path):
        super().remove_checkpoint(f"{path}.bin")


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_what_only_a_plugin_finds_is_not_gone(tmp_path):
    first, again = keeper(tmp_path), keeper(tmp_path)
    fit(pairs((0.5, 0.5), (0.9, 0.9)), first, plugins=[Elsewhere()])
    fit(pairs((0.5, 0.5), (0.9, 0.9), (0.6, 0.6)), again, ckpt_path=first.best_model_path, plugins=[Elsewhere()])
    assert again.best_model_path == first.best_model_path
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=1.ckpt.bin"]


def test_when_all_are_gone_and_nothing_comes_there_is_no_best(tmp_path):
    every = ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1)
    fit(pairs((0.7, 0.7)), keeper(tmp_path / "kept"), every)
    Path(tmp_path / "kept" / "epoch=0.ckpt").unlink()
    again = keeper(tmp_path / "kept", accuracy_floor=None)
    with pytest.warns(UserWarning, match="no longer exist|kept no checkpoint"):
        fit(pairs((0.7, 0.7), (0.9, None)), again, ckpt_path=tmp_path / "all" / "epoch=0.ckpt")
    assert (again.best_model_path, again.best_model_score, again.front) == ("", None, [])


def test_several_of_other_settings_go_side_by_side_and_equal_ones_do_not(tmp_path):
    floors = [keeper(tmp_path / str(floor), accuracy_floor=floor) for floor in (None, 0.6)]
    fit(pairs((0.5, 0.9), (0.7, 0.3)), *floors)
    assert [told(each) for each in floors] == [[("epoch=0", 0.5, 0.9)], [("epoch=1", 0.7, 0.3)]]
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(pairs((0.5, 0.9)), keeper(tmp_path / "a"), keeper(tmp_path / "b"))


@resumes_exactly
def test_with_another_floor_it_starts_afresh(tmp_path):
    first = keeper(tmp_path, accuracy_floor=0.2)
    fit(pairs((0.5, 0.5)), first)
    again = keeper(tmp_path, accuracy_floor=0.3)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint need to be provided"):
        fit(pairs((0.5, 0.5), (0.4, 0.4)), again, ckpt_path=first.best_model_path)
    assert told(again) == [("epoch=1", 0.4, 0.4)]
    assert files(tmp_path) == ["epoch=0", "epoch=1"]


def test_percent_against_a_share_is_told_once(tmp_path):
    with pytest.warns(UserWarning, match="StableCheckpoint: 'val_acc' is 76 and 'score' is 0.9") as warned:
        fit(pairs((76.0, 0.9), (77.0, 0.8)), keeper(tmp_path))
    assert len([each for each in warned if "is 76" in str(each.message)]) == 1
