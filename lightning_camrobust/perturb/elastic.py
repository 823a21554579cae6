"""Elastic transform."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from lightning_camrobust.imaging.filtering import fold_into, gaussian_filter, sampling_grid
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

_Level = tuple[float, float, float]
_Levels = tuple[_Level, _Level, _Level, _Level, _Level]


def _pixels(size: int, shares: _Levels) -> _Levels:
    first, second, third, fourth, fifth = ((size * a, size * b, size * c) for a, b, c in shares)
    return first, second, third, fourth, fifth


# The scripts give shares of an image's size. For ImageNet-C that is 244, written for 224, and published so.
_TABLE: SeverityTable[_Level] = SeverityTable(
    imagenet=_pixels(244, ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))),
    cifar=_pixels(32, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))),
)


@dataclass(frozen=True)
class Elastic:
    """Shear and shift the image by a random affine map, then stir it by a smooth random displacement.

    A level is (strength of the displacement, standard deviation of the Gaussian that smooths it, largest jitter of
    each of the three points that define the affine map), in pixels. The published severities move pixels less and
    less far as they rise, while the displacement gets finer: severity 2 of ImageNet-C changes pixels most.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own values for severity 1..5 instead of a published column.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts (``elastic_transform``). OpenCV rounds
        positions under the affine map to 1/32 pixel, which is not followed.

    Example:
        >>> Elastic()
        Elastic(column='auto', levels=None)
    """

    geometric: ClassVar[bool] = True
    column: Column = "auto"
    levels: _Levels | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        corners, (rows, columns) = self._draw(images, severity, randomness)
        # Interpolated twice, as published.
        sheared = _sample(images, *_sheared(images, corners, *_own_places(images)))
        return _sample(sheared, rows, columns).clamp_(0, 1)

    def flow(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return where the pixels come from, ``(b, H, W, 2)`` float32, as a grid for ``grid_sample``."""
        corners, (rows, columns) = self._draw(images, severity, randomness)
        return sampling_grid(*_sheared(images, corners, rows, columns))

    def _draw(self, images: Tensor, severity: int, randomness: Randomness) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Draw the jitter of the three points, ``(b, 3, 2)`` as (x, y), and the places that are stirred up."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        strength, sigma, jitter = table.value(severity, images=images, column=self.column)
        corners = randomness.uniform((3, 2)).mul_(2).sub_(1).mul_(jitter)
        noise = randomness.uniform((2, *images.shape[2:])).mul_(2).sub_(1)
        right, down = gaussian_filter(noise, sigma=sigma, truncate=3.0, border="reflect").mul_(strength).unbind(dim=1)
        rows, columns = _own_places(images)
        height, width = images.shape[2:]
        return corners, (fold_into(rows + down, height, "reflect"), fold_into(columns + right, width, "reflect"))


def _own_places(images: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.arange(size, device=images.device, dtype=torch.float32) for size in images.shape[2:])
    return rows[None, :, None], columns[None, None, :]


def _sheared(images: Tensor, jitter: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Map places in the sheared image to places in the image itself, each ``(b, H, W)``.

    Three corners of a square around the centre are moved by the jitter: lower right, upper right, upper left. A place
    is written as the upper left corner plus shares of the two moved sides, and the same shares of the sides as they
    were lead to where it comes from.
    """
    height, width = images.shape[2:]
    half = max(1, min(height, width) // 3)
    left, top = width // 2 - half, height // 2 - half
    lower_right, upper_right, upper_left = jitter[..., None, None].unbind(dim=1)
    (first_x, first_y) = (lower_right - upper_left).add_(2 * half).unbind(dim=1)
    second_x, second_y = (upper_right - upper_left).unbind(dim=1)
    second_x = second_x + 2 * half
    x, y = columns - left - upper_left[:, 0], rows - top - upper_left[:, 1]
    area = first_x * second_y - first_y * second_x
    # Corners on one line have no inverse; all places then come from the upper left corner.
    scale = torch.where(area == 0, 0, 2 * half / area)
    first, second = (x * second_y - y * second_x) * scale, (first_x * y - first_y * x) * scale
    return fold_into(top + first, height, "mirror"), fold_into(left + first + second, width, "mirror")


def _sample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    grid = sampling_grid(rows, columns).to(images.dtype)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


EXAMPLES = (Elastic(), Elastic(column="cifar"))
