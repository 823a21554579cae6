"""Shot (Poisson) noise."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(60, 25, 12, 5, 3), cifar=(500, 250, 100, 75, 50))


@dataclass(frozen=True)
class ShotNoise:
    """Count photons: ``Poisson(x * level) / level``; level is the number of photons of a white pixel.

    The pixel is rounded to 8 bits first, as in the benchmark, whose images are 8-bit files. So one table of 256
    distribution functions serves a whole batch, and the count does not hang on the last bit of a float.

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
        grey = (images.float().clamp(0, 1) * 255).round()
        chance = randomness.uniform(tuple(images.shape[1:])).double()
        cumulative, columns = _shifted_distributions(level)
        # Row g of the table lies in (g, g + 1], so one search in the flattened table finds the count for grey level g.
        table = torch.from_numpy(cumulative).to(images.device)
        found: Tensor = torch.searchsorted(table, chance.add_(grey), out_int32=True)
        counts = found.sub_(grey.mul_(columns).to(torch.int32))
        noisy: Tensor = counts.to(torch.float32) / level
        return noisy.clamp_(0, 1).to(images.dtype)


@lru_cache(maxsize=32)
def _shifted_distributions(level: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], int]:
    rates = np.arange(256)[:, None] / 255 * level
    columns = int(np.ceil(level + 10 * np.sqrt(level) + 20))
    cumulative = stats.poisson.cdf(np.arange(columns)[None], rates)
    cumulative[:, -1] = 1.0
    return (cumulative + np.arange(256)[:, None]).ravel(), columns


EXAMPLES = (ShotNoise(), ShotNoise(column="cifar"))
