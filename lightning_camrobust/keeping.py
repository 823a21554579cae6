"""StableCheckpoint: keep the checkpoints of networks that are accurate and look steadily."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_camrobust import messages
from lightning_camrobust.both_lightnings import AnyModelCheckpoint
from lightning_camrobust.monitored import MonitoredValues
from lightning_camrobust.tradeoff import KeepingRule, Pair, check_keys, check_last, how_many
from lightning_camrobust.trainers import is_dry_run, validates_a_fit

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

SCORE_KEY = "val_stable_accuracy"


class KeptCheckpoint(NamedTuple):
    """A checkpoint that is kept, and why.

    Attributes:
        path: Its file.
        accuracy: Its accuracy, or its loss.
        stability: Its stability.
    """

    path: str
    accuracy: float
    stability: float


class StableCheckpoint(AnyModelCheckpoint):
    """Keep checkpoints by accuracy and stability together.

    A `ModelCheckpoint` in all else: ``best_model_path``, ``best_k_models``, ``trainer.test(ckpt_path="best")``, file
    names, resuming. It looks at each validation of a fit in which both values were logged anew, and never at an old
    value or a NaN.

    ``rule="weighted"`` keeps the ``save_top_k`` highest ``(1 - w) * accuracy + w * stability``, a number that is also
    put into ``trainer.callback_metrics["val_stable_accuracy"]``. ``rule="pareto"`` keeps every checkpoint that no
    other one equals or excels in both values, and removes those that are beaten; ``best_model_path`` is then the one
    of the highest weighted number or, where accuracy is a loss, of the lowest loss.

    Args:
        dirpath: Folder, as in `ModelCheckpoint`.
        filename: Its pattern, such as ``"{epoch}-{val_stable_accuracy:.3f}"``.
        accuracy: Key of the accuracy.
        stability: Key of the stability, higher is better.
        rule: ``"weighted"`` or ``"pareto"``.
        stability_weight: Weight w of the stability, from 0 to 1.
        accuracy_floor: Networks of less accuracy are not kept, however steady.
        accuracy_ceiling: The same for a loss: networks above it are not kept.
        accuracy_mode: ``"max"``, or ``"min"`` for a loss, which has no weighted sum with a stability.
        save_top_k: How many to keep, -1 for all; None is 1, and with ``"pareto"``, which takes no other, the front.
        save_last: As in `ModelCheckpoint`, a copy of the last checkpoint that was kept, and none as long as none was.
        save_weights_only: As in `ModelCheckpoint`.
        auto_insert_metric_name: As in `ModelCheckpoint`.
        enable_version_counter: As in `ModelCheckpoint`.
        verbose: As in `ModelCheckpoint`.

    Raises:
        ArgumentError: If a setting is out of range; at the end of the first validation if a key does not exist.

    Example:
        >>> keeper = StableCheckpoint(rule="pareto", accuracy_floor=0.5)
        >>> keeper.front, keeper.best_model_path
        ([], '')
    """

    # Asked by `trainers.monitors_of`, which warns about callbacks that would count old values.
    counts_fresh_values_only = True

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        *,
        accuracy: str = "val_acc",
        stability: str = "val_cam_robustness",
        rule: Literal["weighted", "pareto"] = "weighted",
        stability_weight: float = 0.5,
        accuracy_floor: float | None = None,
        accuracy_ceiling: float | None = None,
        accuracy_mode: Literal["max", "min"] = "max",
        save_top_k: int | None = None,
        save_last: bool | Literal["link"] | None = None,
        save_weights_only: bool = False,
        auto_insert_metric_name: bool = True,
        enable_version_counter: bool = True,
        verbose: bool = False,
    ) -> None:
        check_keys(accuracy, stability)
        check_last(save_last)
        self.rule = KeepingRule(rule, stability_weight, accuracy_floor, accuracy_ceiling, accuracy_mode)
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=SCORE_KEY if accuracy_mode == "max" else accuracy,
            mode=accuracy_mode,
            save_top_k=how_many(rule, save_top_k),
            save_last=save_last,
            save_weights_only=save_weights_only,
            auto_insert_metric_name=auto_insert_metric_name,
            # Both values are there when a validation ends, and must be of this very validation.
            save_on_train_epoch_end=False,
            enable_version_counter=enable_version_counter,
            verbose=verbose,
        )
        self.accuracy = accuracy
        self.stability = stability
        keys = {"accuracy": accuracy, "stability": stability}
        self._values = MonitoredValues(keys, speaker="StableCheckpoint")
        self._pairs: dict[str, Pair] = {}
        # Of this validation: whether it was read already, and what came.
        self._combined = False
        self._current: Pair | None = None
        self._refused: float | None = None
        self._told_scales = False

    @property
    def front(self) -> list[KeptCheckpoint]:
        """The checkpoints that are kept now, the best accuracy first."""
        kept = [KeptCheckpoint(path, *self._pairs[path]) for path in self.best_k_models if path in self._pairs]
        sign = 1 if self.rule.accuracy_mode == "min" else -1
        return sorted(kept, key=lambda each: (sign * each.accuracy, -each.stability))

    @property
    def combined_key(self) -> str | None:
        """Key under which the weighted number is put, None if there is none, as with a loss."""
        return SCORE_KEY if self.rule.accuracy_mode == "max" else None

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint: one for each pair of values, rule and bound."""
        return self._generate_state_key(accuracy=self.accuracy, stability=self.stability, **asdict(self.rule))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the bound methods of the model that Lightning hangs on each callback."""
        return {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")}

    def state_dict(self) -> dict[str, Any]:
        """Return what `ModelCheckpoint` does, and the two values of each kept checkpoint."""
        pairs = {each.path: [each.accuracy, each.stability] for each in self.front}
        return {**super().state_dict(), "pairs": pairs, "known": dict(self._values.known)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._pairs = {path: Pair(*values) for path, values in state_dict["pairs"].items()}
        self._values.resume(state_dict["known"])

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Give up checkpoints whose files are gone, as after a resume from an older one than the last."""
        super().on_train_start(trainer, pl_module)
        self._values.begin(trainer)
        # Where the file that was resumed from is not seen either, checkpoints lie where only their plugin finds them.
        seen = trainer.ckpt_path is not None and self.file_exists(str(trainer.ckpt_path), trainer)
        gone = [path for path in self.best_k_models if seen and not self.file_exists(path, trainer)]
        if gone:
            self._give_up(gone)
            rank_zero_warn(messages.files_gone(gone), category=UserWarning)

    def on_validation_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Remember what is logged so far."""
        if validates_a_fit(trainer):
            self._values.start(trainer)
            self._combined = False

    def combine(self, trainer: "Trainer") -> None:
        """Read both values and put their weighted number among the others, once in a validation of a fit.

        As checkpoints come last, callbacks of ours that read this number call it before; with several processes, all
        of them have to.

        Args:
            trainer: At the end of a validation.

        Raises:
            ArgumentError: If a key was never logged.
        """
        if self._combined:
            return
        self._combined = True
        pair = self._fresh_pair(trainer)
        self._current = None if is_dry_run(trainer) else pair
        if self._current is not None and self.combined_key is not None:
            score = self.rule.score(self._current)
            trainer.callback_metrics[self.combined_key] = torch.tensor(score, dtype=torch.float64)

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Keep a checkpoint, if both values are new and good enough."""
        if not validates_a_fit(trainer):
            return
        self.combine(trainer)
        pair = self._current
        if pair is None:
            return
        self._warn_of_scales(pair)
        if not self.rule.admits(pair):
            self._refused = pair.accuracy
        elif self.rule.rule == "weighted":
            super().on_validation_end(trainer, pl_module)
        else:
            self._keep_unbeaten(trainer, pl_module, pair)

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Say so if nothing was kept."""
        super().on_train_end(trainer, pl_module)
        if not self.best_k_models and self.save_top_k != 0 and not is_dry_run(trainer):
            text = messages.nothing_kept(self.accuracy, self.stability, self._refused, self.rule.bound)
            rank_zero_warn(text, category=UserWarning)

    def _warn_of_scales(self, pair: Pair) -> None:
        if self.rule.mixes_scales(pair) and not self._told_scales:
            self._told_scales = True
            rank_zero_warn(messages.two_scales(self.accuracy, self.stability, *pair), category=UserWarning)

    def _give_up(self, paths: list[str]) -> None:
        kept = {path: score for path, score in self.best_k_models.items() if path not in paths}
        ranked = sorted(kept, key=lambda path: float(kept[path]), reverse=self.mode == "max")
        self.best_k_models = kept
        self.best_model_path, self.kth_best_model_path = (ranked[0], ranked[-1]) if ranked else ("", "")
        self.best_model_score = kept.get(self.best_model_path)
        self.kth_value = kept.get(self.kth_best_model_path, self.kth_value)

    def _fresh_pair(self, trainer: "Trainer") -> Pair | None:
        found = self._values.read(trainer)
        self._values.refuse_missing(trainer, found)
        accuracy, stability = found[self.accuracy], found[self.stability]
        if not (accuracy.fresh and stability.fresh) or accuracy.value is None or stability.value is None:
            return None
        pair = Pair(accuracy.value, stability.value)
        return pair if math.isfinite(pair.accuracy) and math.isfinite(pair.stability) else None

    def _keep_unbeaten(self, trainer: "Trainer", pl_module: "LightningModule", pair: Pair) -> None:
        beaten = self.rule.beaten(pair, {each.path: Pair(each.accuracy, each.stability) for each in self.front})
        if beaten is None:
            return
        # They go before the new one is saved, as the file of the new one holds this callback's state as well.
        leaving = {path: self.best_k_models.pop(path) for path in beaten}
        super().on_validation_end(trainer, pl_module)
        new = next((path for path, kept in self._pairs.items() if kept is pair), None)
        if new is None:
            # Nothing was saved: Lightning saves one checkpoint a step only.
            self.best_k_models.update(leaving)
            return
        for path in leaving:
            if self._should_remove_checkpoint(trainer, path, new):
                self._remove_checkpoint(trainer, path)

    def _monitor_candidates(self, trainer: "Trainer") -> dict[str, Tensor]:
        candidates = super()._monitor_candidates(trainer)
        if self._current is not None:
            # Processes may hold numbers of their own; file names and the best path have to be the same on all.
            agreed = {self.accuracy: self._current.accuracy, self.stability: self._current.stability}
            if self.combined_key is not None:
                # Another StableCheckpoint may have put its own number there meanwhile.
                agreed[self.combined_key] = self.rule.score(self._current)
            candidates.update({key: torch.tensor(value, dtype=torch.float64) for key, value in agreed.items()})
        return candidates

    def _save_last_checkpoint(self, trainer: "Trainer", monitor_candidates: dict[str, Tensor]) -> None:
        # Lightning also asks for it at the end of a training, and older versions do after each validation.
        if self._last_checkpoint_saved and self._last_global_step_saved == trainer.global_step:
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def _save_checkpoint(self, trainer: "Trainer", filepath: str) -> None:
        self._pairs = {path: pair for path, pair in self._pairs.items() if path in self.best_k_models}
        if self._current is not None and filepath in self.best_k_models:
            self._pairs[filepath] = self._current
        super()._save_checkpoint(trainer, filepath)
