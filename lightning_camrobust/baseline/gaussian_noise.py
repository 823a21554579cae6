"""Gaussian noise around middle grey."""

import math
from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class GreyNoise:
    """Fill with ``0.5 + sigma * N(0, 1)``, channel by channel, clipped to [0, 1].

    Attributes:
        sigma: Standard deviation before clipping, in pixel units.

    Example:
        >>> GreyNoise(sigma=0.1)
        GreyNoise(sigma=0.1)
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ArgumentError(
                f"GreyNoise: `sigma` must be finite and above 0 (pixel units), got {self.sigma!r}. "
                "Without noise the baseline is 'grey'."
            )

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return noise ``(b, c, H, W)`` in the dtype of ``pixels``."""
        noise = randomness.normal(tuple(pixels.shape[1:])).to(pixels.dtype)
        return noise.mul_(self.sigma).add_(0.5).clamp_(0, 1)


EXAMPLES = (GreyNoise(), GreyNoise(sigma=0.1))
