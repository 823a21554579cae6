"""Grey."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class Grey:
    """Fill with one level in all channels.

    Attributes:
        level: In pixel units, 0 (black) to 1 (white).

    Example:
        >>> Grey(level=0.25)
        Grey(level=0.25)
    """

    level: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ArgumentError(f"Grey: `level` must lie in [0, 1] (pixel units), got {self.level!r}.")

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return ``level`` everywhere, ``(b, c, H, W)`` in the dtype of ``pixels``."""
        return torch.full_like(pixels, self.level)


EXAMPLES = (Grey(), Grey(level=0.25))
