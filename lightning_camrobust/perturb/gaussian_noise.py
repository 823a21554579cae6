"""Gaussian noise."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.08, 0.12, 0.18, 0.26, 0.38), cifar=(0.04, 0.06, 0.08, 0.09, 0.10))


@dataclass(frozen=True)
class GaussianNoise:
    """Add normal noise: ``x + N(0, level)``; level is a standard deviation in pixel units [0, 1].

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> GaussianNoise()
        GaussianNoise(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        noise = randomness.normal(tuple(images.shape[1:])).mul_(level).to(images.dtype)
        return noise.add_(images).clamp_(0, 1)


EXAMPLES = (GaussianNoise(), GaussianNoise(column="cifar"))
