"""Brightness."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.1, 0.2, 0.3, 0.4, 0.5), cifar=(0.05, 0.1, 0.15, 0.2, 0.3))


@dataclass(frozen=True)
class Brightness:
    """Brighten: add ``level`` to the value channel of HSV and clip it to [0, 1]; hue and saturation stay.

    Nothing is random. Images that do not have three channels count as values themselves.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column, in pixel units [0, 1].

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> orange = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
        >>> Brightness(levels=(0.4,) * 5)(orange, severity=1, randomness=None).flatten()
        tensor([0.8000, 0.4000, 0.0000])
    """

    random: ClassVar[bool] = False

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        if images.shape[1] != 3:
            return (images + level).clamp_(0, 1)
        # Hue and saturation are the ratios of the channels. Black has none and turns grey.
        value = images.amax(dim=1, keepdim=True)
        ratios = torch.where(value > 0, images / value, 1.0)
        return ratios.mul_((value + level).clamp_(0, 1)).clamp_(0, 1)


EXAMPLES = (Brightness(), Brightness(column="cifar"))
