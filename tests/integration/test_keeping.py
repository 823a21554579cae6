"""StableCheckpoint in real fits: which files lie in the folder, and what the callback says of them."""

import copy
import pickle
from pathlib import Path

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_camrobust import StableCheckpoint
from lightning_camrobust.errors import ArgumentError
from tests.integration.stopping_run import loaders, quiet, scripted

NAN = float("nan")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def pairs(*rows):
    keys = ("val_acc", "score")
    return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]


def keeper(folder, **settings):
    return StableCheckpoint(folder, "{epoch}", **{"stability": "score", **settings})


def fit(script, *callbacks, package=pl, batches=2, ckpt_path=None, epochs=None, **settings):
    trainer = quiet(
        list(callbacks), epochs=epochs or len(script), package=package, enable_checkpointing=True, **settings
    )
    trainer.fit(scripted(script, package=package), *loaders(batches), ckpt_path=ckpt_path)
    return trainer


def files(folder):
    return sorted(path.stem for path in Path(folder).iterdir()) if Path(folder).is_dir() else []


def told(kept):
    return [(Path(each.path).stem, round(each.accuracy, 4), round(each.stability, 4)) for each in kept.front]


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_weighted_keeps_the_best_combination(tmp_path, package):
    kept = keeper(tmp_path, stability_weight=0.25)
    # 0.75 * accuracy + 0.25 * stability: 0.6, 0.7, 0.675
    trainer = fit(pairs((0.5, 0.9), (0.8, 0.4), (0.6, 0.9)), kept, package=package)
    assert files(tmp_path) == ["epoch=1"]
    assert Path(kept.best_model_path).stem == "epoch=1"
    assert float(kept.best_model_score) == pytest.approx(0.7)
    assert told(kept) == [("epoch=1", 0.8, 0.4)]
    assert float(trainer.callback_metrics["val_stable_accuracy"]) == pytest.approx(0.675)
    module = scripted(pairs((0, 0)), package=package)
    trainer.test(module, loaders()[1], ckpt_path="best", verbose=False)
    assert module.validations == 2  # the weights of the second epoch


def test_weighted_keeps_several(tmp_path):
    kept = keeper(tmp_path, save_top_k=2)
    fit(pairs((0.5, 0.9), (0.1, 0.1), (0.6, 0.9), (0.6, 0.6)), kept)
    assert files(tmp_path) == ["epoch=0", "epoch=2"]
    assert told(kept) == [("epoch=2", 0.6, 0.9), ("epoch=0", 0.5, 0.9)]
    assert len(kept.best_k_models) == 2


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_pareto_keeps_what_nobody_beats(tmp_path, package):
    kept = keeper(tmp_path, rule="pareto")
    rows = [(0.5, 0.5), (0.4, 0.9), (0.5, 0.5), (0.6, 0.5), (0.3, 0.9), (0.9, 0.1)]
    fit(pairs(*rows), kept, package=package)
    # The first is beaten by the fourth, the third is its double, the fifth is beaten by the second.
    assert files(tmp_path) == ["epoch=1", "epoch=3", "epoch=5"]
    assert told(kept) == [("epoch=5", 0.9, 0.1), ("epoch=3", 0.6, 0.5), ("epoch=1", 0.4, 0.9)]
    assert Path(kept.best_model_path).stem == "epoch=1"  # 0.65 is the highest weighted number


def test_pareto_with_a_loss(tmp_path):
    kept = keeper(tmp_path, rule="pareto", accuracy_mode="min", accuracy_ceiling=2.0)
    trainer = fit(pairs((2.5, 0.99), (1.0, 0.5), (0.5, 0.4), (0.5, 0.3), (0.7, 0.6)), kept)
    assert told(kept) == [("epoch=2", 0.5, 0.4), ("epoch=4", 0.7, 0.6)]
    assert files(tmp_path) == ["epoch=2", "epoch=4"]
    assert Path(kept.best_model_path).stem == "epoch=2"
    assert float(kept.best_model_score) == pytest.approx(0.5)
    assert "val_stable_accuracy" not in trainer.callback_metrics


