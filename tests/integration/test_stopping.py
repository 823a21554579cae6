"""Early stopping in real fits: a module logs scripted numbers, and the trainer stops where it should."""

import copy
import pickle

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_camrobust import CAMRobustnessCallback, CAMRobustnessEarlyStopping, StableCheckpoint
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.monitored import may_log
from tests.integration.stopping_run import loaders, quiet, scripted
from tests.networks import DigitModule, digit_loader, trained

NAN = float("nan")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
]


def scores(*values):
    return [{} if value is None else {"score": value} for value in values]


def fit(script, *callbacks, package=pl, where="validation_step", batches=2, ckpt_path=None, epochs=None, **settings):
    trainer = quiet(list(callbacks), epochs=epochs or len(script), package=package, **settings)
    module = scripted(script, package=package, where=where)
    trainer.fit(module, *loaders(batches), ckpt_path=ckpt_path)
    return trainer


def reasons(stopper):
    return [row["reason"] for row in stopper.verdicts]


RISING = (0.1, None, 0.2, None, 0.3, None, 0.4, None)

# One row each: the settings of the stopper, the numbers of each validation, and how many epochs should run.
ROWS = {
    "fresh values improve, with old ones in between": ({"patience": 1}, scores(*RISING), 8),
    "fresh values stand still": ({"patience": 2}, scores(0.5, None, 0.4, None, 0.5, 0.9), 5),
    "equal values are fresh when logged again": ({"patience": 2}, scores(0.5, 0.5, 0.5, 0.9), 3),
    "warm-up is neither best nor counted": ({"patience": 1, "start_epoch": 3}, scores(0.9, 0.8, 0.7, 0.1, 0.2, 0.1), 6),
    "mode min": ({"patience": 1, "mode": "min"}, scores(0.5, 0.4, 0.3, 0.3, 0.1), 4),
    "min_delta": ({"patience": 2, "min_delta": 0.25}, scores(0.5, 0.75, 0.75, 1.0), 3),
    "threshold": ({"stopping_threshold": 0.7}, scores(0.5, 0.6, 0.7, 0.8), 3),
    "NaN does not count": ({"patience": 2}, scores(0.5, NAN, NAN, 0.4, 0.6, 0.7), 6),
    "NaN stops if asked for": ({"check_finite": True}, scores(0.5, NAN, 0.6), 2),
    "an untrained network's score is no best": (
        {"patience": 1, "guard": "val_acc", "guard_floor": 0.6},
        [{"score": s, "val_acc": a} for s, a in ((0.99, 0.1), (0.98, 0.1), (0.3, 0.7), (0.4, 0.7), (0.5, 0.9))],
        5,
    ),
    "below the guard nothing is counted": (
        {"patience": 1, "guard": "val_acc", "guard_floor": 0.6},
        [{"score": s, "val_acc": a} for s, a in ((0.5, 0.7), (0.1, 0.5), (0.1, NAN), (0.6, 0.7), (0.1, 0.7), (1, 1.0))],
        5,
    ),
    "a guard logged in other epochs is remembered": (
        {"patience": 1, "guard": "val_acc", "guard_floor": 0.6},
        [{"val_acc": 0.9, "score": 0.3}, {"score": 0.4}, {"val_acc": 0.1}, {"score": 0.1}, {"score": 0.1}],
        5,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:CAMRobustnessEarlyStopping. 'score' is nan")
@pytest.mark.parametrize(("settings", "script", "epochs"), ROWS.values(), ids=ROWS.keys())
def test_truth_table(settings, script, epochs):
    stopper = CAMRobustnessEarlyStopping("score", **settings)
    trainer = fit(script, stopper)
    assert trainer.current_epoch == epochs
    assert len(stopper.verdicts) == epochs
    stopped = epochs < len(script) or stopper.verdicts[-1]["stop"]
    assert stopper.stopped_epoch == (epochs - 1 if stopped else None)


def test_lightnings_own_stops_too_early_where_ours_does_not():
    theirs, ours = EarlyStopping("score", mode="max", patience=1), CAMRobustnessEarlyStopping("score", patience=1)
    assert fit(scores(*RISING), theirs).current_epoch == 2
    assert fit(scores(*RISING), ours).current_epoch == 8


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_both_trainer_packages(package):
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    assert fit(scores(0.5, 0.4, None, 0.3, 0.9), stopper, package=package).current_epoch == 4
    assert reasons(stopper) == ["improved", "not improved", "stale", "patience exhausted"]


def test_several_watchers_of_one_key_do_not_disturb_each_other(tmp_path):
    """Two stoppers, a checkpoint of ours, two of Lightning's callbacks: all read the same keys."""
    script = [{"score": value, "val_acc": 0.5} if value else {"val_acc": 0.5} for value in (0.1, None, None, 0.2, None)]
    first = CAMRobustnessEarlyStopping("score", patience=1)
    second = CAMRobustnessEarlyStopping("score", patience=9, mode="min")
    third = CAMRobustnessEarlyStopping("val_acc", patience=9, guard="score", guard_floor=0.0)
    others = [
        EarlyStopping("score", mode="max", patience=99, check_on_train_epoch_end=False),
        StableCheckpoint(tmp_path / "ours", stability="score", save_top_k=-1),
        ModelCheckpoint(tmp_path / "theirs", monitor="score", save_top_k=-1, save_on_train_epoch_end=False),
    ]
    fit(script, first, others[0], second, third, *others[1:], enable_checkpointing=True)
    fresh = [True, False, False, True, False]
    assert [row["fresh"] for row in first.verdicts] == [row["fresh"] for row in second.verdicts] == fresh
    assert [row["fresh"] for row in third.verdicts] == [True] * 5
    assert len(others[1].best_k_models) == 2
    assert len(others[2].best_k_models) == 5


def test_nothing_is_put_into_the_metrics():
    metrics = fit(scores(0.5, None, 0.5), CAMRobustnessEarlyStopping("score")).callback_metrics
    assert metrics.keys() == {"score"}


def test_the_sanity_check_does_not_count():
    stopper = CAMRobustnessEarlyStopping("score", patience=1)
    trainer = fit(scores(0.5, 0.6, 0.7), stopper, num_sanity_val_steps=2)
    assert trainer.current_epoch == 3
    assert [row["epoch"] for row in stopper.verdicts] == [0, 1, 2]


def test_several_validations_an_epoch():
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    trainer = fit(scores(0.5, None, 0.4, None, 0.3, 0.9, 0.9, 0.9), stopper, batches=4, val_check_interval=0.5)
    assert reasons(stopper) == ["improved", "stale", "not improved", "stale", "patience exhausted"]
    assert trainer.global_step == 10  # in the middle of the third epoch of four batches
    assert [row["step"] for row in stopper.verdicts] == [2, 4, 6, 8, 10]


def test_validations_in_some_epochs_only():
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    assert fit(scores(0.5, 0.4, 0.3), stopper, epochs=9, check_val_every_n_epoch=2).current_epoch == 6


@pytest.mark.parametrize("limit", [{"min_epochs": 5}, {"min_steps": 10}], ids=["min_epochs", "min_steps"])
def test_the_trainers_minimum_comes_first_and_is_forgiving(limit):
    script = scores(0.5, 0.4, 0.3, 0.8, 0.7, 0.9, 0.1, 0.1, 0.1)
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    # Patience is used up in the third epoch, but what comes in the fourth is better.
    assert fit(script, stopper, **limit).current_epoch == 8
    assert reasons(stopper)[2:4] == ["too early to stop", "improved"]
    theirs = EarlyStopping("score", mode="max", patience=2)
    assert fit(script, theirs, **limit).current_epoch == 5  # ends at the minimum, whatever came since


@pytest.mark.parametrize("limit", [{"min_epochs": 2}, {"min_steps": 8}], ids=["min_epochs", "min_steps"])
def test_the_trainers_minimum_is_forgiving_in_mid_epoch(limit):
    """Four batches an epoch, validated after two and four: the third validation is in the middle of the second."""
    stopper = CAMRobustnessEarlyStopping("score", patience=1)
    script = scores(0.5, 0.6, 0.4, 0.9, 0.91, 0.92, 0.1)
    trainer = fit(script, stopper, epochs=5, batches=4, val_check_interval=0.5, **limit)
    assert reasons(stopper) == ["improved", "improved", "too early to stop", *["improved"] * 3, "patience exhausted"]
    assert trainer.global_step == 14


@pytest.mark.parametrize("limit", [{"min_epochs": 3}, {"min_steps": 6}], ids=["min_epochs", "min_steps"])
def test_the_trainers_minimum_may_be_the_very_end(limit):
    stopper = CAMRobustnessEarlyStopping("score", patience=1)
    assert fit(scores(0.5, 0.4, 0.3, 0.2), stopper, **limit).current_epoch == 3
    assert reasons(stopper) == ["improved", "too early to stop", "patience exhausted"]


def test_a_fast_dev_run_only_looks_for_the_keys():
    stopper = CAMRobustnessEarlyStopping("score", stopping_threshold=0.1)
    trainer = fit(scores(0.5), stopper, fast_dev_run=True)
    assert not trainer.should_stop
    assert stopper.verdicts == []
    with pytest.raises(ArgumentError, match="`monitor`"):
        fit(scores(0.5), CAMRobustnessEarlyStopping("scoer"), fast_dev_run=True)


def test_validate_and_test_do_nothing():
    stopper = CAMRobustnessEarlyStopping("scoer")
    trainer, module = quiet([stopper], epochs=1), scripted(scores(0.5))
    trainer.validate(module, loaders()[1], verbose=False)
    trainer.test(module, loaders()[1], verbose=False)
    assert stopper.verdicts == []


def test_a_key_logged_in_training_steps():
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    assert fit(scores(0.5, 0.4, None, 0.3, 0.9), stopper, where="training_step").current_epoch == 4
    assert reasons(stopper) == ["improved", "not improved", "stale", "patience exhausted"]


def test_a_key_logged_for_training_epochs():
    """It comes after the first validation, so strict=False; from then on it is read one validation later."""
    stopper = CAMRobustnessEarlyStopping("score", patience=2, strict=False)
    with pytest.warns(UserWarning, match="`monitor` must be the key of a value that is logged before"):
        trainer = fit(scores(0.5, 0.4, None, 0.3, 0.9, 0.9), stopper, where="training_epoch")
    assert reasons(stopper) == ["missing", "improved", "not improved", "stale", "patience exhausted"]
    assert trainer.current_epoch == 5


def test_a_missing_key_is_named_with_its_neighbours():
    with pytest.raises(ArgumentError) as caught:
        fit(scores(0.5), CAMRobustnessEarlyStopping("scoer"))
    for part in ("CAMRobustnessEarlyStopping: `monitor`", "'scoer'", "Nearest there: 'score'", "CAMRobustnessCallback"):
        assert part in str(caught.value)
    stopper = CAMRobustnessEarlyStopping("score", guard="val_ac", guard_floor=0.5)
    with pytest.raises(ArgumentError, match="`guard` must be the key of a value.*'val_ac'.*'val_acc'"):
        fit([{"score": 0.5, "val_acc": 0.9}], stopper)


def test_a_missing_key_can_be_tolerated():
    stopper = CAMRobustnessEarlyStopping("later", strict=False, patience=1)
    with pytest.warns(UserWarning, match="'later', which was not logged") as told:
        trainer = fit([{"score": 0.5}] * 2 + [{"later": 0.5}, {"later": 0.6}, {"later": 0.1}, {}], stopper)
    assert len([each for each in told if "later" in str(each.message)]) == 1
    assert reasons(stopper) == ["missing", "missing", "improved", "improved", "patience exhausted"]
    assert trainer.current_epoch == 5


def test_nan_is_told_once():
    with pytest.warns(UserWarning, match="CAMRobustnessEarlyStopping: 'score' is nan") as told:
        fit(scores(NAN, NAN, 0.5), CAMRobustnessEarlyStopping("score"))
    assert len([each for each in told if "is nan" in str(each.message)]) == 1


def test_the_stop_is_told_in_one_sentence(caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit(scores(0.5, 0.4, 0.3), CAMRobustnessEarlyStopping("score", patience=2))
    (told,) = [message for message in caplog.messages if "CAMRobustnessEarlyStopping" in message]
    assert told == (
        "CAMRobustnessEarlyStopping stops the training in epoch 2: 'score' is 0.3, patience exhausted (best 0.5 in "
        "epoch 0, fresh values without improvement since: 2, patience 2)."
    )


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_resumed_training_stops_where_an_uninterrupted_one_does(tmp_path, cut):
    settings = {"patience": 2, "guard": "val_acc", "guard_floor": 0.5}
    rows = [(0.3, 0.9), (0.5, None), (None, 0.9), (0.4, None), (None, None), (0.5, None), (0.9, 0.9)]
    keys = ("score", "val_acc")
    script = [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]
    whole = CAMRobustnessEarlyStopping("score", **settings)
    assert fit(script, whole).current_epoch == 6
    kept = ModelCheckpoint(tmp_path, filename="kept", save_top_k=-1)
    half, other = CAMRobustnessEarlyStopping("score", **settings), CAMRobustnessEarlyStopping("val_acc", patience=50)
    fit(script, half, other, kept, epochs=cut, enable_checkpointing=True)
    again, twin = CAMRobustnessEarlyStopping("score", **settings), CAMRobustnessEarlyStopping("val_acc", patience=50)
    trainer = fit(script, again, twin, ckpt_path=kept.best_model_path)
    assert trainer.current_epoch == 6
    assert again.verdicts == whole.verdicts
    assert again.stopped_epoch == whole.stopped_epoch == 5
    stored = torch.load(kept.best_model_path, weights_only=True)["callbacks"]  # plain data
    assert stored[half.state_key]["patience"] == 2
    assert {half.state_key, other.state_key} <= stored.keys()


def resumed(script, tmp_path, *, where="validation_step", epochs=1, **settings):
    """Stop after some epochs, and go on in another trainer with a stopper of other settings."""
    kept = ModelCheckpoint(tmp_path, filename="kept")
    fit(script, CAMRobustnessEarlyStopping("score"), kept, where=where, epochs=epochs, enable_checkpointing=True)
    again = CAMRobustnessEarlyStopping("score", **settings)
    fit(script, again, where=where, ckpt_path=kept.best_model_path)
    return again


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_constant_logged_in_training_steps_is_stale_after_a_resume_too(tmp_path):
    whole = CAMRobustnessEarlyStopping("score", patience=1)
    fit(scores(0.5, 0.5, 0.5, 0.5), whole, where="training_step")
    again = resumed(scores(0.5, 0.5, 0.5, 0.5), tmp_path, where="training_step", patience=1)
    assert reasons(again) == reasons(whole) == ["improved", "stale", "stale", "stale"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_training_that_goes_on_was_not_stopped(tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="kept", save_on_train_epoch_end=True)
    first = CAMRobustnessEarlyStopping("score", patience=1)
    fit(scores(0.5, 0.4, 0.3), first, kept, enable_checkpointing=True)
    assert first.stopped_epoch == 1
    again = CAMRobustnessEarlyStopping("score", patience=9)
    assert fit(scores(0.5, 0.4, 0.3, 0.2), again, ckpt_path=kept.best_model_path).current_epoch == 4
    assert again.stopped_epoch is None


def test_it_survives_pickling_after_a_fit():
    stopper = CAMRobustnessEarlyStopping("score", patience=2)
    fit(scores(0.5, 0.4), stopper)
    for twin in (pickle.loads(pickle.dumps(stopper)), copy.deepcopy(stopper)):
        assert twin.state_dict() == stopper.state_dict()
    assert len(pickle.dumps(stopper)) < 4000


class Watched(DigitModule):
    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self(images).argmax(1) == labels).float().mean())


def watch(**settings):
    return CAMRobustnessCallback(
        ["gradcam"], ["gaussian_noise"], severities=(3,), segmenter="grid", num_samples=8, mean=0.0, std=1.0, **settings
    )


def watched_fit(*callbacks, epochs=6):
    trainer = quiet(list(callbacks), epochs=epochs)
    trainer.fit(trained(Watched()), digit_loader(0, 32), digit_loader(400, 16))
    return trainer


def test_with_the_callback_every_second_epoch():
    """Each fresh score is made better than the one before, so nobody should stop; Lightning's own does."""
    ours = CAMRobustnessEarlyStopping(patience=1, mode="max", guard="val_acc", guard_floor=0.0, min_delta=0.0)
    rising = Rising(watch(every_n_epochs=2))
    assert watched_fit(rising.callback, rising, ours).current_epoch == 6
    assert [row["fresh"] for row in ours.verdicts] == [True, False] * 3
    rising = Rising(watch(every_n_epochs=2))
    with pytest.warns(UserWarning, match="EarlyStopping reads a score that is renewed only every 2 epochs"):
        theirs = watched_fit(rising.callback, rising, EarlyStopping("val_cam_robustness", mode="max", patience=1))
    assert theirs.current_epoch == 2


class Rising(pl.Callback):
    """Let the score rise: what the callback logs is replaced before it is logged, and only then."""

    def __init__(self, callback):
        self.callback = callback
        self.count = 0

    def setup(self, trainer, pl_module, stage):
        log = type(pl_module).log

        def higher(module, key, value, **settings):
            if key == "val_cam_robustness":
                self.count += 1
                value = torch.full_like(value, self.count / 10)
            return log(module, key, value, **settings)

        pl_module.log = higher.__get__(pl_module)


def test_the_callbacks_keys_are_known_beforehand():
    callback = watch()
    names = {key for key in watched_fit(callback, epochs=1).callback_metrics if "cam" in key}
    assert len(names) >= 8
    fresh = watch()
    assert all(may_log(fresh, key) and may_log(callback, key) for key in names)
    assert not any(may_log(each, "val_acc") for each in (fresh, callback))
    assert not may_log(fresh, "val_cam_robustnes")
    assert not may_log(fresh, "val_other_robustness")
    assert not may_log(callback, "cam_robustness/gradcam/gausian_noise/3")  # known once there is a report
    assert not may_log(EarlyStopping("x"), "val_cam_robustness")


def test_a_score_that_could_not_be_computed_is_only_not_fresh():
    """All maps are flat: the callback warns and logs none. That is no misspelt key."""
    flat = trained(Watched())
    torch.nn.init.zeros_(flat.net[10].weight)
    stopper = CAMRobustnessEarlyStopping(patience=1)
    trainer = quiet([watch(), stopper], epochs=2)
    flat.configure_optimizers = lambda: torch.optim.SGD(flat.parameters(), lr=0.0)
    with pytest.warns(UserWarning, match="no pair of maps could be scored"):
        trainer.fit(flat, digit_loader(0, 32), digit_loader(400, 16))
    assert reasons(stopper) == ["missing", "missing"]
