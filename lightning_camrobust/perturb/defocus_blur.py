"""Defocus blur."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import pad_with_border
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_Level = tuple[float, float]
_TABLE: SeverityTable[_Level] = SeverityTable(
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)


@dataclass(frozen=True)
class DefocusBlur:
    """Spread each pixel over a disk, as a lens out of focus does; nothing is random.

    A level is (radius of the disk, standard deviation of the Gaussian that softens its rim), in pixels. The image is
    mirrored at the centre of its last pixel.

    The released scripts soften the disk inside its own small array, mirrored at the array's border. A disk that
    touches the border (radius 8, or 9 and more) gains weight by that, and the image gets brighter by about one part
    in a hundred. That is kept, since it is what was published.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> DefocusBlur()
        DefocusBlur(column='auto', levels=None)
    """

    random: ClassVar[bool] = False
    column: Column = "auto"
    levels: tuple[_Level, _Level, _Level, _Level, _Level] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        radius, softness = table.value(severity, images=images, column=self.column)
        return _filter_even(images, _disk(radius, softness)).clamp_(0, 1)


def _filter_even(images: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Sum shifted copies; columns left and right of the centre weigh the same, so they are added to each other once."""
    margin, (height, width) = len(kernel) // 2, images.shape[2:]
    padded = pad_with_border(pad_with_border(images, margin, "mirror", dim=2), margin, "mirror", dim=3)
    blurred = torch.zeros_like(images)
    for shift in range(margin + 1):
        columns = padded.narrow(3, margin - shift, width).contiguous()
        if shift:
            columns += padded.narrow(3, margin + shift, width)
        for row, weights in enumerate(kernel):
            # What is left of a narrow Gaussian's tail is far below the last bit of a pixel.
            if weights[margin + shift] > 1e-12:
                blurred.add_(columns.narrow(2, row, height), alpha=weights[margin + shift])
    return blurred


@lru_cache(maxsize=32)
def _disk(radius: float, softness: float) -> tuple[tuple[float, ...], ...]:
    for name, value in (("radius", radius), ("softness", softness)):
        if not 0 < value < math.inf:
            raise ArgumentError(f"`levels`: {name} of a defocus blur must be a finite number above 0, got {value!r}.")
    half, taps = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    axis = np.arange(-half, half + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float64)
    # The first and last line of the mirrored array come again two lines further.
    gaussian = np.exp(-np.square((np.arange(taps) - taps // 2) / softness) / 2)
    gaussian /= gaussian.sum()
    for _ in range(2):
        mirrored = np.pad(disk, ((taps // 2, taps // 2), (0, 0)), mode="reflect")
        disk = sum(weight * mirrored[i : i + len(disk)] for i, weight in enumerate(gaussian)).T
    disk /= np.count_nonzero(axis[:, None] ** 2 + axis**2 <= radius**2)
    return tuple(map(tuple, disk.tolist()))


EXAMPLES = (DefocusBlur(), DefocusBlur(column="cifar"))
