"""Sums over the pairs of each image, from which all scores follow: what resampling of images starts from."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.totals import Totals, ratio


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs of a clean and a noisy map that belong to one image.

    An image is one row, so whoever draws rows keeps the pairs of an image together. Columns are CAM methods, or
    whatever else is compared on the same images. Every field is ``(images, columns)`` float64.

    Attributes:
        same_similarity: Sum of the similarity over the pairs S whose predicted class stayed.
        same_count: Their number.
        changed_dissimilarity: Sum of 1 - similarity over the pairs D whose predicted class changed.
        changed_count: Their number.
        degenerate_count: Pairs in neither set, because a map could not be ranked.
    """

    same_similarity: Floats
    same_count: Floats
    changed_dissimilarity: Floats
    changed_count: Floats
    degenerate_count: Floats

    def __post_init__(self) -> None:
        shapes = {getattr(self, field.name).shape for field in fields(self)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ArgumentError(
                f"PairSums: every field must have one shape (images, columns), got {sorted(shapes)}. "
                "Make them with `pair_sums`."
            )

    @property
    def num_images(self) -> int:
        """Number of rows."""
        return int(self.same_count.shape[0])

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return int(self.same_count.shape[1])

    def columns(self, chosen: ArrayLike) -> "PairSums":
        """Return some columns only, by their indices, which may repeat."""
        indices = np.atleast_1d(np.asarray(chosen, dtype=np.int64))
        return PairSums(*(getattr(self, field.name)[:, indices] for field in fields(self)))

    def images(self, chosen: ArrayLike) -> "PairSums":
        """Return some images only, by their indices, which may repeat."""
        indices = np.atleast_1d(np.asarray(chosen, dtype=np.int64))
        return PairSums(*(getattr(self, field.name)[indices] for field in fields(self)))

    def of_each_image(self) -> Totals:
        """Return what each image adds to the totals, ``(images, columns)``."""
        same_mean = ratio(self.same_similarity, self.same_count)
        changed_mean = ratio(self.changed_dissimilarity, self.changed_count)
        return Totals(
            same_similarity=self.same_similarity,
            same_count=self.same_count,
            changed_dissimilarity=self.changed_dissimilarity,
            changed_count=self.changed_count,
            same_mean=np.nan_to_num(same_mean, nan=0.0),
            same_images=(self.same_count > 0).astype(np.float64),
            changed_mean=np.nan_to_num(changed_mean, nan=0.0),
            changed_images=(self.changed_count > 0).astype(np.float64),
        )

    def total(self) -> Totals:
        """Return the totals over all images, ``(columns,)``."""
        return Totals.from_stack(self.of_each_image().stack().sum(axis=1))


def pair_sums(similarity: ArrayLike, same: ArrayLike) -> PairSums:
    """Sum the pairs of each image over one group of noises.

    Args:
        similarity: Of the clean and the noisy map, ``(images, methods, noises)``; NaN where a map could not be ranked.
        same: Whether the predicted class stayed, ``(images, noises)`` bool.

    Returns:
        Sums with one column a method. Pairs whose similarity is NaN are only counted.

    Raises:
        ArgumentError: If the shapes do not belong together, ``same`` is not bool or a similarity is infinite.

    Example:
        >>> sums = pair_sums([[[0.5, 1.0, 0.2, np.nan]]], np.array([[True, True, False, False]]))
        >>> [float(each[0, 0]) for each in (sums.same_similarity, sums.changed_dissimilarity, sums.degenerate_count)]
        [1.5, 0.8, 1.0]
    """
    values, stayed = np.asarray(similarity, dtype=np.float64), np.asarray(same)
    if values.ndim != 3 or stayed.shape != (values.shape[0], values.shape[2]) or stayed.dtype != bool:
        raise ArgumentError(
            "pair_sums: `similarity` must be (images, methods, noises) and `same` (images, noises) bool; got "
            f"{values.shape} and {stayed.shape} {stayed.dtype}. Take both from one `Outcomes`."
        )
    if np.isinf(values).any():
        raise ArgumentError("pair_sums: `similarity` must be finite or NaN, got an infinite value. Check the measure.")
    scored, unchanged = ~np.isnan(values), stayed[:, None, :]
    in_same, in_changed = scored & unchanged, scored & ~unchanged
    return PairSums(
        same_similarity=np.where(in_same, values, 0.0).sum(axis=2),
        same_count=in_same.sum(axis=2).astype(np.float64),
        changed_dissimilarity=np.where(in_changed, 1.0 - values, 0.0).sum(axis=2),
        changed_count=in_changed.sum(axis=2).astype(np.float64),
        degenerate_count=(~scored).sum(axis=2).astype(np.float64),
    )


def side_by_side(parts: "list[PairSums] | tuple[PairSums, ...]") -> PairSums:
    """Put sums over the same images side by side, so that one bootstrap serves them all.

    Args:
        parts: At least one, all over the same images in the same order.

    Returns:
        Sums whose columns are those of the parts, one part after the other.

    Raises:
        ArgumentError: If there is no part, or they have different numbers of images.

    Example:
        >>> one = pair_sums([[[0.5]]], np.array([[True]]))
        >>> side_by_side([one, one]).num_columns
        2
    """
    counts = sorted({part.num_images for part in parts})
    if len(counts) != 1:
        raise ArgumentError(
            "side_by_side: `parts` must be one or more sums over the same images, got parts with "
            f"{counts or 'no'} images. Keep the images that all parts share."
        )
    return PairSums(*(np.hstack([getattr(part, field.name) for part in parts]) for field in fields(PairSums)))
