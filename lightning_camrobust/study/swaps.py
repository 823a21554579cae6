"""Which methods change places between two settings, and whether chance may have done it."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_camrobust.study.findings import Estimate
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.rankings import order_signs
from lightning_camrobust.study.settings import Setting
from lightning_camrobust.study.statistics.distribution import Distribution
from lightning_camrobust.study.statistics.intervals import limits
from lightning_camrobust.study.wording import difference_text, leaves_zero_out, telling_digits

Told = Literal["both", "main", "here", "neither"]
_WORDS: dict[Told, str] = {
    "both": "a reversal beyond chance",
    "main": "told apart in the main setting only",
    "here": "told apart here only",
    "neither": "not told apart in either setting",
}
# Sentences name so many swaps; the weightier ones first.
_NAMED = 3


@dataclass(frozen=True)
class Swap:
    """Two methods whose order differs between the main setting and another one.

    Attributes:
        ahead: The method that is ahead in the other setting (or named first, if they tie there).
        behind: The other method.
        scores: RM of both in the other setting, in this order.
        before: RM of ``ahead`` minus RM of ``behind`` in the main setting, with its bootstrap interval.
        after: The same in the other setting.
        tie: Whether they tie ``"before"``, ``"after"`` or in neither setting (None).
    """

    ahead: str
    behind: str
    scores: tuple[float, float]
    before: Estimate
    after: Estimate
    tie: Literal["before", "after"] | None

    @property
    def told_apart(self) -> Told:
        """In which settings the difference leaves zero out of its interval.

        ``"both"`` is a real reversal: either order is beyond chance. With ``"neither"`` the two were never told apart,
        and their order means little in any setting. Intervals are not corrected for the number of pairs.
        """
        main = self.tie != "before" and leaves_zero_out(self.before)
        here = self.tie != "after" and leaves_zero_out(self.after)
        if main and here:
            return "both"
        return "main" if main else "here" if here else "neither"

    def __str__(self) -> str:
        digits = telling_digits(*self.scores)
        high, low = (f"{score:.{digits}f}" for score in self.scores)
        words = _WORDS[self.told_apart]
        if self.tie == "after":
            return f"{self.ahead} and {self.behind} ({high}) tie here, {words}"
        verb = "no longer ties with" if self.tie == "before" else "passes"
        told = f": {difference_text(self.before)} before, {difference_text(self.after)} here"
        return f"{self.ahead} ({high}) {verb} {self.behind} ({low}), {words}" + told * (self.told_apart != "neither")


def find_swaps(setting: Setting, *, confidence: float = 0.95) -> tuple[Swap, ...]:
    """Find the pairs of methods whose order differs between the main setting and another one.

    Args:
        setting: From :func:`~lightning_camrobust.study.settings.ranked_settings`; the main setting is the one that it
            refers to, on the same pairs.
        confidence: Of the intervals.

    Returns:
        Reversals beyond chance first, then those told apart in one setting, then the others; within these, the largest
        difference in the other setting first. Empty where a score is undefined.
    """
    main, other = setting.reference or setting, setting
    signs = np.array([order_signs(each.robustness.value) for each in (main, other)])
    if np.isnan(signs).any():
        return ()
    before, after = (_differences(each, confidence) for each in (main, other))
    pairs = list(itertools.combinations(range(len(main.methods)), 2))
    swaps = [
        _swap(main.methods, pairs[column], signs[:, column], other.robustness.value, before[column], after[column])
        for column in np.flatnonzero(signs[0] != signs[1])
    ]
    weights = list(_WORDS)
    return tuple(sorted(swaps, key=lambda swap: (weights.index(swap.told_apart), -abs(swap.after.value))))


def swaps_text(swaps: tuple[Swap, ...]) -> str:
    """Name the weightiest swaps, and count the others.

    Args:
        swaps: From :func:`find_swaps`.

    Returns:
        Clauses joined by semicolons.
    """
    named, others = swaps[:_NAMED], swaps[_NAMED:]
    clauses = [str(swap) for swap in named]
    if others:
        reversals = sum(swap.told_apart == "both" for swap in others)
        clauses.append(f"and {len(others)} more pairs ({reversals} of them beyond chance in both settings)")
    return "; ".join(clauses)


def _swap(
    methods: tuple[str, ...],
    pair: tuple[int, int],
    signs: Floats,
    scores: Floats,
    before: Estimate,
    after: Estimate,
) -> Swap:
    first, second = pair
    if signs[1] < 0:
        first, second, before, after = second, first, _negated(before), _negated(after)
    tie: Literal["before", "after"] | None = "before" if signs[0] == 0 else "after" if signs[1] == 0 else None
    return Swap(methods[first], methods[second], (float(scores[first]), float(scores[second])), before, after, tie)


def _differences(setting: Setting, confidence: float) -> list[Estimate]:
    earlier, later = np.triu_indices(len(setting.methods), k=1)
    scores = setting.robustness
    between = Distribution(*(each[..., earlier] for each in (scores.value, scores.replicates, scores.left_out)))
    minus = Distribution(*(each[..., later] for each in (scores.value, scores.replicates, scores.left_out)))
    difference = between - minus
    low, high = limits(difference, confidence=confidence, how="percentile", extrapolated=True)
    return [Estimate(*map(float, numbers)) for numbers in zip(difference.value, low, high, strict=True)]


def _negated(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.value, -estimate.high, -estimate.low)
