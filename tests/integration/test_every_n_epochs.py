"""`every_n_epochs`: which validations are probed, with any rhythm of validations, and after a resume."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_camrobust import CAMRobustnessEarlyStopping, StableCheckpoint
from lightning_camrobust.turns import Turns
from tests.integration.stopping_run import quiet
from tests.integration.test_keeping_resumed import resumes_exactly
from tests.integration.test_stopping import Watched, pytestmark, watch  # noqa: F401
from tests.networks import digit_loader

pytestmark = [*pytestmark, pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")]


def fit(*callbacks, epochs, ckpt_path=None, **settings):
    trainer = quiet(list(callbacks), epochs=epochs, **settings)
    module = Watched()
    trainer.fit(module, digit_loader(0, 32), digit_loader(400, 16), ckpt_path=ckpt_path)
    return trainer


def probed(callback):
    return [row["epoch"] for row in callback.history]


@pytest.mark.parametrize(
    ("every", "validated", "expected"),
    [
        (1, range(6), [0, 1, 2, 3, 4, 5]),
        (2, range(6), [0, 2, 4]),
        (3, range(8), [0, 3, 6]),
        (2, (1, 3, 5, 7), [1, 3, 5, 7]),
        (3, (1, 3, 5, 7, 9), [1, 5, 9]),
        (4, (1, 3, 5, 7, 9), [1, 5, 9]),
        (1, (2, 5, 8), [2, 5, 8]),
        (2, (0, 0, 1, 1, 2, 2, 3, 3, 4), [0, 0, 2, 2, 4]),
        (2, (8, 0, 1, 2), [8, 0, 2]),
    ],
)
def test_whose_turn_it_is(every, validated, expected):
    turns, found = Turns(every), []
    for epoch in validated:
        if turns.due(epoch):
            turns.taken(epoch)
            found.append(epoch)
    assert found == expected


@pytest.mark.parametrize(
    ("every", "started", "epoch", "spans"), [(1, 0, 0, 1), (5, 0, 0, 5), (2, 0, 1, 1), (1, 0, 1, 1), (5, 6, 9, 1.25)]
)
def test_how_often_the_time_of_training_so_far_passes_between_two_turns(every, started, epoch, spans):
    turns = Turns(every)
    turns.start(started)
    assert turns.spans(epoch) == spans


@pytest.mark.parametrize(("every", "expected"), [(2, [1, 3, 5, 7]), (3, [1, 5])])
def test_validations_in_some_epochs_only(every, expected):
    callback = watch(every_n_epochs=every)
    fit(callback, epochs=8, check_val_every_n_epoch=2)
    assert probed(callback) == expected


def test_who_validates_no_more_often_than_it_is_probed_sees_no_old_score():
    """Warnings are errors here."""
    stopper = EarlyStopping("val_cam_robustness", mode="max", patience=9)
    fit(watch(every_n_epochs=2), stopper, epochs=4, check_val_every_n_epoch=2)


def test_all_validations_of_an_epoch_are_probed():
    callback = watch(every_n_epochs=2)
    fit(callback, epochs=3, val_check_interval=0.5)
    assert probed(callback) == [0, 0, 2, 2]


def test_another_fit_and_other_stages_begin_anew():
    callback = watch(every_n_epochs=3)
    trainer = fit(callback, epochs=2)
    trainer.validate(Watched(), digit_loader(400, 16), verbose=False)
    trainer.validate(Watched(), digit_loader(400, 16), verbose=False)
    fit(callback, epochs=4)
    assert probed(callback) == [0, 2, 2, 0, 3]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_resumed_fit_keeps_the_beat(tmp_path, cut):
    """Nothing is measured beside the beat, and the old score is there for those who look."""
    whole = watch(every_n_epochs=3)
    fit(whole, epochs=6)
    half, last = watch(every_n_epochs=3), ModelCheckpoint(tmp_path, "half")
    fit(half, CAMRobustnessEarlyStopping(patience=9), last, epochs=cut, enable_checkpointing=True)
    again, stopper = watch(every_n_epochs=3), CAMRobustnessEarlyStopping(patience=9)
    newcomer = CAMRobustnessEarlyStopping(patience=9, mode="min")
    by_score = ModelCheckpoint(tmp_path / "best", monitor="val_cam_robustness", mode="max")
    theirs = ModelCheckpoint(tmp_path / "cells", monitor="cam_robustness/gradcam/gaussian_noise/3", mode="max")
    callbacks = [
        again,
        stopper,
        newcomer,
        by_score,
        theirs,
        EarlyStopping("val_cam_robustness", mode="max", patience=99),
    ]
    kept = StableCheckpoint(tmp_path / "ours", save_top_k=-1)
    callbacks += [kept] if cut <= 3 else []  # later it would have nothing to keep, and say so
    how = {"ckpt_path": last.best_model_path, "enable_checkpointing": True, "num_sanity_val_steps": 1}
    with pytest.warns(UserWarning, match="renewed only every 3 epochs"):
        fit(*callbacks, epochs=6, **how)
    assert probed(again) == probed(whole) == [0, 3]
    assert [row["epoch"] for row in stopper.verdicts if row["fresh"]] == [0, 3]
    # One that knows nothing of the time before takes the old score for no new one either.
    assert [row["epoch"] for row in newcomer.verdicts if row["fresh"]] == ([3] if cut <= 3 else [])
    assert [Path(each.path).name.split("-")[0] for each in kept.front] == (["epoch=3"] if cut <= 3 else [])
    assert newcomer.verdicts[0]["value"] == again.history[0 if cut < 3 else 1]["robustness"]


@resumes_exactly
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(("step", "before"), [(1, [0]), (2, [0, 0]), (3, [0, 0])])
def test_a_resume_in_mid_epoch_goes_on_with_that_epoch(tmp_path, step, before):
    """Two batches an epoch, each with its validation; in the second epoch nothing is due."""
    each = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_on_train_epoch_end=False)
    whole, again = watch(every_n_epochs=2), watch(every_n_epochs=2)
    fit(whole, each, epochs=3, enable_checkpointing=True, val_check_interval=0.5)
    path = tmp_path / f"step={step}.ckpt"
    again.load_state_dict(torch.load(path, weights_only=True)["callbacks"][again.state_key])
    assert probed(again) == before
    fit(again, epochs=3, val_check_interval=0.5, ckpt_path=path)
    assert probed(again) == probed(whole) == [0, 0, 2, 2]


def test_a_resumed_fit_without_a_turn_is_no_fit_without_images(tmp_path):
    half, last = watch(every_n_epochs=5), ModelCheckpoint(tmp_path, "half")
    fit(half, last, epochs=1, enable_checkpointing=True)
    again = watch(every_n_epochs=5)
    fit(again, epochs=3, ckpt_path=last.best_model_path)
    assert probed(again) == [0]


def test_older_checkpoints_have_no_beat(tmp_path):
    old = {key: value for key, value in watch().state_dict().items() if key in ("history", "pixel_space", "seed")}
    callback = watch(every_n_epochs=2)
    callback.load_state_dict(old)
    fit(callback, epochs=2)
    assert probed(callback) == [0]


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_both_trainer_packages_have_what_is_asked_of_them(package):
    assert isinstance(quiet([], epochs=1, package=package).is_last_batch, bool)
