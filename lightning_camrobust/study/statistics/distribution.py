"""A score and how it varies when images are drawn anew."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lightning_camrobust.study.outcomes import Floats, Integers

# A sum is taken in another order for each resample; what differs by less than this differs by rounding alone.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Distribution:
    """A score of some columns, of all images, of every resample and of all images but one.

    Attributes:
        value: Of all images, ``(columns,)`` float64; NaN where it is undefined.
        replicates: Of every resample, ``(resamples, columns)`` float64; NaN where it is undefined.
        left_out: Of all images but one, ``(images, columns)`` float64: the jackknife.

    Example:
        >>> same = Distribution(np.array([0.5]), np.array([[0.4], [np.nan]]), np.array([[0.5], [0.5]]))
        >>> (same - same).value.tolist(), same.undefined().tolist()
        ([0.0], [1])
    """

    value: Floats
    replicates: Floats
    left_out: Floats

    def __sub__(self, other: "Distribution") -> "Distribution":
        """Return the distribution of a difference; both must come from the same resamples of the same images."""
        pairs = (
            (self.value, other.value),
            (self.replicates, other.replicates),
            (self.left_out, other.left_out),
        )
        return Distribution(*(mine - theirs for mine, theirs in pairs))

    def columns(self, chosen: ArrayLike) -> "Distribution":
        """Return some columns only, by their indices, which may repeat."""
        indices = np.atleast_1d(np.asarray(chosen, dtype=np.int64))
        return Distribution(*(each[..., indices] for each in (self.value, self.replicates, self.left_out)))

    def undefined(self) -> Integers:
        """Return in how many resamples the score is undefined, ``(columns,)``."""
        return np.asarray(np.isnan(self.replicates).sum(axis=0), dtype=np.int64)

    def without_rounding(self) -> "Distribution":
        """Return replicates that equal the value, or zero, up to rounding as exactly equal."""
        value = _snap(self.value, 0.0)
        return Distribution(value, _snap(_snap(self.replicates, value), 0.0), self.left_out)

    def pull(self) -> Floats:
        """Return how far each image pulls the score, ``(images, columns)``; they add up to 0."""
        defined = ~np.isnan(self.left_out)
        count = np.maximum(defined.sum(axis=0), 1)
        mean = np.where(defined, self.left_out, 0.0).sum(axis=0) / count
        pull = np.where(defined, mean - self.left_out, 0.0)
        return np.where(np.abs(pull).max(axis=0) <= ROUNDING, 0.0, pull)

    def spread(self) -> Floats:
        """Return the standard deviation of the replicates, ``(columns,)``, over those that are defined."""
        defined = ~np.isnan(self.replicates)
        count = np.maximum(defined.sum(axis=0), 1)
        mean = np.where(defined, self.replicates, 0.0).sum(axis=0) / count
        squares = np.where(defined, (self.replicates - mean) ** 2, 0.0)
        return np.asarray(np.sqrt(squares.sum(axis=0) / count), dtype=np.float64)


def _snap(values: Floats, target: "Floats | float") -> Floats:
    return np.where(np.abs(values - target) <= ROUNDING, target, values)
