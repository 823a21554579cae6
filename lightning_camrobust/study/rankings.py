"""Rankings of methods and their agreement, for many resamples at once."""

import numpy as np

from lightning_camrobust.study.outcomes import Floats, Integers

# Scores this close are one score. With a global pooling and a linear head Grad-CAM, XGrad-CAM and HiResCAM are one map
# up to rounding, and rounding must not rank them. The floor is for scores that are 0 up to rounding.
RELATIVE_TIE = 1e-9
ABSOLUTE_TIE = 1e-12


def score_levels(scores: Floats) -> Integers:
    """Rank scores from the smallest up, equal ones alike.

    Args:
        scores: ``(..., methods)`` float. A NaN counts as one that is larger than all; see :func:`order_signs`.

    Returns:
        Levels from 0, ``(..., methods)`` int64. Scores that differ by rounding alone share a level.

    Example:
        >>> score_levels(np.array([0.3, 0.5, 0.3 + 1e-15, 0.4])).tolist()
        [0, 2, 0, 1]
    """
    order = np.argsort(scores, axis=-1, kind="stable")
    ascending = np.take_along_axis(scores, order, axis=-1)
    low, high = ascending[..., :-1], ascending[..., 1:]
    apart = high - low > RELATIVE_TIE * np.maximum(np.abs(low), np.abs(high)) + ABSOLUTE_TIE
    levels = np.zeros(scores.shape, dtype=np.int64)
    np.put_along_axis(levels, order[..., 1:], np.cumsum(apart, axis=-1), axis=-1)
    return levels


def order_signs(scores: Floats) -> Floats:
    """Compare every method with every later one.

    Args:
        scores: ``(..., methods)`` float, larger is better.

    Returns:
        ``(..., pairs)`` float, in the order of :func:`numpy.triu_indices`: 1 where the earlier method is better, -1
        where the later one is, 0 for a tie; NaN in all pairs where one score is NaN, as then there is no ranking.

    Example:
        >>> order_signs(np.array([0.3, 0.5, 0.3])).tolist()
        [-1.0, 0.0, 1.0]
    """
    levels = score_levels(scores)
    earlier, later = np.triu_indices(scores.shape[-1], k=1)
    signs: Floats = np.sign(levels[..., earlier] - levels[..., later]).astype(np.float64)
    signs[np.isnan(scores).any(axis=-1)] = np.nan
    return signs


def kendall_tau(first: Floats, second: Floats) -> Floats:
    """Compute Kendall's tau-b of rankings that are given by the order of their pairs.

    Args:
        first: ``(..., pairs)``, from :func:`order_signs`.
        second: The same; the leading axes broadcast.

    Returns:
        ``(...)`` float64 in [-1, 1]; NaN where a ranking does not exist or all its methods are tied.

    Source:
        Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945).

    Example:
        >>> scores = np.array([[0.1, 0.2, 0.3], [0.1, 0.3, 0.2]])
        >>> signs = order_signs(scores)
        >>> round(float(kendall_tau(signs[0], signs[1])), 4)
        0.3333
    """
    agreement = (first * second).sum(axis=-1)
    untied = (first**2).sum(axis=-1) * (second**2).sum(axis=-1)
    tau: Floats = np.divide(agreement, np.sqrt(untied), out=np.full(agreement.shape, np.nan), where=untied > 0)
    return tau


def best_first(scores: Floats) -> list[int]:
    """List methods from the best to the worst.

    Args:
        scores: ``(methods,)`` float, larger is better.

    Returns:
        Positions; ties keep their order, and methods without a score come last.

    Example:
        >>> best_first(np.array([np.nan, 0.3, 0.5, 0.3]))
        [2, 1, 3, 0]
    """
    ranks = np.where(np.isnan(scores), 1, -score_levels(scores))
    return [int(position) for position in np.argsort(ranks, kind="stable")]
