"""The mean colour of a data set."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Randomness

_IMAGENET = (0.485, 0.456, 0.406)


@dataclass(frozen=True)
class DatasetMean:
    """Fill with one colour, the mean of the training data; it is what a 0 in normalised space shows.

    Attributes:
        colour: One value a channel in pixel units [0, 1]; ImageNet's mean unless given. Images of another number of
            channels get the mean of the values in every channel.

    Example:
        >>> DatasetMean(colour=(0.5, 0.25, 0.0))
        DatasetMean(colour=(0.5, 0.25, 0.0))
    """

    colour: tuple[float, ...] = _IMAGENET

    def __post_init__(self) -> None:
        if not isinstance(self.colour, tuple) or not self.colour or not all(0 <= each <= 1 for each in self.colour):
            raise ArgumentError(
                "DatasetMean: `colour` must be a tuple of values in [0, 1] (pixel units), one a channel, "
                f"got {self.colour!r}. Pass the mean given to Normalize."
            )

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return the colour everywhere, ``(b, c, H, W)`` in the dtype of ``pixels``."""
        channels = pixels.shape[1]
        fits = len(self.colour) == channels
        values = self.colour if fits else (math.fsum(self.colour) / len(self.colour),) * channels
        fill = torch.empty_like(pixels)
        for channel, value in enumerate(values):
            fill[:, channel] = value
        return fill


EXAMPLES = (DatasetMean(), DatasetMean(colour=(0.1307,)))
