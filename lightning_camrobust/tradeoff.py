"""Accuracy against stability: which of several networks to keep. A pure decision on pairs of numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, SupportsFloat

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.stopping_rule import at_least


class Pair(NamedTuple):
    """What one network reached.

    Attributes:
        accuracy: Its accuracy, or its loss.
        stability: Its stability, higher is better.
    """

    accuracy: float
    stability: float


@dataclass(frozen=True)
class KeepingRule:
    """The settings of `StableCheckpoint` that a decision rests on, checked; see there.

    Raises:
        ArgumentError: If a setting is out of range, or does not go with another.

    Example:
        >>> rule = KeepingRule(stability_weight=0.25)
        >>> round(rule.score(Pair(accuracy=0.8, stability=0.4)), 6)
        0.7
    """

    rule: Literal["weighted", "pareto"] = "weighted"
    stability_weight: float = 0.5
    accuracy_floor: float | None = None
    accuracy_ceiling: float | None = None
    accuracy_mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        _require(self.rule in ("weighted", "pareto"), "rule", self.rule, "'weighted' or 'pareto'")
        _require(self.accuracy_mode in ("max", "min"), "accuracy_mode", self.accuracy_mode, "'max' or 'min'")
        weight = self.stability_weight
        _require(_number(weight) and 0 <= weight <= 1, "stability_weight", weight, "a number from 0 to 1")
        clash = self.rule == "weighted" and self.accuracy_mode == "min"
        wanted = "'max' with rule='weighted', as a loss and a stability have no common scale; use rule='pareto'"
        _require(not clash, "accuracy_mode", self.accuracy_mode, wanted)
        for name, mode in (("accuracy_floor", "max"), ("accuracy_ceiling", "min")):
            bound = getattr(self, name)
            _require(bound is None or _number(bound), name, bound, "a finite number, or None")
            fits = bound is None or mode == self.accuracy_mode
            _require(
                fits, name, bound, f"None unless accuracy_mode={mode!r}; a loss has a ceiling, an accuracy a floor"
            )

    def admits(self, pair: Pair) -> bool:
        """Tell whether a network may be kept at all: both numbers finite, and accurate enough."""
        if not (math.isfinite(pair.accuracy) and math.isfinite(pair.stability)):
            return False
        above = self.accuracy_floor is None or at_least(pair.accuracy, self.accuracy_floor)
        return above and (self.accuracy_ceiling is None or at_least(-pair.accuracy, -self.accuracy_ceiling))

    def score(self, pair: Pair) -> float:
        """Return one number for a pair: the weighted mean, or the loss alone where lower is better."""
        if self.accuracy_mode == "min":
            return pair.accuracy
        return (1 - self.stability_weight) * pair.accuracy + self.stability_weight * pair.stability

    def beats(self, one: Pair, other: Pair) -> bool:
        """Tell whether one pair is at least as good as another in both numbers, and better in one."""
        sign = 1 if self.accuracy_mode == "max" else -1
        first, second = sign * one.accuracy, sign * other.accuracy
        no_worse = first >= second and one.stability >= other.stability
        return no_worse and (first > second or one.stability > other.stability)

    def beaten(self, pair: Pair, others: Mapping[str, Pair]) -> list[str] | None:
        """Say which of the kept ones a new pair drives out.

        Args:
            pair: The new one.
            others: Those kept so far.

        Returns:
            Their names; None if the new one itself is beaten, or equal to one that is there already.

        Example:
            >>> KeepingRule("pareto").beaten(Pair(0.8, 0.5), {"a": Pair(0.7, 0.5), "b": Pair(0.6, 0.9)})
            ['a']
            >>> KeepingRule("pareto").beaten(Pair(0.8, 0.5), {"a": Pair(0.8, 0.5)}) is None
            True
        """
        if any(kept == pair or self.beats(kept, pair) for kept in others.values()):
            return None
        return [name for name, kept in others.items() if self.beats(pair, kept)]


def check_keys(accuracy: str, stability: str) -> None:
    """Refuse keys that are no words, or the same word twice.

    Raises:
        ArgumentError: By the argument's name.
    """
    for argument, key in (("accuracy", accuracy), ("stability", stability)):
        if not isinstance(key, str) or not key:
            raise ArgumentError(f"StableCheckpoint: `{argument}` must be the key of a logged value, got {key!r}.")
    if accuracy == stability:
        raise ArgumentError(
            f"StableCheckpoint: `accuracy` and `stability` must be two values, got {accuracy!r} for both. To keep "
            "checkpoints by one value take Lightning's ModelCheckpoint."
        )


def how_many(rule: str, save_top_k: int | None) -> int:
    """Return how many checkpoints a rule keeps, -1 for any number.

    Raises:
        ArgumentError: If a number is asked for where the rule decides.

    Example:
        >>> how_many("weighted", None), how_many("pareto", None)
        (1, -1)
    """
    if rule == "weighted":
        return 1 if save_top_k is None else save_top_k
    if save_top_k not in (None, -1):
        raise ArgumentError(
            f"StableCheckpoint: `save_top_k` must be None with rule='pareto', got {save_top_k!r}: it keeps all that no "
            "other one beats. Take rule='weighted' for a fixed number."
        )
    return -1


def _number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool) and math.isfinite(float(value))


def _require(holds: bool, argument: str, got: object, wanted: str) -> None:
    if not holds:
        raise ArgumentError(f"StableCheckpoint: `{argument}` must be {wanted}; got {got!r}.")
