"""Friedman's test over methods, and Nemenyi's critical difference of their mean ranks."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from lightning_camrobust.study.findings import RankTest
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.image_means import (
    TIE_DECIMALS,
    ImageMeasure,
    check_image_means,
    check_level,
    check_measure,
)


def friedman_test(values: Floats, methods: Sequence[str], *, measure: ImageMeasure, alpha: float = 0.05) -> RankTest:
    """Test whether some method ranks higher than another, with images as blocks.

    Only images on which every method has a value are used. Equal values share the mean of their ranks; values that
    differ by less than 1e-9 count as equal. The statistic is corrected for ties, which are the normal case here:
    Grad-CAM, XGrad-CAM and HiResCAM are one method on a network that ends in global pooling and a linear layer. Its
    p-value is asymptotic, so it is rough below some ten images.

    The statistic, p-value and Kendall's W are NaN with fewer than three methods (for two this is the sign test: see
    Wilcoxon's instead), fewer than two images, or where no image tells any two methods apart (0/0). The critical
    difference takes no notice of ties, which makes it larger than it need be, never smaller. It controls the
    family-wise error over all pairs by itself, so cliques are given whatever the p-value.

    Args:
        values: Means of images ``(images, methods)``, larger is better; NaN where undefined.
        methods: Labels.
        measure: What the values are.
        alpha: Family-wise level of the critical difference.

    Returns:
        The test; mean ranks, 1 for the largest value; cliques, the maximal groups of two or more neighbouring methods
        whose extreme mean ranks lie less than the critical difference apart, best first.

    Raises:
        ArgumentError: If shapes do not fit, labels repeat, or `measure` or `alpha` is none.

    Source:
        Friedman 1937. Kendall & Babington Smith 1939 (W = chi2 / (n (k - 1))). Nemenyi 1963, as in Demsar 2006,
        "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, section 3.2.2.

    Example:
        >>> values = np.array([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2], [0.7, 0.6, 0.3], [0.9, 0.4, 0.3]])
        >>> test = friedman_test(values, ["layercam", "gradcam", "eigencam"], measure="consistency")
        >>> test.mean_ranks, round(test.statistic, 6), round(test.kendall_w, 6), round(test.critical_difference, 3)
        ((1.0, 2.0, 3.0), 8.0, 1.0, 1.657)
        >>> test.cliques
        (('layercam', 'gradcam'), ('gradcam', 'eigencam'))
    """
    check_measure(measure, speaker="friedman_test")
    check_level(alpha, name="alpha", speaker="friedman_test")
    values = check_image_means(values, methods, speaker="friedman_test")
    blocks = np.round(values[~np.isnan(values).any(axis=1)], TIE_DECIMALS)
    count, width = blocks.shape
    ranks = stats.rankdata(-blocks, axis=1) if count and width else np.full((1, width), np.nan)
    mean_ranks = ranks.mean(axis=0)
    statistic, p_value = _chi_squared(blocks)
    limit = critical_difference(width, count, alpha=alpha)
    return RankTest(
        measure=measure,
        methods=tuple(methods),
        mean_ranks=tuple(map(float, mean_ranks)),
        statistic=statistic,
        p_value=p_value,
        kendall_w=statistic / (count * (width - 1)) if not math.isnan(statistic) else math.nan,
        num_images=count,
        critical_difference=limit,
        alpha=alpha,
        cliques=find_cliques(mean_ranks, methods, critical_difference=limit),
    )


def critical_difference(num_methods: int, num_images: int, *, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of two mean ranks.

    Args:
        num_methods: k.
        num_images: n.
        alpha: Family-wise level.

    Returns:
        q sqrt(k (k + 1) / (6 n)), q being the studentized range of k means without limit of freedom, over sqrt 2; NaN
        with fewer than two methods or without images.

    Source:
        Demsar 2006, JMLR 7, section 3.2.2 and table 5(a).

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    if num_methods < 2 or num_images < 1:
        return math.nan
    quantile = float(stats.studentized_range.ppf(1 - alpha, num_methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(num_methods * (num_methods + 1) / (6 * num_images))


def find_cliques(
    mean_ranks: Sequence[float] | Floats, methods: Sequence[str], *, critical_difference: float
) -> tuple[tuple[str, ...], ...]:
    """Group the methods that are not told apart: the bars of a critical-difference diagram.

    Args:
        mean_ranks: Of each method; 1 is best.
        methods: Labels.
        critical_difference: Mean ranks at least that far apart are told apart.

    Returns:
        The maximal groups of neighbours, each of two or more labels and best first; none if ranks or the difference
        are NaN.

    Example:
        >>> find_cliques([3.5, 1.0, 1.5, 3.0], ["a", "b", "c", "d"], critical_difference=0.9)
        (('b', 'c'), ('d', 'a'))
    """
    if math.isnan(critical_difference) or np.isnan(mean_ranks).any():
        return ()
    order = np.argsort(mean_ranks, kind="stable")
    ranks = np.asarray(mean_ranks, dtype=np.float64)[order]
    ends = [int(np.sum(ranks - rank < critical_difference)) for rank in ranks]
    groups, reached = [], 0
    for start, end in enumerate(ends):
        if end > max(reached, start + 1):
            groups.append(tuple(methods[index] for index in order[start:end]))
            reached = end
    return tuple(groups)


def _chi_squared(blocks: Floats) -> tuple[float, float]:
    """Return Friedman's statistic and p-value, NaN where they are not defined."""
    count, width = blocks.shape
    if width < 3 or count < 2 or bool((blocks == blocks[:, :1]).all()):
        return math.nan, math.nan
    result = stats.friedmanchisquare(*blocks.T)
    return float(result.statistic), float(result.pvalue)
