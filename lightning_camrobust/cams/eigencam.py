"""Eigen-CAM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class EigenCAM:
    """First principal component of the activations over the cells; no class and no gradient enter.

    The sign of a principal component is arbitrary, and a flipped map would count as instability. Here it is fixed:
    the map correlates positively with the mean activation over channels.

    Source:
        Muhammad and Yeasin 2020 (arXiv 2008.00299), equation 3; channels centred over the cells, as in
        pytorch-grad-cam.

    Example:
        >>> EigenCAM()
        EigenCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        b, _, *size = trace.activation.shape
        cells = trace.activation.double().flatten(2).transpose(1, 2)  # (b, h*w, c)
        cells = cells - cells.mean(dim=1, keepdim=True)
        projection = _first_component(cells)
        brightness = cells.mean(dim=2)
        sign = torch.where((projection * brightness).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        return (projection * sign).reshape(b, *size).relu().to(trace.activation.dtype)


def _first_component(cells: Tensor) -> Tensor:
    """Project centred cells ``(b, n, c)`` on their first principal axis, ``(b, n)``."""
    finite = cells.isfinite().all(dim=2).all(dim=1)
    # `eigh` refuses NaN for the whole batch; one image's NaN must stay its own.
    safe = torch.where(finite[:, None, None], cells, torch.zeros_like(cells))
    _, n, c = safe.shape
    if n <= c:
        values, vectors = torch.linalg.eigh(safe @ safe.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(safe.transpose(1, 2) @ safe)
        projection = (safe @ vectors[..., -1:])[..., 0]
    return torch.where(finite[:, None], projection, torch.full_like(projection, torch.nan))


EXAMPLES = (EigenCAM(),)
