"""Black."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class Black:
    """Fill with 0 in pixel space, which is black; a 0 in normalised space would be the mean colour.

    Example:
        >>> Black()
        Black()
    """

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return zeros ``(b, c, H, W)`` in the dtype of ``pixels``."""
        return torch.zeros_like(pixels)


EXAMPLES = (Black(),)
