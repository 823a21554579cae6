"""Zoom blur."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import sampling_grid
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_Level = tuple[float, float]
_TABLE: SeverityTable[_Level] = SeverityTable(
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
)


@dataclass(frozen=True)
class ZoomBlur:
    """Average the image with itself zoomed in more and more; nothing is random.

    A level is (end, step) of the zoom factors ``numpy.arange(1, end, step)``. By rounding, numpy includes the end
    1.11 and 1.06 but none of the others; the published images were made that way. Each zoom interpolates linearly
    between the corners of a central crop, and the image itself counts twice (as such, and as the zoom by 1).

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts. Their images are square; others are
        cropped along each axis on its own.

    Example:
        >>> ZoomBlur()
        ZoomBlur(column='auto', levels=None)
    """

    geometric: ClassVar[bool] = True
    random: ClassVar[bool] = False
    column: Column = "auto"
    levels: tuple[_Level, _Level, _Level, _Level, _Level] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        factors = _factors(*self._level(images, severity))
        blurred = images.clone()
        for factor in factors:
            blurred += _zoom(images, factor)
        return blurred.div_(len(factors) + 1).clamp_(0, 1)

    def flow(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return where the pixels come from on average, ``(b, H, W, 2)`` float32, as a grid for ``grid_sample``."""
        factors = _factors(*self._level(images, severity))
        count, _, height, width = images.shape
        rows, columns = (_mean_positions(size, factors, images.device) for size in (height, width))
        shape = (count, height, width)
        return sampling_grid(rows[None, :, None].expand(shape), columns[None, None, :].expand(shape))

    def _level(self, images: Tensor, severity: int) -> _Level:
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        return table.value(severity, images=images, column=self.column)


@lru_cache(maxsize=32)
def _factors(end: float, step: float) -> tuple[float, ...]:
    if not 1 < end < math.inf or not 0 < step < math.inf:
        raise ArgumentError(f"`levels`: a zoom blur needs an end above 1 and a step above 0, got {(end, step)}.")
    return tuple(np.arange(1, end, step).tolist())


def _crop(size: int, factor: float) -> tuple[int, int, int, int]:
    """Return first pixel and size of the crop, its size when zoomed, and how much of that is cut off in front."""
    inner = math.ceil(size / factor)
    zoomed = round(inner * factor)
    return (size - inner) // 2, inner, zoomed, (zoomed - size) // 2


def _zoom(images: Tensor, factor: float) -> Tensor:
    height, width = images.shape[2:]
    (top, tall, outer_tall, above), (left, wide, outer_wide, before) = (_crop(each, factor) for each in (height, width))
    crop = images[:, :, top : top + tall, left : left + wide]
    zoomed = interpolate(crop, size=(outer_tall, outer_wide), mode="bilinear", align_corners=True)
    return zoomed[:, :, above : above + height, before : before + width]


@lru_cache(maxsize=32)
def _mean_positions(size: int, factors: tuple[float, ...], device: torch.device) -> Tensor:
    total = np.arange(size, dtype=np.float64)
    for factor in factors:
        start, inner, zoomed, cut = _crop(size, factor)
        total += start + (np.arange(size) + cut) * ((inner - 1) / max(1, zoomed - 1))
    # Kept, and made outside inference mode, as all constants are.
    with torch.inference_mode(False):
        return torch.from_numpy((total / (len(factors) + 1)).astype(np.float32)).to(device)


EXAMPLES = (ZoomBlur(), ZoomBlur(column="cifar"))
