"""Frost."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.ferns import frost_picture
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

Level = tuple[float, float]
_TABLE: SeverityTable[Level] = SeverityTable(
    imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Frost:
    """Look through a frosted window: ``keep * x + ice * frost``.

    The scripts cut ``frost`` out of five photographs, which cannot be shipped. Here every image gets a picture of its
    own, drawn from its random numbers: feathers of ice that grow from the border over a milky glaze; see
    :func:`~lightning_camrobust.imaging.ferns.frost_picture`. Numbers obtained with it cannot be compared with
    published ones on frost. Images that do not have three channels get the grey of the picture.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own ``(keep, ice)`` for severity 1..5 instead of a published column, both 0 or more.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts, for the formula and its values.

    Example:
        >>> Frost()
        Frost(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[Level, Level, Level, Level, Level] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not isinstance(level, tuple) or len(level) != 2 or min(level) < 0:
                raise ArgumentError(f"Frost: each of `levels` must be (keep, ice), both 0 or more, got {level!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        keep, ice = table.value(severity, images=images, column=self.column)
        height, width = images.shape[-2:]
        frost = frost_picture(randomness, size=(height, width)).to(images.dtype)
        if images.shape[1] != 3:
            red, green, blue = (frost[:, index : index + 1] * share for index, share in enumerate(_LUMA))
            frost = red + green + blue
        return (images * keep).add_(frost.mul(ice)).clamp_(0, 1)


EXAMPLES = (Frost(), Frost(column="cifar"))
