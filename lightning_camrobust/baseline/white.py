"""White."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class White:
    """Fill with 1 in pixel space.

    Example:
        >>> White()
        White()
    """

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return ones ``(b, c, H, W)`` in the dtype of ``pixels``."""
        return torch.ones_like(pixels)


EXAMPLES = (White(),)
