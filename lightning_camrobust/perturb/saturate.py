"""Saturation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

Level = tuple[float, float]
_TABLE: SeverityTable[Level] = SeverityTable(
    imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    cifar=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
)


@dataclass(frozen=True)
class Saturate:
    """Change saturation in HSV: ``S -> clip(S * factor + shift)``; hue and value stay.

    Nothing is random. The published severities are no ladder: 1 and 2 take colour away, 3 to 5 add it. A grey pixel has
    hue 0, which is red, so that a shift above 0 tints greys red, here as in the scripts. Images that do not have three
    channels have no saturation and come back unchanged.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own ``(factor, shift)`` for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> orange = torch.tensor([0.4, 0.3, 0.2]).view(1, 3, 1, 1)
        >>> Saturate(levels=((2, 0),) * 5)(orange, severity=1, randomness=None).flatten()
        tensor([0.4000, 0.2000, 0.0000])
    """

    random: ClassVar[bool] = False

    column: Column = "auto"
    levels: tuple[Level, Level, Level, Level, Level] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not isinstance(level, tuple) or len(level) != 2:
                raise ArgumentError(f"Saturate: each of `levels` must be (factor, shift), got {level!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        factor, shift = table.value(severity, images=images, column=self.column)
        if images.shape[1] != 3:
            return images.clone()
        value = images.amax(dim=1, keepdim=True)
        spread = value - images.amin(dim=1, keepdim=True)
        coloured = spread > 0
        # How far a channel lies below the value, from 0 (the strongest) to 1 (the weakest): the hue.
        red = torch.arange(3, dtype=images.dtype, device=images.device).clamp_(max=1).view(1, 3, 1, 1)
        depth = torch.where(coloured, (value - images) / spread, red)
        saturation = torch.where(coloured, spread / value, 0.0).mul_(factor).add_(shift).clamp_(0, 1)
        return value * (1 - depth.mul_(saturation))


EXAMPLES = (Saturate(), Saturate(column="cifar"))
