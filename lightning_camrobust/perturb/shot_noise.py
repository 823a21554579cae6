"""Shot (Poisson) noise."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

# Up to here counts are drawn from alias tables, which are fast to use; beyond, making them takes too long.
_MOST_PHOTONS = 1000
_TABLE = SeverityTable(imagenet=(60, 25, 12, 5, 3), cifar=(500, 250, 100, 75, 50))


@dataclass(frozen=True)
class ShotNoise:
    """Count photons: ``Poisson(x * level) / level``; level is the number of photons of a white pixel.

    The pixel is rounded to 8 bits first, as in the benchmark, whose images are 8-bit files. So one table of 256
    distributions serves a whole batch, and the count does not hang on the last bit of a float. Counts are drawn by
    Walker's alias method.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> ShotNoise()
        ShotNoise(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        values = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = values.value(severity, images=images, column=self.column)
        grey = (images.float() * 255).round_().clamp_(0, 255)
        chance = randomness.uniform(tuple(images.shape[1:]))
        draw = _draw_by_alias if level <= _MOST_PHOTONS else _draw_by_search
        return draw(grey, chance, level).div_(level).clamp_(max=1).to(images.dtype)


def _draw_by_alias(grey: Tensor, chance: Tensor, level: float) -> Tensor:
    table, columns = _alias_table(level, grey.device)
    position = chance.mul_(columns)
    column = position.floor()
    # Whole numbers below 2^24, exact in float32.
    cell = grey.mul_(columns).add_(column).to(torch.int32)
    drawn = table.index_select(0, cell.flatten()).view(grey.shape)
    other = drawn.floor()
    # 1 where the chance is below, else 0; masks are ten times slower.
    stays = drawn.sub_(other).sub_(position.sub_(column)).mul_(2.0**100).clamp_(0, 1)
    return column.sub_(other).mul_(stays).add_(other)


def _draw_by_search(grey: Tensor, chance: Tensor, level: float) -> Tensor:
    table, columns = _shifted_distributions(level, grey.device)
    # Row g of the table lies in (g, g + 1], so one search in the flattened table finds the count for grey level g.
    found: Tensor = torch.searchsorted(table, chance.double().add_(grey), out_int32=True)
    return found.sub_(grey.mul_(columns).to(torch.int32)).to(torch.float32)


def _columns(level: float) -> int:
    return int(np.ceil(level + 10 * np.sqrt(level) + 20))


@lru_cache(maxsize=32)
def _alias_table(level: float, device: torch.device) -> tuple[Tensor, int]:
    """Write the 256 distributions of counts as Walker alias tables, ``(256 * columns,)``.

    A column is drawn evenly; its own number is the count with the chance that stands behind the point, else the count
    before the point is.
    """
    rates = np.arange(256)[:, None] / 255 * level
    columns = _columns(level)
    share = stats.poisson.pmf(np.arange(columns)[None], rates) * columns
    rows, order = np.arange(256), share.argsort(axis=1)
    stay, other = np.ones((256, columns)), np.tile(np.arange(columns), (256, 1))
    # From the emptiest column up and from the fullest one down: a column with less than its share is filled up from the
    # fullest and closed; a full one that has given too much is the next to be filled.
    poor, next_poor, fullest = order[:, 0], np.ones(256, dtype=int), np.full(256, columns - 1)
    for _ in range(columns - 1):
        rich = order[rows, fullest]
        stay[rows, poor], other[rows, poor] = share[rows, poor], rich
        share[rows, rich] -= 1 - share[rows, poor]
        exhausted = share[rows, rich] < 1
        poor = np.where(exhausted, rich, order[rows, np.minimum(next_poor, columns - 1)])
        fullest, next_poor = fullest - exhausted, next_poor + ~exhausted
    # A column that (nearly) always stays becomes its own alias; float32 would round the chance up to the next count.
    table = np.where(stay < 1 - 2**-12, other + stay, np.arange(columns) + 0.5)
    return torch.from_numpy(table.ravel().astype(np.float32)).to(device), columns


@lru_cache(maxsize=8)
def _shifted_distributions(level: float, device: torch.device) -> tuple[Tensor, int]:
    rates = np.arange(256)[:, None] / 255 * level
    columns = _columns(level)
    cumulative = stats.poisson.cdf(np.arange(columns)[None], rates)
    cumulative[:, -1] = 1.0
    return torch.from_numpy((cumulative + np.arange(256)[:, None]).ravel()).to(device), columns


EXAMPLES = (ShotNoise(), ShotNoise(column="cifar"))
