"""Snow."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import motion_filter
from lightning_camrobust.imaging.weather import zoom_centre
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

Level = tuple[float, float, float, float, int, float, float]
_TABLE: SeverityTable[Level] = SeverityTable(
    imagenet=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    cifar=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Snow:
    """Let it snow: flakes smeared by their fall, in two opposite layers, over a whitened image.

    Flakes are the pixels of enlarged normal noise ``N(mean, spread)`` that reach ``threshold``. They are smeared along
    one direction an image, uniform within 45 degrees of straight down; the second layer is the first one, turned by 180
    degrees. The image becomes ``keep * x + (1 - keep) * max(x, 1.5 * grey + 0.5)`` first. The scripts smear by
    ImageMagick and round the flakes to 8 bits before and after; here its kernel is rebuilt and nothing is rounded.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own ``(mean, spread, zoom, threshold, radius, sigma, keep)`` for severity 1..5 instead of a published
            column; zoom is 1 or more, radius and sigma are pixels above 0.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> Snow()
        Snow(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[Level, Level, Level, Level, Level] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not isinstance(level, tuple) or len(level) != 7 or level[2] < 1 or not min(level[4:6]) > 0:
                raise ArgumentError(
                    "Snow: each of `levels` must be (mean, spread, zoom, threshold, radius, sigma, keep) with a zoom "
                    f"of 1 or more and a radius and sigma above 0, got {level!r}."
                )

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        mean, spread, zoom, threshold, radius, sigma, keep = table.value(severity, images=images, column=self.column)
        noise = randomness.normal(tuple(images.shape[-2:])).mul_(spread).add_(mean)
        flakes = zoom_centre(noise, zoom)
        flakes = torch.where(flakes < threshold, 0.0, flakes).clamp_(0, 1)
        # At -90 degrees a pixel shows what was above it, that is, flakes fall straight down.
        angles = randomness.uniform((1,))[:, 0].mul_(90).sub_(135)
        flakes = motion_filter(flakes[:, None], radius=radius, sigma=sigma, angles=angles)
        flakes = (flakes + flakes.flip(2, 3)).to(images.dtype)
        whitened = torch.maximum(images, _grey(images).mul_(1.5).add_(0.5))
        return (images * keep).add_(whitened.mul_(1 - keep)).add_(flakes).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    channels = images.shape[1]
    shares = _LUMA if channels == 3 else (1 / channels,) * channels
    grey = images[:, :1] * shares[0]
    for channel in range(1, channels):
        grey += images[:, channel : channel + 1] * shares[channel]
    return grey


EXAMPLES = (Snow(), Snow(column="cifar"))
