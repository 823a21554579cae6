"""Gaussian blur."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_camrobust.imaging.filtering import gaussian_filter
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(1.0, 2.0, 3.0, 4.0, 6.0), cifar=(0.4, 0.6, 0.7, 0.8, 1.0))


@dataclass(frozen=True)
class GaussianBlur:
    """Blur each channel by a Gaussian; level is its standard deviation in pixels. Nothing is random.

    The Gaussian ends at four standard deviations, and the last pixel repeats beyond the border, as in scikit-image.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> GaussianBlur()
        GaussianBlur(column='auto', levels=None)
    """

    random: ClassVar[bool] = False
    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        sigma = table.value(severity, images=images, column=self.column)
        return gaussian_filter(images, sigma=sigma).clamp_(0, 1)


EXAMPLES = (GaussianBlur(), GaussianBlur(column="cifar"))
