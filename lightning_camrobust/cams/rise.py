"""RISE."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.masking import Score, check_score, class_scores, hidden_inputs
from lightning_camrobust.types import Baseline, Trace

_COVERAGES = ("measured", "expected")


@dataclass(frozen=True)
class RISE:
    """Random masks, averaged with the score that the masked image gets as weight.

    ``S = 1 / C * sum_i f(x M_i + b (1 - M_i)) M_i``. A mask ``M_i`` is a coarse grid of zeros and ones, enlarged
    bilinearly and shifted by chance. ``S`` is averaged over the area of the target layer's cells, and its smallest
    value is taken away, since every mask adds something everywhere: only differences mean anything, and a logit may be
    negative. The target layer has no other say, and no gradient enters.

    The network runs ``masks`` times for each image. The paper takes 4000 to 8000; the default is what a callback can
    bear, with Monte-Carlo noise to match. All images get the same masks, so that an image and its disturbed copy do not
    differ by the luck of the draw; compare seeds to see how much of a map is luck.

    The paper divides by the expected coverage ``C = N p``. A cell that was shown more often by chance then looks more
    important, alike in all images, which would be booked as stability. On a small network of digits, maps of one image
    with two seeds of 500 masks correlate by 0.44 that way, and by 0.93 when divided by the measured coverage.

    Attributes:
        masks: Number of masks N.
        cells: Rows and columns of the grid.
        keep: Probability p of a grid cell to be shown.
        baseline: What is shown instead of the hidden pixels: ``"zero"``, that is 0 in the model's input units as in the
            paper, or a baseline by name or ready-made, asked once for all pixels of the image.
        score: The ``"probability"`` of the explained class as in the paper, or its ``"logit"``.
        coverage: What the sum is divided by: how often each cell was shown, ``"measured"``; or the same for all cells,
            ``"expected"``, as in the paper.
        seed: Another number gives other masks.
        chunk_size: Inputs in one forward pass; one mask for all images if the batch is larger.

    Raises:
        ArgumentError: If a setting is impossible.

    Source:
        Petsiuk, Das and Saenko 2018 (arXiv 1806.07421), equations 5 and 6 and section 3.2.

    Example:
        >>> RISE(masks=100).masks
        100
    """

    masks: int = 500
    cells: int = 7
    keep: float = 0.5
    baseline: str | Baseline = "zero"
    score: Score = "probability"
    coverage: Literal["measured", "expected"] = "measured"
    seed: int = 0
    chunk_size: int = 128

    def __post_init__(self) -> None:
        for name in ("masks", "cells", "chunk_size"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"RISE: `{name}` must be 1 or more, got {getattr(self, name)!r}.")
        if not 0 < self.keep < 1:
            raise ArgumentError(f"RISE: `keep` must lie between 0 and 1 (probability), got {self.keep!r}.")
        if self.coverage not in _COVERAGES:
            raise ArgumentError(f"RISE: `coverage` must be one of {_COVERAGES}, got {self.coverage!r}.")
        check_score(self.score, member="RISE")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above, 0 in the least important cell.

        Raises:
            ArgumentError: If volumes are explained.
        """
        images = trace.images
        if images.dim() != 4:
            raise ArgumentError("CAM method 'rise' explains pictures only, not volumes. Use 'gradcam'.")
        removed = torch.ones_like(images[:, :1], dtype=torch.bool)
        hidden = hidden_inputs(trace, self.baseline, removed=removed, seed=self.seed)
        size = trace.activation.shape[2:]
        total = torch.zeros(len(images), *size, dtype=torch.float64, device=images.device)
        shown = torch.zeros(size, dtype=torch.float64, device=images.device)
        for masks in self._mask_chunks(images):
            seen = masks[:, None].to(images.dtype)  # (n, 1, 1, H, W)
            scores = class_scores(trace, images * seen + hidden * (1 - seen), score=self.score)
            cells = interpolate(masks.double(), size, mode="area")[:, 0]
            total += torch.einsum("nb,nhw->bhw", scores, cells)
            shown += cells.sum(dim=0)
        # With few masks a cell may never have been shown; then its sum is 0 as well.
        maps = total / (self.masks * self.keep if self.coverage == "expected" else shown.clamp_min(1e-12))
        return (maps - maps.amin(dim=(1, 2), keepdim=True)).to(trace.activation.dtype)

    def _mask_chunks(self, images: Tensor) -> Iterator[Tensor]:
        """Give the masks ``(n, 1, H, W)`` float32 in [0, 1] in chunks; all of them would be large."""
        grids, shifts = _draw(self.masks, self.cells, self.keep, self.seed)
        per_run = max(1, self.chunk_size // max(1, len(images)))
        size = (images.shape[2], images.shape[3])
        for grid, shift in zip(torch.split(grids, per_run), torch.split(shifts, per_run), strict=True):
            yield _enlarge(grid.to(images.device), shift.to(images.device), size)


def _enlarge(grids: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge grids ``(n, s, s)`` to a bit more than the size, and cut it out where the shifts ``(n, 2)`` say."""
    count = grids.shape[-1]
    cell = [-(-each // count) for each in size]
    wide = interpolate(
        grids[:, None], (cell[0] * (count + 1), cell[1] * (count + 1)), mode="bilinear", align_corners=False
    )[:, 0]
    rows, columns = (
        (shifts[:, axis, None] * cell[axis]).long() + torch.arange(size[axis], device=grids.device) for axis in (0, 1)
    )
    one_each = torch.arange(len(grids), device=grids.device)[:, None, None]
    return wide[one_each, rows[:, :, None], columns[:, None, :]][:, None]


@lru_cache(maxsize=8)
def _draw(masks: int, cells: int, keep: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw grids ``(n, s, s)`` of zeros and ones, and shifts ``(n, 2)`` in [0, 1) of a cell's size."""
    # Kept longer than the inference mode it may be called in.
    with torch.inference_mode(False):
        generator = torch.Generator("cpu").manual_seed(seed)
        grids = (torch.rand(masks, cells, cells, generator=generator, device="cpu", dtype=torch.float32) < keep).float()
        return grids, torch.rand(masks, 2, generator=generator, device="cpu", dtype=torch.float32)


EXAMPLES = (RISE(), RISE(masks=60, cells=4, baseline="grey", score="logit", coverage="expected"))
