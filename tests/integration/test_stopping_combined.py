"""Stopping by the combined number of `StableCheckpoint`, which comes last of all callbacks."""

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from lightning_camrobust import CAMRobustnessCallback, CAMRobustnessEarlyStopping
from tests.integration.stopping_run import quiet, scripted
from tests.integration.test_keeping import NAN, fit, keeper, pairs, pytestmark  # noqa: F401

KEY = "val_stable_accuracy"


def rows(stopper):
    return [(row["reason"], None if row["value"] is None else round(row["value"], 4)) for row in stopper.verdicts]


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_number_of_this_very_validation_is_seen(tmp_path, ours_first):
    kept, stopper = keeper(tmp_path), CAMRobustnessEarlyStopping(KEY, patience=2)
    callbacks = [stopper, kept] if ours_first else [kept, stopper]
    trainer = fit(pairs((0.5, 0.9), (0.8, 0.8), (0.4, None), (0.8, 0.8), (0.7, 0.7), (0.9, 0.9)), *callbacks)
    seen = [("improved", 0.7), ("improved", 0.8), ("stale", 0.8), ("not improved", 0.8), ("patience exhausted", 0.7)]
    assert rows(stopper) == seen
    assert trainer.current_epoch == 5
    assert [each.accuracy for each in kept.front] == pytest.approx([0.8])  # the first of equals, of epoch 1


def test_it_may_come_later(tmp_path):
    """No number yet is no misspelt key, and no reason to warn."""
    stopper = CAMRobustnessEarlyStopping("val_acc", guard=KEY, guard_floor=0.6)
    fit(pairs((0.5, NAN), (0.5, 0.5), (0.6, 0.7)), keeper(tmp_path), stopper)
    assert [row["guard"] for row in stopper.verdicts] == [None, 0.5, pytest.approx(0.65)]
    assert [row["reason"] for row in stopper.verdicts] == ["guard missed", "guard missed", "improved"]


def test_several_validations_an_epoch(tmp_path):
    stopper = CAMRobustnessEarlyStopping(KEY, patience=1)
    script = pairs((0.5, 0.5), (0.6, 0.6), (0.6, None), (0.5, 0.5), (0.9, 0.9))
    trainer = fit(script, keeper(tmp_path), stopper, batches=4, val_check_interval=0.5)
    assert [row["reason"] for row in stopper.verdicts] == ["improved", "improved", "stale", "patience exhausted"]
    assert trainer.global_step == 8


def test_each_of_two_checkpoints_keeps_by_its_own_number(tmp_path):
    """Both write the key, and the stopper reads the last of them."""
    first, second = (keeper(tmp_path / str(weight), stability_weight=weight) for weight in (0.0, 1.0))
    stopper = CAMRobustnessEarlyStopping(KEY, patience=9)
    fit(pairs((0.5, 0.9), (0.8, 0.1), (0.6, 0.6)), first, second, stopper)
    assert [each.accuracy for each in first.front] == pytest.approx([0.8])
    assert [each.accuracy for each in second.front] == pytest.approx([0.5])
    assert [row["value"] for row in stopper.verdicts] == pytest.approx([0.9, 0.1, 0.6])


def test_a_dry_run_knows_the_key(tmp_path):
    fit(pairs((0.5, 0.5)), keeper(tmp_path), CAMRobustnessEarlyStopping(KEY), fast_dev_run=True)


@pytest.mark.parametrize(
    ("stability", "warned"), [("val_cam_robustness", True), ("val_cam_robustness", False), ("score", False)]
)
def test_lightnings_own_is_warned_that_the_number_grows_stale(tmp_path, stability, warned):
    every = 2 if warned or stability == "score" else 1
    watch = CAMRobustnessCallback(every_n_epochs=every)
    kept, stopper = keeper(tmp_path, stability=stability), EarlyStopping(KEY, mode="max")
    trainer = quiet([watch, kept, stopper, CAMRobustnessEarlyStopping(KEY)], epochs=1, enable_checkpointing=True)
    if warned:
        with pytest.warns(UserWarning, match="CAMRobustnessCallback: EarlyStopping reads a score that is renewed"):
            watch.setup(trainer, scripted(pairs((0, 0))), "fit")
    else:
        watch.setup(trainer, scripted(pairs((0, 0))), "fit")
