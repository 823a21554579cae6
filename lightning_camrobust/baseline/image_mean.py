"""The mean colour of each image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class ImageMean:
    """Fill each image with its own mean, channel by channel; pixels to be removed count as well.

    Example:
        >>> ImageMean()
        ImageMean()
    """

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return the mean colours ``(b, c, H, W)`` in the dtype of ``pixels``."""
        # One image at a time: how a sum is split over threads depends on the size of the batch.
        means = [image.double().mean(dim=(1, 2), keepdim=True) for image in pixels]
        return torch.stack(means).to(pixels.dtype).clamp_(0, 1).expand(pixels.shape).clone()


EXAMPLES = (ImageMean(),)
