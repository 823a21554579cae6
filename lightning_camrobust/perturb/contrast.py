"""Contrast."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.4, 0.3, 0.2, 0.1, 0.05), cifar=(0.75, 0.5, 0.4, 0.3, 0.15))


@dataclass(frozen=True)
class Contrast:
    """Take contrast away: ``(x - mean) * level + mean``, with the mean of each image's channel over its pixels.

    Nothing is random.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own factors for severity 1..5 instead of a published column; 1 changes nothing, 0 leaves the mean.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> import torch
        >>> pixels = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
        >>> Contrast(levels=(0.5,) * 5)(pixels, severity=1, randomness=None).flatten()
        tensor([0.3000, 0.5000])
    """

    random: ClassVar[bool] = False

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        # Row by row, then the rows: a single sum over one large image would be split over threads, one over many not.
        mean = images.contiguous().mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
        return (images - mean).mul_(level).add_(mean).clamp_(0, 1)


EXAMPLES = (Contrast(), Contrast(column="cifar"))
