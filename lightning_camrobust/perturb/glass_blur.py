"""Glass blur."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import gaussian_filter, sampling_grid
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_Level = tuple[float, int, int]
_TABLE: SeverityTable[_Level] = SeverityTable(
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
)


@dataclass(frozen=True)
class GlassBlur:
    """Blur, let pixels take the place of near ones, blur again, as frosted glass does.

    A level is (standard deviation of both Gaussians in pixels, largest shift, number of rounds). In each round the
    inner pixels are visited from the last to the first, row by row. Each takes the value that then stands at a random
    place ``shift`` or fewer pixels up or left, or fewer than ``shift`` pixels down or right, so that values can travel
    far in one round. On average the picture moves right and down, by half a pixel a round or a little more.

    The released scripts mean to swap both values, but write through views of one array, which copies the one value
    and leaves the other; here it is copied, as in the published images. The scripts cut values down to 8 bits after
    the first Gaussian; here they keep their precision.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> GlassBlur()
        GlassBlur(column='auto', levels=None)
    """

    geometric: ClassVar[bool] = True
    column: Column = "auto"
    levels: tuple[_Level, _Level, _Level, _Level, _Level] | None = None

    def __post_init__(self) -> None:
        for level in self.levels or ():
            if any(int(value) != value or value < 1 for value in level[1:]):
                raise ArgumentError(f"`levels`: shift and rounds of a glass blur are whole and above 0, got {level}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        sigma, shift, rounds = self._level(images, severity)
        origins = _origins(images, int(shift), int(rounds), randomness)
        blurred = gaussian_filter(images, sigma=sigma).flatten(2)
        moved = blurred.gather(2, origins[:, None, :].expand_as(blurred)).view(images.shape)
        return gaussian_filter(moved, sigma=sigma).clamp_(0, 1)

    def flow(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return where the pixels come from on average, ``(b, H, W, 2)`` float32, as a grid for ``grid_sample``."""
        sigma, shift, rounds = self._level(images, severity)
        origins = _origins(images, int(shift), int(rounds), randomness).view(-1, *images.shape[2:])
        width = images.shape[3]
        places = torch.stack([origins.div(width, rounding_mode="floor"), origins % width], dim=1).float()
        rows, columns = gaussian_filter(places, sigma=sigma).unbind(dim=1)
        return sampling_grid(rows, columns)

    def _level(self, images: Tensor, severity: int) -> _Level:
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        return table.value(severity, images=images, column=self.column)


def _origins(images: Tensor, shift: int, rounds: int, randomness: Randomness) -> Tensor:
    """Return for each pixel the number of the pixel whose value it ends up with, ``(b, H * W)`` int64."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    here = (rows * width + columns).flatten()
    visited = (shift < rows) & (rows <= height - shift) & (shift < columns) & (columns <= width - shift)
    visited = visited.flatten()
    origins = here.expand(len(images), -1)
    draws = randomness.uniform((rounds, 2, height * width)).mul_(2 * shift).floor_().long().sub_(shift)
    for right, down in (draw.unbind(dim=1) for draw in draws.unbind(dim=1)):
        there = torch.where(visited, here + down * width + right, here)
        # A pixel behind was visited before and has another's value by now: follow it to one that was not, in strides
        # that double.
        chain = torch.where(there > here, there, here)
        for _ in range((height * width).bit_length() if shift > 1 else 0):
            chain = chain.gather(1, chain)
        origins = origins.gather(1, there.gather(1, chain))
    return origins


EXAMPLES = (GlassBlur(), GlassBlur(column="cifar"))
