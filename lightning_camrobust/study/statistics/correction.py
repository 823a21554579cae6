"""Which percentile of the replicates to take as a limit: bias and acceleration (BCa), and wider for few images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.distribution import ROUNDING, Distribution

How = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Correction:
    """A one-to-one map between the level that is asked for and the percentile that is taken for it.

    A percentile is given as its place in a standard normal distribution, which keeps digits far out in the tails.

    Attributes:
        bias: BCa's z0, ``(columns,)``.
        acceleration: BCa's a, ``(columns,)``, in [-1/6, 1/6].
        widening: Factor on the quantile, 1 or more, ``(columns,)``.
        freedom: Degrees of freedom of Student's t that gives the quantile, ``(columns,)``; None for the normal.
    """

    bias: Floats
    acceleration: Floats
    widening: Floats
    freedom: Floats | None

    def taken(self, level: float) -> Floats:
        """Return the places ``(columns,)`` in a standard normal distribution that are taken for a level in (0, 1)."""
        quantile = ndtri(level) if self.freedom is None else stdtrit(self.freedom, level)
        shifted = self.bias + self.widening * quantile
        room = 1 - self.acceleration * shifted
        # Without room the correction has run away to one end.
        moved = np.where(room > 0, shifted / np.where(room > 0, room, 1.0), np.copysign(np.inf, shifted))
        return np.asarray(self.bias + moved, dtype=np.float64)

    def asked(self, taken: Floats) -> Floats:
        """Undo :meth:`taken`: return the levels ``(columns,)`` for which the finite places ``taken`` are taken."""
        moved = taken - self.bias
        room = 1 + self.acceleration * moved
        shifted = np.where(room > 0, moved / np.where(room > 0, room, 1.0), np.copysign(np.inf, moved))
        quantile = (shifted - self.bias) / self.widening
        level = ndtr(quantile) if self.freedom is None else stdtr(self.freedom, quantile)
        return np.asarray(level, dtype=np.float64)


def correction_for(distribution: Distribution, *, how: How = "bca", widened: bool = True) -> Correction:
    """Find what a distribution needs.

    Percentiles of a bootstrap are too narrow when few images carry a score, for two reasons, both known from the mean:
    replicates spread less than they should (by sqrt((n - 1) / n)), and the spread itself is uncertain, for which
    Student's t stands in for the normal. Here n images do not carry equally much: an image with ten changed pairs
    pulls R more than one with a single pair, most images have none. So the first is the ratio of the jackknife's
    standard error, which errs on the safe side, to that of the replicates. For the second the degrees of freedom are
    Satterthwaite's: they match mean and variance of the sum of the squared pulls v = sum(u^2) to a chi-squared,
    2 v^2 / (sum(u^4) - v^2 / n), which is n for n normal pulls and 2 if a single image decides.

    Args:
        distribution: From the bootstrap.
        how: ``"bca"`` corrects for bias and for a spread that changes with the value; ``"percentile"`` does not.
        widened: Whether to correct for few images.

    Returns:
        One correction a column.

    Raises:
        ArgumentError: If ``how`` is unknown.

    Source:
        Efron 1987, "Better bootstrap confidence intervals", equations 2.3 and 6.6 (bias, acceleration).
        Hesterberg 2015, "What teachers should know about the bootstrap", section 3.2 (the expanded percentile
        interval). Satterthwaite 1946, "An approximate distribution of estimates of variance components".

    Example:
        >>> even = Distribution(np.array([0.5]), np.arange(101.0)[:, None] / 100, np.array([[0.4], [0.6]]))
        >>> correction_for(even, widened=False).taken(0.025).round(3).tolist()
        [-1.96]
    """
    if how not in ("bca", "percentile"):
        raise ArgumentError(f"`how` must be 'bca' or 'percentile', got {how!r}.")
    pull = distribution.pull()
    none, one = np.zeros_like(distribution.value), np.ones_like(distribution.value)
    bias, acceleration = (_bias(distribution), _acceleration(pull)) if how == "bca" else (none, none)
    if not widened:
        return Correction(bias, acceleration, one, None)
    return Correction(bias, acceleration, _widening(distribution, pull), _freedom(pull))


def _bias(distribution: Distribution) -> Floats:
    """Quantile of the share of replicates below the value, ties half; kept off the ends by half a replicate."""
    replicates, value = distribution.replicates, distribution.value
    count = np.maximum(len(replicates) - distribution.undefined(), 1)
    share = ((replicates < value).sum(axis=0) + (replicates <= value).sum(axis=0)) / (2 * count)
    return np.asarray(ndtri(np.clip(share, 0.5 / count, 1 - 0.5 / count)), dtype=np.float64)


def _acceleration(pull: Floats) -> Floats:
    """A sixth of the skewness of the pulls."""
    scale = (pull**2).sum(axis=0) ** 1.5
    return np.where(scale > 0, (pull**3).sum(axis=0) / np.where(scale > 0, 6 * scale, 1.0), 0.0)


def _widening(distribution: Distribution, pull: Floats) -> Floats:
    images = len(pull)
    jackknife = np.sqrt((images - 1) / images * (pull**2).sum(axis=0))
    spread = distribution.spread()
    moves = spread > ROUNDING
    return np.maximum(np.where(moves, jackknife / np.where(moves, spread, 1.0), 1.0), 1.0)


def _freedom(pull: Floats) -> Floats:
    """Satterthwaite's degrees of freedom, from 1 to one below the number of images."""
    images = len(pull)
    total = (pull**2).sum(axis=0)
    uncertainty = (pull**4).sum(axis=0) - total**2 / images
    most = float(max(images - 1, 1))
    known = uncertainty > 2 * total**2 / most
    return np.where(known, np.maximum(2 * total**2 / np.where(known, uncertainty, 1.0), 1.0), most)
