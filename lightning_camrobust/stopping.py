"""CAMRobustnessEarlyStopping: stop a training by values that were measured anew, and by no others."""

from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_camrobust.both_lightnings import AnyCallback
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.freshness import Reading
from lightning_camrobust.monitored import MonitoredValues
from lightning_camrobust.patience import Progress, Seen, Verdict, judge
from lightning_camrobust.stopping_rule import StoppingRule
from lightning_camrobust.trainers import combine_scores, is_dry_run, validates_a_fit

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class CAMRobustnessEarlyStopping(AnyCallback):
    """Stop training when a score, counted only where it was logged anew, has stopped improving.

    Lightning's `EarlyStopping` reads a score that is renewed every n-th epoch in each epoch, and counts the old value
    as no improvement. This one counts fresh values only, can wait for a warm-up, and can ask for a second value, such
    as an accuracy, to be good enough: an untrained network that always answers the same class has steady maps, and its
    score should neither become the best nor end the training. Validations of a fit count, several in an epoch too;
    the sanity check, ``trainer.validate`` and ``fast_dev_run`` do not. All processes decide alike.

    Args:
        monitor: Key of the score.
        patience: How many fresh values in a row without improvement stop the training.
        min_delta: How much better than the best a value must be, at least 0; exactly that much, but for the rounding of
            numbers to 32 bits, is no improvement.
        mode: ``"max"`` if higher is better, else ``"min"``.
        start_epoch: Values of earlier epochs (counted from 0) are neither best nor counted.
        guard: Key of another value; while it misses its bound or is NaN, values are neither best nor counted.
        guard_floor: Least good value of the guard.
        guard_ceiling: Largest good value of the guard.
        stopping_threshold: Stop at once when a counted value reaches it.
        check_finite: Whether NaN or infinity stops the training; without it such values only do not count.
        strict: Whether a key that was never logged is an error; else there is one warning.
        verbose: Whether to tell about each validation and not only about the stop.

    Attributes:
        best_score: Best value counted so far, None before the first.
        best_epoch: Its epoch, None before the first.
        wait_count: Fresh values counted since.
        stopped_epoch: Epoch in which the last training was stopped, None if it was not.
        verdicts: One row for each validation: ``epoch``, ``step``, ``value``, ``fresh``, ``guard``, ``counted``,
            ``reason``, ``stop``, ``best_score``, ``wait_count``.

    Raises:
        ArgumentError: If a setting is out of range; at the end of the first validation if a key does not exist.

    Example:
        >>> stopper = CAMRobustnessEarlyStopping(patience=2, start_epoch=3, guard="val_acc", guard_floor=0.6)
        >>> stopper.monitor, stopper.best_score, stopper.verdicts
        ('val_cam_robustness', None, [])
    """

    # Asked by `trainers.monitors_of`, which warns about callbacks that would count old values.
    counts_fresh_values_only = True

    def __init__(
        self,
        monitor: str = "val_cam_robustness",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["max", "min"] = "max",
        start_epoch: int = 0,
        guard: str | None = None,
        guard_floor: float | None = None,
        guard_ceiling: float | None = None,
        stopping_threshold: float | None = None,
        check_finite: bool = False,
        strict: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(monitor, str) or not monitor:
            raise ArgumentError(
                f"CAMRobustnessEarlyStopping: `monitor` must be the key of a logged value, got {monitor!r}."
            )
        self.monitor = monitor
        self.strict = strict
        self.verbose = verbose
        self.rule = StoppingRule(
            patience=patience,
            min_delta=min_delta,
            mode=mode,
            start_epoch=start_epoch,
            guard=guard,
            guard_floor=guard_floor,
            guard_ceiling=guard_ceiling,
            stopping_threshold=stopping_threshold,
            check_finite=check_finite,
        )
        self.stopped_epoch: int | None = None
        self.verdicts: list[dict[str, Any]] = []
        self._progress = Progress()
        guarded = {} if guard is None else {"guard": guard}
        self._values = MonitoredValues({"monitor": monitor, **guarded}, speaker="CAMRobustnessEarlyStopping")
        self._told: set[str] = set()

    @property
    def best_score(self) -> float | None:
        """Best value counted so far."""
        return self._progress.best_score

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best value."""
        return self._progress.best_epoch

    @property
    def wait_count(self) -> int:
        """Fresh values counted since the best one."""
        return self._progress.wait_count

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint: one for each score that is monitored."""
        return self._generate_state_key(monitor=self.monitor, mode=self.rule.mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the bound methods of the model that Lightning hangs on each callback."""
        return {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")}

    def state_dict(self) -> dict[str, Any]:
        """Return as plain data what a resumed training needs, and the patience, for whoever reads the checkpoint."""
        return {
            **self._progress._asdict(),
            "stopped_epoch": self.stopped_epoch,
            "patience": self.rule.patience,
            "known": dict(self._values.known),
            "verdicts": [dict(row) for row in self.verdicts],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint. The settings, patience among them, stay those of this object."""
        self._progress = Progress(**{name: state_dict[name] for name in Progress._fields})
        self.stopped_epoch = state_dict["stopped_epoch"]
        self._values.resume(state_dict["known"])
        self.verdicts = [dict(row) for row in state_dict["verdicts"]]

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Forget that an earlier training was stopped, as this one goes on."""
        self.stopped_epoch = None
        self._values.begin(trainer)

    def on_validation_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Remember what is logged so far."""
        if validates_a_fit(trainer):
            self._values.start(trainer)

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Decide, after all scores of this validation are logged."""
        if not validates_a_fit(trainer):
            return
        combine_scores(trainer, self._values.keys)
        found = self._values.read(trainer)
        missing = self._values.missing(trainer, found)
        if missing is not None and self.strict:
            raise ArgumentError(missing)
        if missing is not None:
            self._warn_once("missing", missing)
        if not is_dry_run(trainer):
            self._decide(trainer, found)

    def _decide(self, trainer: "Trainer", found: dict[str, Reading]) -> None:
        value = found[self.monitor]
        guard = None if self.rule.guard is None else found[self.rule.guard].value
        seen = Seen(trainer.current_epoch, value.value, value.fresh, guard, _may_stop(trainer))
        verdict = judge(self.rule, self._progress, seen)
        self._progress = verdict.progress
        self._record(trainer, seen, verdict)
        if verdict.reason == "not finite":
            self._warn_once("not finite", _not_finite(self.monitor, seen.value))
        if verdict.stop:
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch
        if verdict.stop or self.verbose:
            rank_zero_info(_sentence(self.monitor, self.rule, seen, verdict))

    def _record(self, trainer: "Trainer", seen: Seen, verdict: Verdict) -> None:
        self.verdicts.append(
            {
                "epoch": seen.epoch,
                "step": trainer.global_step,
                "value": seen.value,
                "fresh": seen.fresh,
                "guard": seen.guard,
                "counted": verdict.counted,
                "reason": verdict.reason,
                "stop": verdict.stop,
                "best_score": self.best_score,
                "wait_count": self.wait_count,
            }
        )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            rank_zero_warn(text, category=UserWarning)


def _may_stop(trainer: "Trainer") -> bool:
    # `should_stop` stays set, so that set too early it would end the training at `min_epochs`, whatever came since. The
    # trainer counts an epoch when its last batch is done.
    completed = trainer.current_epoch + trainer.is_last_batch
    return completed >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)


def _not_finite(monitor: str, value: float | None) -> str:
    return (
        f"CAMRobustnessEarlyStopping: {monitor!r} is {value}; such values are not counted. Pass check_finite=True to "
        "stop the training at them."
    )


def _sentence(monitor: str, rule: StoppingRule, seen: Seen, verdict: Verdict) -> str:
    number = "nothing" if seen.value is None else f"{seen.value:.4g}"
    best, epoch, waited = verdict.progress
    record = "no value counted yet" if best is None else f"best {best:.4g} in epoch {epoch}"
    start = "CAMRobustnessEarlyStopping stops the training" if verdict.stop else "CAMRobustnessEarlyStopping goes on"
    return (
        f"{start} in epoch {seen.epoch}: {monitor!r} is {number}, {verdict.reason} ({record}, fresh values without "
        f"improvement since: {waited}, patience {rule.patience})."
    )
