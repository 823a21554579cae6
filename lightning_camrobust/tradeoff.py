"""Accuracy against stability: which of several networks to keep. A pure decision on pairs of numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, SupportsFloat

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.stopping_rule import at_least, whole


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

    @property
    def bound(self) -> str:
        """The bound on the accuracy as it was passed, empty if there is none."""
        bounds = {"accuracy_floor": self.accuracy_floor, "accuracy_ceiling": self.accuracy_ceiling}
        return next((f"{name}={value!r}" for name, value in bounds.items() if value is not None), "")

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

    def mixes_scales(self, pair: Pair) -> bool:
        """Tell whether a weighted sum adds up numbers of different scales, such as percent and a share of one.

        Example:
            >>> KeepingRule().mixes_scales(Pair(76.0, 0.9)), KeepingRule().mixes_scales(Pair(0.76, 0.9))
            (True, False)
        """
        smaller, larger = sorted((abs(pair.accuracy), abs(pair.stability)))
        return self.rule == "weighted" and 0 < self.stability_weight < 1 and smaller <= 1 and larger > 1.5

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
        ArgumentError: If it is no such number, or is asked for where the rule decides.

    Example:
        >>> how_many("weighted", None), how_many("pareto", None)
        (1, -1)
    """
    wanted = "a whole number of at least -1 (-1 keeps all), or None"
    _require(save_top_k is None or whole(save_top_k, least=-1), "save_top_k", save_top_k, wanted)
    if rule == "weighted":
        return 1 if save_top_k is None else int(save_top_k)
    if save_top_k not in (None, -1):
        raise ArgumentError(
            f"StableCheckpoint: `save_top_k` must be None with rule='pareto', got {save_top_k!r}: it keeps all that no "
            "other one beats. Take rule='weighted' for a fixed number."
        )
    return -1


def check_last(save_last: object) -> None:
    """Refuse what `ModelCheckpoint` would take for True.

    Raises:
        ArgumentError: If it is anything else than True, False, ``"link"`` or None.
    """
    known = save_last is None or isinstance(save_last, bool) or save_last == "link"
    _require(known, "save_last", save_last, "True, False, 'link' or None")


def _number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool) and math.isfinite(float(value))


def _require(holds: bool, argument: str, got: object, wanted: str) -> None:
    if not holds:
        raise ArgumentError(f"StableCheckpoint: `{argument}` must be {wanted}; got {got!r}.")
