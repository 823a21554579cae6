"""Uniform noise."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class UniformNoise:
    """Add uniform noise: ``x + U(-level, level)``; level is a half-width in pixel units [0, 1].

    It is the disturbance of the sensitivity scores: Quantus draws 200 copies at 0.2, Captum 10 at 0.02.

    Attributes:
        levels: Own values for severity 1..5 instead of 0.05, 0.1, 0.2, 0.3, 0.4; images of every size take the same.

    Source:
        Yeh et al. 2019 (arXiv 1901.09392), who look for the largest change of a map within such a box.

    Example:
        >>> UniformNoise()
        UniformNoise(levels=None)
    """

    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        levels = _LEVELS if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)
        noise = randomness.uniform(tuple(images.shape[1:])).sub_(0.5).mul_(2 * level).to(images.dtype)
        return noise.add_(images).clamp_(0, 1)


EXAMPLES = (UniformNoise(),)
