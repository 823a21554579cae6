"""Pixelation."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.6, 0.5, 0.4, 0.3, 0.25), cifar=(0.95, 0.9, 0.85, 0.75, 0.65))


@dataclass(frozen=True)
class Pixelate:
    """Shrink to a share ``level`` of the side lengths and enlarge again, both with a box filter.

    A small pixel is the mean of the pixels whose middles lie in its box, and the enlarged image repeats it, as
    Pillow's BOX filter does. Nothing is random. The scripts round to 8 bits in between; here nothing is rounded.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own shares in (0, 1] for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> pixels = torch.tensor([0.1, 0.3, 0.6, 1.0]).expand(1, 1, 4, 4)
        >>> Pixelate(levels=(0.5,) * 5)(pixels, severity=1, randomness=None)[0, 0, 0]
        tensor([0.2000, 0.2000, 0.8000, 0.8000])
    """

    random: ClassVar[bool] = False

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not 0 < level <= 1:
                raise ArgumentError(f"Pixelate: each of `levels` must be a share in (0, 1], got {level!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        for dim in (3, 2):
            images = _coarsen(images, dim, level)
        return images.clamp(0, 1)


def _coarsen(images: Tensor, dim: int, level: float) -> Tensor:
    members, weights, repeats = _boxes(images.shape[dim], level, images.dtype, images.device)
    shape = [-1 if each == dim else 1 for each in range(4)]
    # Pixel by pixel of a box. A matrix product would be shorter, but its bits depend on the size of the batch.
    small = sum(
        images.index_select(dim, member) * weight.view(shape) for member, weight in zip(members, weights, strict=True)
    )
    assert isinstance(small, Tensor)
    return small.index_select(dim, repeats)


@lru_cache(maxsize=64)
def _boxes(length: int, level: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """List the pixels of each small pixel's box, ``(most, small)``, their weights, and who shows which small pixel."""
    small = max(1, int(length * level))
    scale = length / small
    # Pillow's own arithmetic: its rounding decides which box gets a pixel whose middle lies on the edge of two.
    middles = (np.arange(small)[:, None] + 0.5) * scale
    starts, ends = ((middles + half + 0.5).astype(int) for half in (-0.5 * scale, 0.5 * scale))
    pixels = np.arange(length)
    far = (pixels - middles + 0.5) * (1 / scale)
    boxes = (pixels >= starts) & (pixels < ends) & (far > -0.5) & (far <= 0.5)
    sizes = boxes.sum(axis=1)
    order = np.arange(sizes.max())[:, None]
    members = np.minimum(boxes.argmax(axis=1) + order, length - 1)
    weights = (order < sizes) / sizes
    repeats = ((np.arange(length) + 0.5) * (small / length)).astype(int)
    with torch.inference_mode(False):
        shares = torch.from_numpy(weights).to(dtype).to(device)
        return torch.from_numpy(members).to(device), shares, torch.from_numpy(repeats).to(device)


EXAMPLES = (Pixelate(), Pixelate(column="cifar"))
