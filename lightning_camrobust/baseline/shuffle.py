"""The pixels of the image in random order."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class Shuffle:
    """Fill with the image's own pixels in random order; a pixel keeps its colour, so all histograms stay.

    Example:
        >>> Shuffle()
        Shuffle()
    """

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return shuffled copies ``(b, c, H, W)`` in the dtype of ``pixels``."""
        keys = randomness.uniform((pixels.shape[2] * pixels.shape[3],))
        # Equal keys happen, and an unstable sort would place them differently on another device.
        order = torch.argsort(keys, dim=1, stable=True)[:, None]
        return pixels.flatten(2).gather(2, order.expand(-1, pixels.shape[1], -1)).view(pixels.shape)


EXAMPLES = (Shuffle(),)
