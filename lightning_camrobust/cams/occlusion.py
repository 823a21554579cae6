"""Occlusion sensitivity."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.masking import Score, check_score, class_scores, explained_scores, hidden_inputs
from lightning_camrobust.types import Baseline, Trace


@dataclass(frozen=True)
class OcclusionSensitivity:
    """How far the score of the class falls while a window over the pixel hides a part of the image.

    A rectangular window slides over the image; the last one in a row or column ends at the edge. A pixel gets the mean
    drop over the windows that hide it. Pixels are averaged over the area of the target layer's cells, and a ReLU
    leaves only what speaks for the class. The target layer has no other say, and no gradient enters.

    The network runs once for each window and image: 49 times with the defaults if the image's sides are multiples of 8.

    Attributes:
        window: Sides of the window, as a share of the image's sides.
        stride: Steps of the window, as a share of the image's sides; not above ``window``, so that every pixel is
            hidden at some time.
        baseline: What is shown instead of the hidden pixels: ``"zero"``, that is 0 in the model's input units, which is
            the mean colour where inputs are normalised; or a baseline by name or ready-made. The paper takes grey.
        score: The ``"probability"`` of the explained class as in the paper, or its ``"logit"``.
        seed: Of a baseline that draws random numbers.
        chunk_size: Inputs in one forward pass; one window for all images if the batch is larger.

    Raises:
        ArgumentError: If a setting is impossible.

    Source:
        Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.2; they show the score itself by the window's position.

    Example:
        >>> OcclusionSensitivity(baseline="grey").window
        0.25
    """

    window: float = 0.25
    stride: float = 0.125
    baseline: str | Baseline = "zero"
    score: Score = "probability"
    seed: int = 0
    chunk_size: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.window < 1:
            raise ArgumentError(
                "OcclusionSensitivity: `window` and `stride` must be shares of the image's sides, "
                f"0 < stride <= window < 1, got window={self.window!r}, stride={self.stride!r}."
            )
        if self.chunk_size < 1:
            raise ArgumentError(f"OcclusionSensitivity: `chunk_size` must be 1 or more, got {self.chunk_size!r}.")
        check_score(self.score, member="OcclusionSensitivity")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above.

        Raises:
            ArgumentError: If volumes are explained.
        """
        if trace.images.dim() != 4:
            raise ArgumentError("CAM method 'occlusion' explains pictures only, not volumes. Use 'gradcam'.")
        rows, columns = (self._intervals(size, trace.images.device) for size in trace.images.shape[2:])
        coverage = rows.sum(dim=0)[:, None] * columns.sum(dim=0).double()
        before = explained_scores(trace.logits, trace.classes, score=self.score)
        per_run = max(1, self.chunk_size // max(1, len(trace.images)))
        maps = torch.zeros_like(trace.activation[:, 0], dtype=torch.float64)
        # Some windows at a time: all of a small stride would be large.
        for some in torch.split(torch.arange(len(rows) * len(columns), device=rows.device), per_run):
            places = rows[some // len(columns)][:, :, None] & columns[some % len(columns)][:, None, :]
            windows = places[:, None]  # (n, 1, H, W)
            drops = before - self._scores(trace, windows)  # (n, b)
            cells = interpolate(windows / coverage, trace.activation.shape[2:], mode="area")[:, 0]
            maps += torch.einsum("nb,nhw->bhw", drops, cells)
        return maps.relu().to(trace.activation.dtype)

    def _scores(self, trace: Trace, windows: Tensor) -> Tensor:
        every = windows[:, None].expand(-1, len(trace.images), -1, -1, -1)  # (n, b, 1, H, W)
        hidden = [hidden_inputs(trace, self.baseline, removed=removed, seed=self.seed) for removed in every]
        return class_scores(trace, torch.where(every, torch.stack(hidden), trace.images), score=self.score)

    def _intervals(self, size: int, device: torch.device) -> Tensor:
        """List the window's places along a side, ``(n, size)`` bool."""
        window, stride = (max(1, round(share * size)) for share in (self.window, self.stride))
        last = size - window
        starts = torch.tensor(sorted({*range(0, last + 1, stride), last}), device=device)[:, None]
        pixels = torch.arange(size, device=device)
        return (pixels >= starts) & (pixels < starts + window)


EXAMPLES = (OcclusionSensitivity(), OcclusionSensitivity(window=0.5, stride=0.25, baseline="grey", score="logit"))
