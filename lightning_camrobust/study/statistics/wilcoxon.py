"""Methods compared in pairs on the same images: Wilcoxon's signed-rank test with Holm's correction."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.findings import PairRow
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.image_means import (
    TIE_DECIMALS,
    ImageMeasure,
    check_image_means,
    check_level,
    check_measure,
)
from lightning_camrobust.study.statistics.signed_rank import mean_interval, rank_biserial, signed_rank_p

__all__ = ["holm", "mean_interval", "rank_biserial", "signed_rank_p", "wilcoxon_pairs"]


def wilcoxon_pairs(
    values: Floats, methods: Sequence[str], *, measure: ImageMeasure, confidence: float = 0.95
) -> tuple[PairRow, ...]:
    """Compare every two methods on the images that both have a value on.

    Differences below 1e-9 are zero. Images without a difference are left out of the test, as Wilcoxon did: they say
    nothing about its direction, and with the few images that may remain the p-value can be exact (without ties up to
    50; with ties up to 13, with a recent scipy), whereas Pratt's normal approximation is too small there. They do stay
    in the effect, :func:`~lightning_camrobust.study.statistics.signed_rank.rank_biserial`. Without any difference, as
    between Grad-CAM and HiResCAM on many networks, p is 1 and the effect 0.

    The p-value is about ranks (differences are symmetric about 0), the interval about the mean; in rare, skewed cases
    they may disagree.

    Args:
        values: Means of images ``(images, methods)``; NaN where undefined.
        methods: Labels.
        measure: What the values are.
        confidence: Of the interval, which is not corrected for the number of pairs.

    Returns:
        One row a pair, in the order of `methods`: the mean of the paired differences with Student's interval (NaN ends
        with one image), two-sided p, p after Holm's correction over all these pairs, and the effect. All NaN without a
        common image; such a pair does not count in the correction.

    Raises:
        ArgumentError: If shapes do not fit, labels repeat, or `measure` or `confidence` is none.

    Source:
        Wilcoxon 1945; Holm 1979; Kerby 2014.

    Example:
        >>> values = np.array([[0.9, 0.5], [0.8, 0.6], [0.7, 0.6], [0.9, 0.6], [0.5, 0.55], [0.9, 0.2]])
        >>> (row,) = wilcoxon_pairs(values, ["layercam", "gradcam"], measure="consistency")
        >>> row.num_images, round(row.difference.value, 3), row.p_value, round(row.effect, 4)
        (6, 0.275, 0.0625, 0.9048)
    """
    check_measure(measure, speaker="wilcoxon_pairs")
    check_level(confidence, name="confidence", speaker="wilcoxon_pairs")
    values = check_image_means(values, methods, speaker="wilcoxon_pairs")
    rows = []
    for first, second in itertools.combinations(range(len(methods)), 2):
        differences = values[:, first] - values[:, second]
        differences = np.round(differences[~np.isnan(differences)], TIE_DECIMALS)
        p_value = signed_rank_p(differences)
        rows.append(
            PairRow(
                measure=measure,
                first=methods[first],
                second=methods[second],
                difference=mean_interval(differences, confidence=confidence),
                p_value=p_value,
                p_adjusted=p_value,
                effect=rank_biserial(differences),
                num_images=differences.size,
                test="Wilcoxon",
            )
        )
    adjusted = holm([row.p_value for row in rows])
    return tuple(replace(row, p_adjusted=float(value)) for row, value in zip(rows, adjusted, strict=True))


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Adjust p-values so that the chance of any false alarm in the family stays below the level.

    Args:
        p_values: ``(tests,)`` in [0, 1]; NaN for a test that could not be made, which does not count.

    Returns:
        Adjusted p-values, in the same order; NaN stays NaN.

    Raises:
        ArgumentError: If they are not one row of probabilities.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03]).round(6).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    made = given[~np.isnan(given)]
    if given.ndim != 1 or (made < 0).any() or (made > 1).any():
        raise ArgumentError(f"holm: `p_values` must be one row of probabilities in [0, 1] or NaN, got {p_values!r}.")
    order = np.argsort(made, kind="stable")
    raised = np.maximum.accumulate(made[order] * np.arange(made.size, 0, -1))
    made[order] = np.minimum(raised, 1.0)
    adjusted = np.full_like(given, np.nan)
    adjusted[~np.isnan(given)] = made
    return adjusted
