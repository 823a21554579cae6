"""Spatter of water or mud."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.drops import drop_relief
from lightning_camrobust.imaging.filtering import gaussian_filter
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

Level = tuple[float, float, float, float, float, int]
_TABLE: SeverityTable[Level] = SeverityTable(
    imagenet=(
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    cifar=(
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
)
# Pale turquoise and brown, and what a grey picture sees of them.
_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Spatter:
    """Splash drops of water or patches of mud onto the image.

    A liquid is where normal noise ``N(mean, spread)``, blurred by ``sigma`` pixels, exceeds ``threshold``.

    - Water brightens by turquoise times a relief of the drops, whose strongest point counts ``amount``. The relief
      comes from the distance to the drops' outlines; see :func:`~lightning_camrobust.imaging.drops.drop_relief`.
    - Mud covers with brown what is left above 0.8 of the liquid's mask, blurred by ``amount`` pixels.

    Severities 1 to 3 are water, 4 and 5 mud, so that they are no ladder across. Images that do not have three channels
    get the grey of the colour. Where the noise makes no drop at all, which happens on tiny images, nothing changes.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own ``(mean, spread, sigma, threshold, amount, mud)`` for severity 1..5 instead of a published column;
            sigma and amount are 0 or more, mud is 1 or 0 for water.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> Spatter()
        Spatter(column='auto', levels=None)
    """

    column: Column = "auto"
    levels: tuple[Level, Level, Level, Level, Level] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not isinstance(level, tuple) or len(level) != 6 or min(level[2], level[4]) < 0:
                raise ArgumentError(
                    "Spatter: each of `levels` must be (mean, spread, sigma, threshold, amount, mud) with a sigma "
                    f"and an amount of 0 or more, got {level!r}."
                )

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        mean, spread, sigma, threshold, amount, mud = table.value(severity, images=images, column=self.column)
        noise = randomness.normal((1, *images.shape[-2:])).mul_(spread).add_(mean)
        liquid = gaussian_filter(noise, sigma=sigma)
        if mud:
            cover = gaussian_filter((liquid > threshold).float(), sigma=amount)
            cover = torch.where(cover < 0.8, 0.0, cover).to(images.dtype)
            return (images * (1 - cover)).add_(cover * _paint(_MUD, images)).clamp_(0, 1)
        liquid = torch.where(liquid < threshold, 0.0, liquid)
        relief = drop_relief(liquid[:, 0]).mul_(amount).to(images.dtype)[:, None]
        return (images + relief * _paint(_WATER, images)).clamp_(0, 1)


def _paint(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    if images.shape[1] == 3:
        return torch.stack([images.new_full((1, 1), part) for part in colour])[None]
    return images.new_full((1, 1, 1, 1), sum(share * part for share, part in zip(_LUMA, colour, strict=True)))


EXAMPLES = (Spatter(), Spatter(column="cifar"))
