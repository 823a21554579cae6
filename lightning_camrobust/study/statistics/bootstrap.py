"""Cluster bootstrap over images: intervals of the scores, and of their differences on the same images."""

from collections.abc import Sequence
from typing import NamedTuple

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.findings import Estimate
from lightning_camrobust.study.outcomes import Floats, Integers
from lightning_camrobust.study.statistics.correction import How
from lightning_camrobust.study.statistics.intervals import limits, p_values
from lightning_camrobust.study.statistics.resampling import Bootstrap, Resampling, bootstrap
from lightning_camrobust.study.statistics.totals import STATISTICS

__all__ = ["Bootstrap", "Difference", "Resampling", "bootstrap", "differences", "estimates", "undefined_resamples"]


class Difference(NamedTuple):
    """A difference with its interval, and the two-sided p-value of there being none."""

    estimate: Estimate
    p_value: float


def estimates(
    drawn: Bootstrap, *, confidence: float = 0.95, how: How = "bca", widened: bool = True
) -> dict[str, list[Estimate]]:
    """Give every score of every column with its interval.

    Args:
        drawn: From :func:`bootstrap`.
        confidence: In (0, 1).
        how: ``"bca"`` (scores have a skewed distribution near 0 and 1) or ``"percentile"``.
        widened: Whether to correct for few images.

    Returns:
        For each name in `STATISTICS`, one estimate a column. All three numbers are NaN where a score is undefined; its
        limits alone are NaN where too few images carry it, see
        :func:`~lightning_camrobust.study.statistics.intervals.limits`.

    Raises:
        ArgumentError: If ``confidence`` or ``how`` is out of range.

    Example:
        >>> import numpy as np
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> sums = pair_sums(np.full((9, 1, 1), 0.5), np.ones((9, 1), dtype=bool))
        >>> estimates(bootstrap(sums, Resampling(9)))["consistency"]
        [Estimate(value=0.5, low=0.5, high=0.5)]
    """
    found = {name: drawn.distribution(name) for name in STATISTICS}
    return {
        name: _estimates(each.value, *limits(each, confidence=confidence, how=how, widened=widened))
        for name, each in found.items()
    }


def differences(
    first: Bootstrap,
    second: Bootstrap,
    *,
    confidence: float = 0.95,
    how: How = "percentile",
    widened: bool = True,
    statistics: Sequence[str] = tuple(STATISTICS),
) -> dict[str, list[Difference]]:
    """Compare columns that were measured on the same images, methods or models, pairing each image with itself.

    Args:
        first: From :func:`bootstrap`.
        second: With the same `Resampling`, of the same images in the same order; as many columns.
        confidence: In (0, 1).
        how: ``"percentile"`` or ``"bca"``. Differences of equals are symmetric, so BCa has nothing to correct there;
            in simulations its estimated acceleration made it reject equal models up to 8 times in 100, not 5.
        widened: Whether to correct for few images.
        statistics: Names in `STATISTICS`; all by default.

    Returns:
        For each of these names, one difference (first minus second) a column. ``p < 1 - confidence`` says the
        same as "the interval leaves zero out", see
        :func:`~lightning_camrobust.study.statistics.intervals.p_values`.

    Raises:
        ArgumentError: If the resamplings or the numbers of columns differ, or a setting is out of range.
        UnknownNameError: If there is no such statistic.

    Example:
        >>> import numpy as np
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> sums = pair_sums(np.full((99, 2, 1), [[0.5], [0.25]]), np.ones((99, 1), dtype=bool))
        >>> drawn = bootstrap(sums, Resampling(99))
        >>> [found] = differences(drawn.columns(0), drawn.columns(1))["consistency"]
        >>> found.estimate, round(found.p_value, 3)
        (Estimate(value=0.25, low=0.25, high=0.25), 0.001)
    """
    if first.resampling != second.resampling or first.whole.same_count.shape != second.whole.same_count.shape:
        raise ArgumentError(
            "differences: `first` and `second` must share one `Resampling` and have as many columns; got "
            f"{first.resampling} with {first.whole.same_count.size} and {second.resampling} with "
            f"{second.whole.same_count.size}. Keep the images both have, in one order, and draw them once."
        )
    found = {}
    for name in statistics:
        each = first.distribution(name) - second.distribution(name)
        low, high = limits(each, confidence=confidence, how=how, widened=widened, extrapolated=True)
        rows = zip(_estimates(each.value, low, high), p_values(each, how=how, widened=widened).tolist(), strict=True)
        found[name] = [Difference(estimate, p_value) for estimate, p_value in rows]
    return found


def undefined_resamples(drawn: Bootstrap) -> dict[str, Integers]:
    """Count the resamples that were dropped because a score was undefined in them.

    Args:
        drawn: From :func:`bootstrap`.

    Returns:
        For each name in `STATISTICS`, counts ``(columns,)`` out of ``drawn.resampling.resamples``.

    Example:
        >>> import numpy as np
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> sums = pair_sums([[[0.5]], [[0.5]]], np.array([[True], [True]]))
        >>> undefined_resamples(bootstrap(sums, Resampling(2)))["responsiveness"].tolist()
        [2000]
    """
    return {name: drawn.distribution(name).undefined() for name in STATISTICS}


def _estimates(value: Floats, low: Floats, high: Floats) -> list[Estimate]:
    return [Estimate(*(float(number) for number in numbers)) for numbers in zip(value, low, high, strict=True)]
