"""From bootstrap replicates to intervals and p-values, both from one and the same distribution."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Bools, Floats, Integers
from lightning_camrobust.study.statistics.correction import How, correction_for
from lightning_camrobust.study.statistics.distribution import Distribution

# Resamples in which a score is undefined are dropped. A set that k of many images feed is missed by exp(-k) of them:
# 5.0% for three images, 1.8% for four. More than 2.5% is as much as a tail; a limit could then be anything.
MOST_UNDEFINED = 0.025
# The same rule, where every image feeds the set and no resample can miss it.
LEAST_IMAGES = 4
# Standard deviations that stand for infinitely many, as where all resamples have one value and it is not zero.
_FAR = 40.0


def limits(
    distribution: Distribution,
    *,
    confidence: float = 0.95,
    how: How = "bca",
    widened: bool = True,
    extrapolated: bool = False,
) -> tuple[Floats, Floats]:
    """Find the interval of each column.

    Args:
        distribution: From the bootstrap.
        confidence: In (0, 1). Each tail must hold two resamples or more.
        how: ``"bca"`` corrects the percentiles for bias and for a spread that changes with the value;
            ``"percentile"`` does not.
        widened: Whether to correct for few images, see :func:`correction_for`.
        extrapolated: What to do when few images make a correction ask for a percentile beyond the outermost resample:
            go on as a normal distribution with their standard deviation would (as :func:`p_values` does), or stop at
            the outermost resample, which is a score that these images can have.

    Returns:
        Lower and upper limits, ``(columns,)`` each. NaN where the value is undefined, and where fewer than four images
        carry it or it is undefined in more than 2.5% of the resamples. Where all resamples agree, both limits are the
        value.

    Raises:
        ArgumentError: If ``confidence`` or ``how`` is out of range.

    Example:
        >>> replicates = np.arange(1, 100)[:, None] / 100
        >>> even = Distribution(np.array([0.5]), replicates, np.tile([[0.4], [0.6]], (9, 1)))
        >>> [float(each[0].round(3)) for each in limits(even, confidence=0.9, widened=False)]
        [0.05, 0.95]
    """
    tail = (1 - confidence) / 2
    resamples = len(distribution.replicates)
    if not 0 < confidence < 1 or tail * resamples < 2:
        raise ArgumentError(
            "`confidence` must be between 0 and 1, and leave two resamples or more in each tail; got "
            f"{confidence!r} with {resamples} resamples. Take 0.95 with 2000."
        )
    snapped = distribution.without_rounding()
    replicates, correction = _in_order(snapped), correction_for(snapped, how=how, widened=widened)
    usable = _usable(distribution)
    low, high = (
        np.where(usable, _quantile(replicates, correction.taken(level), extrapolated=extrapolated), np.nan)
        for level in (tail, 1 - tail)
    )
    return low, high


def p_values(distribution: Distribution, *, how: How = "bca", widened: bool = True) -> Floats:
    """Find for each column how sure it is that the score is not zero.

    This turns the (extrapolated) interval round: p is the alpha whose interval of confidence 1 - alpha just touches
    zero, so ``p < alpha`` says the same as "zero is outside of that interval".

    Args:
        distribution: From the bootstrap, usually of a difference.
        how: As for the interval.
        widened: As for the interval.

    Returns:
        Two-sided p-values ``(columns,)``, at least 2 / (resamples + 1): a bootstrap cannot tell a smaller one. NaN
        where there is no interval.

    Raises:
        ArgumentError: If ``how`` is unknown.

    Example:
        >>> replicates = np.arange(1, 100)[:, None] / 100 - 0.02
        >>> shifted = Distribution(np.array([0.48]), replicates, np.tile([[0.4], [0.6]], (9, 1)))
        >>> float(p_values(shifted, widened=False)[0].round(3))
        0.04
    """
    snapped = distribution.without_rounding()
    replicates, correction = _in_order(snapped), correction_for(snapped, how=how, widened=widened)
    below = correction.asked(_place_of_zero(replicates, side="right"))
    above = 1 - correction.asked(_place_of_zero(replicates, side="left"))
    least = np.minimum(2 / (replicates.count + 1), 1.0)
    return np.where(_usable(distribution), np.clip(2 * np.minimum(below, above), least, 1.0), np.nan)


def _usable(distribution: Distribution) -> Bools:
    enough = len(distribution.left_out) >= LEAST_IMAGES
    defined = distribution.undefined() <= MOST_UNDEFINED * len(distribution.replicates)
    return ~np.isnan(distribution.value) & defined & enough


@dataclass(frozen=True)
class _Replicates:
    """Replicates in order, ``(resamples, columns)``, the undefined ones last.

    The replicate of rank i (from 0) of n is the quantile of level (i + 1) / (n + 1); straight lines lie between them.
    """

    ordered: Floats
    count: Integers
    spread: Floats

    def at(self, rank: Integers) -> Floats:
        """Return the replicates of the given ranks ``(columns,)``, the outermost one for a rank beyond the ends."""
        inside = np.clip(rank, 0, self.count - 1)
        return np.asarray(np.take_along_axis(self.ordered, inside[None], axis=0)[0], dtype=np.float64)

    def beyond(self, normal: Floats) -> Floats:
        """Return by how many standard deviations a normal quantile lies beyond the outermost replicate; else 0."""
        end = -ndtri(1 / (self.count + 1))
        return np.asarray(np.sign(normal) * np.maximum(np.abs(normal) - end, 0.0), dtype=np.float64)


def _in_order(snapped: Distribution) -> _Replicates:
    # Columns without a defined replicate are not used; a count of 1 keeps them from dividing by zero.
    count = np.maximum(len(snapped.replicates) - snapped.undefined(), 1)
    return _Replicates(np.sort(snapped.replicates, axis=0), count, snapped.spread())


def _quantile(replicates: _Replicates, normal: Floats, *, extrapolated: bool) -> Floats:
    """Find the replicate in the place that ``normal`` has in a standard normal distribution."""
    position = np.clip(ndtr(normal) * (replicates.count + 1) - 1, 0, replicates.count - 1)
    before = np.floor(position).astype(np.int64)
    lower, upper = replicates.at(before), replicates.at(before + 1)
    inner: Floats = lower + (upper - lower) * (position - before)
    outside = replicates.beyond(np.clip(normal, -_FAR, _FAR)) * replicates.spread
    return inner + outside if extrapolated else inner


def _place_of_zero(replicates: _Replicates, *, side: Literal["left", "right"]) -> Floats:
    """Undo :func:`_quantile` for zero: the smallest (left) or largest (right) place whose quantile is zero."""
    ordered, count, spread = replicates.ordered, replicates.count, replicates.spread
    below = (ordered <= 0 if side == "right" else ordered < 0).sum(axis=0)
    lower, upper = replicates.at(below - 1), replicates.at(below)
    rises = upper > lower
    position = below - 1 + np.where(rises, -lower / np.where(rises, upper - lower, 1.0), 0.0)
    inner = ndtri((np.clip(position, 0, count - 1) + 1) / (count + 1))
    away = np.where(spread > 0, np.abs(lower) / np.where(spread > 0, spread, 1.0), _FAR)
    outside = np.where(below == 0, -1.0, np.where(below == count, 1.0, 0.0))
    return np.asarray(np.clip(inner + outside * away, -_FAR, _FAR), dtype=np.float64)
