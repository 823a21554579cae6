"""The settings of `CAMRobustnessEarlyStopping` that a decision rests on, checked by name."""

import math
from dataclasses import dataclass
from typing import Literal, SupportsFloat, SupportsIndex

from lightning_camrobust.errors import ArgumentError

_LAST_BIT = 2.0**-23


@dataclass(frozen=True)
class StoppingRule:
    """The settings of `CAMRobustnessEarlyStopping` that a decision rests on, checked; see there.

    Raises:
        ArgumentError: If a setting is out of range, or a guard and its bounds do not come together.

    Example:
        >>> rule = StoppingRule(guard="val_acc", guard_floor=0.6)
        >>> rule.guards(0.61), rule.guards(0.59), rule.guards(None)
        (True, False, False)
    """

    patience: int = 3
    min_delta: float = 0.0
    mode: Literal["max", "min"] = "max"
    start_epoch: int = 0
    guard: str | None = None
    guard_floor: float | None = None
    guard_ceiling: float | None = None
    stopping_threshold: float | None = None
    check_finite: bool = False

    def __post_init__(self) -> None:
        _require(whole(self.patience, least=1), "patience", self.patience, "a whole number of at least 1")
        _require(whole(self.start_epoch, least=0), "start_epoch", self.start_epoch, "a whole number of at least 0")
        _require(self.mode in ("max", "min"), "mode", self.mode, "'max' or 'min'")
        delta = self.min_delta
        _require(_number(delta) and delta >= 0, "min_delta", delta, "a number of at least 0, whatever the mode")
        for name in ("guard_floor", "guard_ceiling", "stopping_threshold"):
            bound = getattr(self, name)
            _require(bound is None or _number(bound), name, bound, "a finite number, or None")
        self._check_guard()

    def _check_guard(self) -> None:
        floor, ceiling = self.guard_floor, self.guard_ceiling
        word = isinstance(self.guard, str) and bool(self.guard)
        _require(self.guard is None or word, "guard", self.guard, "the key of a logged value, or None")
        if self.guard is not None and floor is None and ceiling is None:
            wanted = "accompanied by `guard_floor` (for an accuracy) or `guard_ceiling` (for a loss)"
            _require(False, "guard", self.guard, wanted)
        for name in ("guard_floor", "guard_ceiling"):
            alone = self.guard is None and getattr(self, name) is not None
            _require(not alone, name, getattr(self, name), "accompanied by `guard`, the key of the value it bounds")
        if floor is not None and ceiling is not None:
            _require(floor <= ceiling, "guard_floor", floor, f"at most `guard_ceiling`, which is {ceiling!r}")

    def guards(self, guard: float | None) -> bool:
        """Tell whether the guard allows values to count.

        Args:
            guard: The guarding number, None if there is none yet.

        Returns:
            The answer; always true without a guard, never for NaN.
        """
        if self.guard is None:
            return True
        if guard is None:
            return False
        above = self.guard_floor is None or at_least(guard, self.guard_floor)
        return above and (self.guard_ceiling is None or at_least(-guard, -self.guard_ceiling))


def at_least(value: float, bound: float) -> bool:
    """Tell whether a value reaches a bound; 0.7 logged in float32 is a little less than 0.7, and reaches it.

    Example:
        >>> at_least(0.699999988079071, 0.7), at_least(0.6999, 0.7)
        (True, False)
    """
    return value >= bound or math.isclose(value, bound, rel_tol=1e-6)


def exceeds(value: float, best: float, *, by: float) -> bool:
    """Tell whether a value is larger than another by more than a margin.

    Example:
        >>> exceeds(0.6000000238418579, 0.5, by=0.1), exceeds(0.6001, 0.5, by=0.1), exceeds(0.5000001, 0.5, by=0.0)
        (False, True, True)
    """
    # Two numbers logged in float32 may lie further apart than meant, by half a last bit each.
    rounding = _LAST_BIT * max(abs(value), abs(best)) if by > 0 else 0.0
    return value - best > by + rounding


def whole(value: object, *, least: int) -> bool:
    """Tell whether a setting is a whole number that is large enough; True and 1.0 are none."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool) and value.__index__() >= least


def _number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool) and math.isfinite(float(value))


def _require(holds: bool, argument: str, got: object, wanted: str) -> None:
    if not holds:
        raise ArgumentError(f"CAMRobustnessEarlyStopping: `{argument}` must be {wanted}, got {got!r}.")
