"""When to stop: a pure decision on one value after another. No trainer, no tensors."""

import math
from typing import Literal, NamedTuple, TypeAlias

from lightning_camrobust.stopping_rule import StoppingRule, at_least, exceeds

Reason: TypeAlias = Literal[
    "missing", "stale", "warm-up", "not finite", "guard missed",  # not counted
    "improved", "not improved", "patience exhausted", "threshold reached", "too early to stop",
]  # fmt: skip
_NOT_COUNTED = ("missing", "stale", "warm-up", "not finite", "guard missed")


class Seen(NamedTuple):
    """What one validation brought.

    Attributes:
        epoch: Current epoch, from 0.
        value: The monitored number, None if there is none yet.
        fresh: Whether it was logged anew.
        guard: The guarding number, None if there is none.
        may_stop: False while the trainer's ``min_epochs`` or ``min_steps`` are not reached.
    """

    epoch: int
    value: float | None
    fresh: bool = True
    guard: float | None = None
    may_stop: bool = True


class Progress(NamedTuple):
    """What is remembered from one validation to the next.

    Attributes:
        best_score: Best value counted so far, None before the first.
        best_epoch: Its epoch.
        wait_count: Values counted since then.
    """

    best_score: float | None = None
    best_epoch: int | None = None
    wait_count: int = 0


class Verdict(NamedTuple):
    """What follows from one validation.

    Attributes:
        reason: Why, in a word or two.
        stop: Whether training should stop.
        progress: What to remember.
    """

    reason: Reason
    stop: bool
    progress: Progress

    @property
    def counted(self) -> bool:
        """Whether the value counted at all, as the best or for patience."""
        return self.reason not in _NOT_COUNTED


def judge(rule: StoppingRule, progress: Progress, seen: Seen) -> Verdict:
    """Decide on one validation.

    Args:
        rule: The settings.
        progress: What is remembered of the validations before.
        seen: What this one brought.

    Returns:
        The verdict, with what to remember from here on.

    Example:
        >>> rule = StoppingRule(patience=1)
        >>> judge(rule, Progress(best_score=0.8, best_epoch=2), Seen(epoch=3, value=0.7))
        Verdict(reason='patience exhausted', stop=True, progress=Progress(best_score=0.8, best_epoch=2, wait_count=1))
    """
    reason = _why_not_counted(rule, seen)
    if reason is not None:
        return Verdict(reason, rule.check_finite and reason == "not finite" and seen.may_stop, progress)
    assert seen.value is not None
    sign = 1 if rule.mode == "max" else -1
    best = progress.best_score
    if best is None or exceeds(sign * seen.value, sign * best, by=rule.min_delta):
        progress, outcome = Progress(seen.value, seen.epoch, 0), "improved"
    else:
        progress, outcome = progress._replace(wait_count=progress.wait_count + 1), "not improved"
    cause = _cause_to_stop(rule, progress, sign * seen.value)
    if cause is None:
        return Verdict("improved" if outcome == "improved" else "not improved", False, progress)
    return Verdict(cause if seen.may_stop else "too early to stop", seen.may_stop, progress)


def _why_not_counted(rule: StoppingRule, seen: Seen) -> Reason | None:
    if seen.value is None:
        return "missing"
    if not seen.fresh:
        return "stale"
    if seen.epoch < rule.start_epoch:
        return "warm-up"
    if not math.isfinite(seen.value):
        return "not finite"
    return None if rule.guards(seen.guard) else "guard missed"


def _cause_to_stop(rule: StoppingRule, progress: Progress, signed: float) -> Reason | None:
    threshold = rule.stopping_threshold
    if threshold is not None and at_least(signed, threshold if rule.mode == "max" else -threshold):
        return "threshold reached"
    return "patience exhausted" if progress.wait_count >= rule.patience else None
