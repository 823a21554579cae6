"""Occlusion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Baseline, Randomness

# Our own steps: no benchmark publishes any. The share does not depend on the size of the image, so columns are alike.
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
_TABLE = SeverityTable(imagenet=_SHARES, cifar=_SHARES)


@dataclass(frozen=True)
class Occlusion:
    """Hide a share of the picture, at a random place of each image, behind a baseline.

    Severity 1..5 hides 5, 10, 20, 30, 40% of the area. One rectangle with the proportions of the picture, its sides
    rounded to whole pixels, or as many cells of a grid as come closest to the share, at least one. Objects stay where
    they are, so the disturbance is photometric; but it may hide the object itself.

    Attributes:
        baseline: What to put there: the name of a baseline, or an instance.
        grid: None for one rectangle; a number n to hide cells of an n x n grid instead.
        levels: Own shares of the area for severity 1..5; above 1 everything is hidden.

    Source:
        Zeiler and Fergus 2014 (grey rectangle); the choice of baseline matters, see Brunke, Agrawal and George 2020
        (arXiv 2101.10977).

    Example:
        >>> Occlusion(baseline="blur")
        Occlusion(baseline='blur', grid=None, levels=None)
    """

    # Not the protocol: configuration files would take it for something to be called.
    baseline: str | Callable[..., Any] = "grey"
    grid: int | None = None
    levels: tuple[float, float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.grid is not None and (not isinstance(self.grid, int) or self.grid < 1):
            raise ArgumentError(f"Occlusion: `grid` must be a whole number from 1, or None, got {self.grid!r}.")
        if self.levels is not None and not all(level > 0 for level in self.levels):
            raise ArgumentError(f"Occlusion: `levels` must be above 0 (shares of the area), got {self.levels!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        baseline: Baseline = resolve_member("baseline", self.baseline)
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        share = table.value(severity, images=images)
        height, width = int(images.shape[2]), int(images.shape[3])
        if self.grid is None:
            down, right = randomness.uniform((2, 1)).unbind(dim=1)
            rows, columns = _interval(down, height, share**0.5), _interval(right, width, share**0.5)
            hidden = rows[:, :, None] & columns[:, None, :]
        else:
            hidden = _cells(randomness, self.grid, share, size=(height, width), device=images.device)
        removed = hidden[:, None]  # (b, 1, H, W)
        fill = baseline(images, removed=removed, randomness=randomness)
        return torch.where(removed, fill.to(images.dtype).clamp(0, 1), images)


def _interval(place: Tensor, size: int, share: float) -> Tensor:
    """Mark a stretch of ``share * size`` pixels, ``(b, size)`` bool; ``place`` ``(b, 1)`` in (0, 1) tells where."""
    length = max(1, round(size * share))
    start = (place * (size - length + 1)).floor().clamp_(max=size - length)
    position = torch.arange(size, device=place.device)
    return (position >= start) & (position < start + length)


def _cells(randomness: Randomness, grid: int, share: float, *, size: tuple[int, int], device: torch.device) -> Tensor:
    """Mark random cells of a grid, ``(b, H, W)`` bool."""
    keys = randomness.uniform((grid * grid,))
    rank = torch.argsort(torch.argsort(keys, dim=1, stable=True), dim=1)
    cells = (rank < max(1, round(share * grid * grid))).view(-1, grid, grid)
    down, right = (torch.arange(side, device=device) * grid // side for side in size)
    return cells[:, down[:, None], right]


EXAMPLES = (Occlusion(), Occlusion(baseline="black", grid=7))
