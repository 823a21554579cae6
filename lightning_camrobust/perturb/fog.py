"""Fog."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.weather import plasma_fractal
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

Level = tuple[float, float]
_TABLE: SeverityTable[Level] = SeverityTable(
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
)


@dataclass(frozen=True)
class Fog:
    """Lay clouds over the image: ``(x + density * clouds) * peak / (peak + density)``, peak being the image's maximum.

    The clouds are a plasma fractal in [0, 1], the same in all channels; the smaller its decay, the rougher they are. A
    black image stays black, as in the scripts.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own ``(density, decay)`` for severity 1..5 instead of a published column, both above 0.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> Fog()
        Fog(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[Level, Level, Level, Level, Level] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not isinstance(level, tuple) or len(level) != 2 or not min(level) > 0:
                raise ArgumentError(f"Fog: each of `levels` must be (density, decay), both above 0, got {level!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        density, decay = table.value(severity, images=images, column=self.column)
        height, width = images.shape[-2:]
        clouds = plasma_fractal(randomness, size=(height, width), decay=decay).mul(density).to(images.dtype)
        peak = images.amax(dim=(1, 2, 3), keepdim=True)
        return (images + clouds[:, None]).mul_(peak / (peak + density)).clamp_(0, 1)


EXAMPLES = (Fog(), Fog(column="cifar"))
