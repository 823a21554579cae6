"""Differences of paired values: Wilcoxon's signed-rank test, its effect, and their mean with an interval."""

import math

import numpy as np
from scipy import stats

from lightning_camrobust.study.findings import Estimate
from lightning_camrobust.study.outcomes import Floats


def signed_rank_p(differences: Floats) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, zeros left out.

    Args:
        differences: ``(images,)``, without NaN; equal magnitudes are tied, so round them first.

    Returns:
        p in [0, 1]; 1 where all differences are zero; NaN without any.

    Example:
        >>> signed_rank_p(np.array([0.0, 0.1, 0.2, 0.3])), signed_rank_p(np.zeros(3))
        (0.25, 1.0)
    """
    if differences.size == 0:
        return math.nan
    decided = differences[differences != 0]
    return float(stats.wilcoxon(decided).pvalue) if decided.size else 1.0


def rank_biserial(differences: Floats) -> float:
    """Return the matched-pairs rank-biserial correlation, images without a difference counted.

    All images are ranked by the size of their difference, zeros lowest; the effect is the share of the rank sum that
    speaks for the first method minus the share that speaks for the second. The ranks of the zeros speak for neither.
    So two methods that differ on one image in a thousand have an effect near 0, where leaving zeros out would say 1.
    Without zeros it is Kerby's coefficient.

    Args:
        differences: First minus second ``(images,)``, without NaN.

    Returns:
        In [-1, 1], positive if the first tends to be larger; 0 if all are zero; NaN without any.

    Source:
        Kerby 2014, "The simple difference formula", Comprehensive Psychology 3; ranks of zeros as in Pratt 1959.

    Example:
        >>> round(rank_biserial(np.array([0.3, 0.1, -0.2])), 6)
        0.333333
    """
    if differences.size == 0:
        return math.nan
    ranks = stats.rankdata(np.abs(differences))
    return float((np.sign(differences) * ranks).sum() / ranks.sum())


def mean_interval(values: Floats, *, confidence: float = 0.95) -> Estimate:
    """Return a mean with Student's interval.

    Args:
        values: ``(n,)``, without NaN.
        confidence: In (0, 1).

    Returns:
        The mean; the ends are NaN with one value, all is NaN without any.

    Example:
        >>> [round(float(each), 3) for each in mean_interval(np.array([0.1, 0.2, 0.3]))]
        [0.2, -0.048, 0.448]
    """
    if values.size < 2:
        return Estimate(float(values[0]) if values.size else math.nan, math.nan, math.nan)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    reach = float(stats.t.ppf((1 + confidence) / 2, values.size - 1)) * error
    return Estimate(mean, mean - reach, mean + reach)
