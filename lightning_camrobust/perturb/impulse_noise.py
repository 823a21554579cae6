"""Impulse (salt and pepper) noise."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_TABLE = SeverityTable(imagenet=(0.03, 0.06, 0.09, 0.17, 0.27), cifar=(0.01, 0.02, 0.03, 0.05, 0.07))


@dataclass(frozen=True)
class ImpulseNoise:
    """Set a share ``level`` of all values, channel by channel, to 0 or 1 with equal chance.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> ImpulseNoise()
        ImpulseNoise(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        level = table.value(severity, images=images, column=self.column)
        chance = randomness.uniform(tuple(images.shape[1:])).sub_(0.5)
        # Zero but for the outer shares of half the level; those push far beyond 0 or 1. Masks are ten times slower.
        push = hardshrink(chance, 0.5 - level / 2).to(images.dtype)
        return torch.add(images, push, alpha=2.0**30).clamp_(0, 1)


EXAMPLES = (ImpulseNoise(), ImpulseNoise(column="cifar"))
