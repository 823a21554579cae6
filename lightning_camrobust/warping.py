"""Move maps along with what a geometric disturbance did to the picture."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample


def warp_maps(maps: Tensor, flow: Tensor) -> Tensor:
    """Warp the maps of clean images into the frame of the disturbed ones, so that a map that follows the object fits.

    Args:
        maps: ``(b, h, w)`` float, of the clean images.
        flow: ``(b, H, W, 2)``, from a geometric perturbation: for each pixel of the disturbed image, where in the clean
            one it comes from, ``(x, y)`` in [-1, 1] as :func:`torch.nn.functional.grid_sample` takes it.

    Returns:
        ``(b, h, w)``; what comes from beyond the border takes the border's value.

    Example:
        >>> maps = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
        >>> x = torch.tensor([-0.25, 0.25, 0.75, 1.25])  # each pixel comes from one further right
        >>> flow = torch.stack([x, torch.zeros(4)], dim=1)[None, None]
        >>> warp_maps(maps, flow)
        tensor([[[2., 3., 4., 4.]]])
    """
    size = (int(maps.shape[1]), int(maps.shape[2]))
    # Where pixels go is pooled, and not where they are: windows of pixels need not lie around the middles of cells.
    shift = (flow - _places(flow.shape[1], flow.shape[2], like=flow)).to(maps.dtype).permute(0, 3, 1, 2)
    grid = adaptive_avg_pool2d(shift, size).permute(0, 2, 3, 1) + _places(*size, like=maps)
    return grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]


def _places(height: int, width: int, *, like: Tensor) -> Tensor:
    """Middles of all cells, ``(h, w, 2)``, as ``(x, y)`` in [-1, 1]."""
    y, x = ((2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1 for size in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
