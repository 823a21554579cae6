"""Motion blur."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.imaging.filtering import motion_filter, motion_path, sampling_grid
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_Level = tuple[float, float]
_TABLE: SeverityTable[_Level] = SeverityTable(
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
)


@dataclass(frozen=True)
class MotionBlur:
    """Smear the image to one side along a random direction within 45 degrees of the horizontal.

    A level is (radius, standard deviation) of the one-sided Gaussian in pixels, as ImageMagick takes them. Since the
    Gaussian is one-sided, the object moves against the direction as well as getting blurred.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts, which call ImageMagick's motion blur;
        its steps are followed here in floating point.

    Example:
        >>> MotionBlur()
        MotionBlur(column='auto', levels=None)
    """

    geometric: ClassVar[bool] = True
    column: Column = "auto"
    levels: tuple[_Level, _Level, _Level, _Level, _Level] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        radius, sigma = self._level(images, severity)
        return motion_filter(images, radius=radius, sigma=sigma, angles=_angles(randomness)).clamp_(0, 1)

    def flow(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return where the pixels come from on average, ``(b, H, W, 2)`` float32, as a grid for ``grid_sample``."""
        radius, sigma = self._level(images, severity)
        count, _, height, width = images.shape
        rows = torch.zeros(count, height, device=images.device, dtype=torch.float32)
        columns = torch.zeros(count, width, device=images.device, dtype=torch.float32)
        for weight, at_rows, at_columns in motion_path(images, radius=radius, sigma=sigma, angles=_angles(randomness)):
            rows.add_(at_rows, alpha=weight)
            columns.add_(at_columns, alpha=weight)
        shape = (count, height, width)
        return sampling_grid(rows[:, :, None].expand(shape), columns[:, None, :].expand(shape))

    def _level(self, images: Tensor, severity: int) -> _Level:
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        return table.value(severity, images=images, column=self.column)


def _angles(randomness: Randomness) -> Tensor:
    return randomness.uniform((1,)).mul_(90).sub_(45).flatten()


EXAMPLES = (MotionBlur(), MotionBlur(column="cifar"))
