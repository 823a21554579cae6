"""Wald's test that several contrasts of means are zero at once, in the form of Hotelling's T squared."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from lightning_camrobust.study.outcomes import Floats


class WaldTest(NamedTuple):
    """Hotelling's T squared, both degrees of freedom of F and the p-value; NaN, and 0, where it cannot be made."""

    statistic: float
    degrees: int
    p_value: float
    denominator: float = 0.0


def wald_test(means: Floats, covariance: Floats, contrasts: Floats, *, num_images: float) -> WaldTest:
    """Test that all contrasts are zero.

    The covariance is estimated from the images, so the statistic is Hotelling's T squared and its p-value comes from
    F(q, n - q), which is exact for complete normal data; the chi-squared distribution, which it approaches with many
    images, is too small with few. Directions in which no image differs from another are taken out: if the means do
    not differ there either, they cost no degree of freedom; if they do, the statistic is infinite and p is 0.

    Args:
        means: ``(cells,)``.
        covariance: Of the means, ``(cells, cells)``.
        contrasts: ``(q, cells)``, linearly independent.
        num_images: n, the images that the covariance of the contrasts rests on; may be broken where some count less.

    Returns:
        The test; p is 1 with no degree of freedom left, NaN with n <= q.

    Source:
        Hotelling 1931, Annals of Mathematical Statistics 2; Anderson 2003, "An Introduction to Multivariate Statistical
        Analysis", section 5.3.

    Example:
        >>> test = wald_test(np.array([1.0, 2.0]), np.eye(2) / 8, np.array([[1.0, -1.0]]), num_images=30)
        >>> round(test.statistic, 6), test.degrees, round(test.p_value, 4)
        (4.0, 1, 0.0549)
    """
    if num_images <= len(contrasts) or np.isnan(covariance).any():
        return WaldTest(math.nan, len(contrasts), math.nan)
    variances, directions = np.linalg.eigh(contrasts @ covariance @ contrasts.T)
    shifts = directions.T @ (contrasts @ means)
    certain = variances <= 1e-12 * np.trace(covariance)
    degrees = int((~certain).sum())
    if bool((np.abs(shifts[certain]) > 1e-9).any()):
        return WaldTest(math.inf, len(contrasts), 0.0)
    if degrees == 0:
        return WaldTest(0.0, 0, 1.0)
    statistic = float((shifts[~certain] ** 2 / variances[~certain]).sum())
    scale = (num_images - degrees) / (degrees * (num_images - 1))
    p_value = float(stats.f.sf(statistic * scale, degrees, num_images - degrees))
    return WaldTest(statistic, degrees, p_value, num_images - degrees)
