"""Uniform noise."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class UniformNoise:
    """Fill with values drawn evenly from (0, 1), channel by channel.

    Example:
        >>> UniformNoise()
        UniformNoise()
    """

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return noise ``(b, c, H, W)`` in the dtype of ``pixels``."""
        return randomness.uniform(tuple(pixels.shape[1:])).to(pixels.dtype)


EXAMPLES = (UniformNoise(),)