@pytest.mark.parametrize("rule", ["weighted", "pareto"])
def test_only_fresh_and_finite_pairs_count(tmp_path, rule):
    kept = keeper(tmp_path, rule=rule, save_top_k=-1)
    rows = [(0.1, 0.2), (0.9, None), (None, 0.9), (None, None), (NAN, 0.9), (0.9, NAN), (0.2, 0.1)]
    fit(pairs(*rows), kept)
    assert files(tmp_path) == ["epoch=0", "epoch=6"]
    assert told(kept) == [("epoch=6", 0.2, 0.1), ("epoch=0", 0.1, 0.2)]


@pytest.mark.parametrize("rule", ["weighted", "pareto"])
def test_the_floor_keeps_untrained_networks_out(tmp_path, rule):
    kept = keeper(tmp_path, rule=rule, accuracy_floor=0.6)
    fit(pairs((0.1, 1.0), (0.1, 1.0), (0.7, 0.3)), kept)
    assert told(kept) == [("epoch=2", 0.7, 0.3)]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (pairs((0.1, 1.0), (0.2, 1.0)), "'val_acc' never met accuracy_floor=0.6; it was 0.2 in the last validation"),
        (pairs((0.9, NAN)), "no validation brought a new 'val_acc' and a new 'score' that are both finite"),
    ],
)
def test_keeping_nothing_is_told(tmp_path, script, message):
    with pytest.warns(UserWarning, match=f"StableCheckpoint kept no checkpoint: {message}"):
        fit(script, keeper(tmp_path, accuracy_floor=0.6))
    assert files(tmp_path) == []


def test_missing_keys_are_named(tmp_path):
    with pytest.raises(ArgumentError, match="StableCheckpoint: `accuracy` must be .* got 'val_ac'.*'val_acc'"):
        fit(pairs((0.5, 0.5)), keeper(tmp_path, accuracy="val_ac"))
    with pytest.raises(ArgumentError, match="StableCheckpoint: `stability` must be .* got 'scor'.*'score'"):
        fit(pairs((0.5, 0.5)), keeper(tmp_path, stability="scor"))


def test_the_sanity_check_and_dry_runs_save_nothing(tmp_path):
    kept = keeper(tmp_path)
    fit(pairs((0.5, 0.5)), kept, num_sanity_val_steps=1, fast_dev_run=True)
    assert files(tmp_path) == []
    fit(pairs((0.5, 0.5), (0.6, 0.6)), kept, num_sanity_val_steps=1)
    assert told(kept) == [("epoch=1", 0.6, 0.6)]


def test_several_validations_an_epoch(tmp_path):
    kept = StableCheckpoint(tmp_path, "{step}-{val_stable_accuracy:.2f}", stability="score", rule="pareto")
    fit(pairs((0.5, 0.5), (0.4, 0.8), (0.7, 0.7), (0.9, 0.1)), kept, batches=4, val_check_interval=0.5)
    assert files(tmp_path) == ["step=4-val_stable_accuracy=0.60", "step=6-val_stable_accuracy=0.70",
                               "step=8-val_stable_accuracy=0.50"]  # fmt: skip


def test_two_validations_at_one_step_lose_nothing(tmp_path):
    """Lightning saves once a step, and not before the first; what an unsaved one would have beaten has to stay."""
    kept = StableCheckpoint(tmp_path, "{step}", stability="score", rule="pareto")
    # Steps 0, 1, 1 and 2: the first and the third are not saved.
    script = pairs((0.9, 0.9), (0.5, 0.5), (0.6, 0.6), (0.4, 0.8))
    fit(script, kept, epochs=1, batches=4, val_check_interval=1, accumulate_grad_batches=2)
    assert told(kept) == [("step=1", 0.5, 0.5), ("step=2", 0.4, 0.8)]
    assert files(tmp_path) == ["step=1", "step=2"]


def test_without_versions_a_file_is_written_over(tmp_path):
    kept = StableCheckpoint(tmp_path, "one", stability="score", rule="pareto", enable_version_counter=False)
    fit(pairs((0.5, 0.5), (0.4, 0.8), (0.9, 0.9)), kept)
    assert files(tmp_path) == ["one"]
    assert told(kept) == [("one", 0.9, 0.9)]


