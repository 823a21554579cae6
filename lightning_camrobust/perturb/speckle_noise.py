"""Speckle noise."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.15, 0.2, 0.35, 0.45, 0.6), cifar=(0.06, 0.1, 0.12, 0.16, 0.2))


@dataclass(frozen=True)
class SpeckleNoise:
    """Multiply by normal noise: ``x + x * N(0, level)``; level is a standard deviation, without unit.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> SpeckleNoise()
        SpeckleNoise(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        noise = randomness.normal(tuple(images.shape[1:])).mul_(level).to(images.dtype)
        return noise.mul_(images).add_(images).clamp_(0, 1)


EXAMPLES = (SpeckleNoise(), SpeckleNoise(column="cifar"))
