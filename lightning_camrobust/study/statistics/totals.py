"""The scores as functions of sums over images, for any number of samples of images at once."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from lightning_camrobust.study.outcomes import Floats


@dataclass(frozen=True)
class Totals:
    """What the scores of one sample of images follow from. All fields share one shape ``(..., columns)``, float64.

    Attributes:
        same_similarity: Sum of the similarity over the pairs whose predicted class stayed.
        same_count: Their number.
        changed_dissimilarity: Sum of 1 - similarity over the pairs whose predicted class changed.
        changed_count: Their number.
        same_mean: Sum over images of the image's own mean similarity over its same-class pairs.
        same_images: Images that have such a pair.
        changed_mean: Sum over images of the image's own mean dissimilarity over its changed pairs.
        changed_images: Images that have such a pair.
    """

    same_similarity: Floats
    same_count: Floats
    changed_dissimilarity: Floats
    changed_count: Floats
    same_mean: Floats
    same_images: Floats
    changed_mean: Floats
    changed_images: Floats

    def stack(self) -> Floats:
        """Return the fields as one array ``(fields, ..., columns)``."""
        return np.stack([getattr(self, field.name) for field in fields(self)])

    @classmethod
    def from_stack(cls, stack: Floats) -> "Totals":
        """Undo :meth:`stack`."""
        return cls(*stack)

    def columns(self, chosen: ArrayLike) -> "Totals":
        """Return some columns only, by their indices, which may repeat."""
        indices = np.atleast_1d(np.asarray(chosen, dtype=np.int64))
        return Totals(*(getattr(self, field.name)[..., indices] for field in fields(self)))


def ratio(total: Floats, count: Floats) -> Floats:
    """Divide sums by counts.

    Args:
        total: Sums, any shape.
        count: Numbers of what was summed, 0 or more, same shape.

    Returns:
        Means; NaN where nothing was summed.

    Example:
        >>> ratio(np.array([3.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [1.5, nan]
    """
    means: Floats = np.full(np.shape(total), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def consistency(totals: Totals) -> Floats:
    """Mean similarity over the pairs whose class stayed, ``(..., columns)``; NaN without one."""
    return ratio(totals.same_similarity, totals.same_count)


def responsiveness(totals: Totals) -> Floats:
    """Mean dissimilarity over the pairs whose class changed, ``(..., columns)``; NaN without one."""
    return ratio(totals.changed_dissimilarity, totals.changed_count)


def robustness(totals: Totals) -> Floats:
    """Consistency times responsiveness, ``(..., columns)``; NaN where one of them is."""
    return consistency(totals) * responsiveness(totals)


def flip_rate(totals: Totals) -> Floats:
    """Share of the scored pairs whose class changed, ``(..., columns)``; NaN without a scored pair."""
    return ratio(totals.changed_count, totals.same_count + totals.changed_count)


def consistency_macro(totals: Totals) -> Floats:
    """Mean over images of the image's own consistency, over images that have one, ``(..., columns)``."""
    return ratio(totals.same_mean, totals.same_images)


def responsiveness_macro(totals: Totals) -> Floats:
    """Mean over images of the image's own responsiveness, over images that have one, ``(..., columns)``."""
    return ratio(totals.changed_mean, totals.changed_images)


def robustness_macro(totals: Totals) -> Floats:
    """Macro consistency times macro responsiveness, ``(..., columns)``; NaN where one of them is."""
    return consistency_macro(totals) * responsiveness_macro(totals)


STATISTICS: dict[str, Callable[[Totals], Floats]] = {
    each.__name__: each
    for each in (
        robustness,
        consistency,
        responsiveness,
        flip_rate,
        robustness_macro,
        consistency_macro,
        responsiveness_macro,
    )
}