def test_beside_other_callbacks(tmp_path):
    """The same folder and the same names, and others that read the combined number."""
    ours, theirs = keeper(tmp_path), ModelCheckpoint(tmp_path, "{epoch}", monitor="val_acc", mode="max")
    stopper = EarlyStopping("val_stable_accuracy", mode="max", patience=1)
    trainer = fit(pairs((0.5, 0.9), (0.8, 0.1), (0.9, 0.0), (0.9, 0.9)), theirs, ours, stopper)
    assert trainer.current_epoch == 2
    assert Path(theirs.best_model_path).stem == "epoch=1"
    assert told(ours) == [("epoch=0", 0.5, 0.9)]
    assert Path(ours.best_model_path).exists()
    assert Path(theirs.best_model_path).exists()


def test_save_last_and_loggers(tmp_path):
    kept = StableCheckpoint(stability="score", save_last=True)
    trainer = fit(pairs((0.5, 0.5), (0.6, 0.6)), kept, default_root_dir=tmp_path)
    assert Path(kept.dirpath) == tmp_path / "checkpoints"
    assert files(kept.dirpath) == ["epoch=1-step=4", "last"]
    assert trainer.checkpoint_callback is kept


@pytest.mark.parametrize("rule", ["weighted", "pareto"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resuming_goes_on_as_if_nothing_had_happened(tmp_path, rule, cut):
    script = pairs((0.5, 0.5), (0.4, 0.9), (0.6, 0.6), (0.9, 0.1), (0.5, 0.95))
    whole = keeper(tmp_path / "whole", rule=rule)
    fit(script, whole)
    folder = tmp_path / "cut"
    last = ModelCheckpoint(tmp_path / "last", save_last=True)
    fit(script, keeper(folder, rule=rule), last, epochs=cut)
    again = keeper(folder, rule=rule)
    fit(script, again, ckpt_path=last.last_model_path)
    assert told(again) == told(whole)
    assert files(folder) == files(tmp_path / "whole")
    assert Path(again.best_model_path).stem == Path(whole.best_model_path).stem


def test_a_kept_checkpoint_knows_the_front_it_belongs_to(tmp_path):
    kept = keeper(tmp_path, rule="pareto")
    fit(pairs((0.5, 0.5), (0.4, 0.9), (0.6, 0.6)), kept)
    stored = torch.load(tmp_path / "epoch=2.ckpt", weights_only=True)["callbacks"][kept.state_key]
    assert sorted(Path(path).stem for path in stored["best_k_models"]) == ["epoch=1", "epoch=2"]
    assert sorted(Path(path).stem for path in stored["pairs"]) == ["epoch=1", "epoch=2"]


def test_the_checkpoint_resumed_from_is_not_removed(tmp_path):
    first = keeper(tmp_path, rule="pareto")
    fit(pairs((0.5, 0.5)), first)
    again = keeper(tmp_path, rule="pareto")
    fit(pairs((0.5, 0.5), (0.6, 0.6), (0.7, 0.7)), again, ckpt_path=first.best_model_path)
    ((newest, *values),) = told(again)  # older versions of Lightning number the first epoch again
    assert values == [0.7, 0.7]
    assert files(tmp_path) == sorted(["epoch=0", newest])


def test_it_survives_pickling_after_a_fit(tmp_path):
    kept = keeper(tmp_path, rule="pareto")
    fit(pairs((0.5, 0.5)), kept)
    for twin in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        assert twin.front == kept.front


def test_what_is_used_of_lightnings_inside_exists():
    """What is not public, and there from 2.2 to 2.6; without it the front could not be kept."""
    names = (
        "_monitor_candidates",
        "_save_checkpoint",
        "_save_last_checkpoint",
        "_should_remove_checkpoint",
        "_remove_checkpoint",
    )
    for name in names:
        assert callable(getattr(ModelCheckpoint, name))
    assert vars(ModelCheckpoint()).keys() >= {"_last_checkpoint_saved", "_last_global_step_saved"}
