"""One map from the maps of several target layers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError

LayerFusion = Literal["mean", "max"]


def fuse_layers(maps: Sequence[Tensor], *, how: LayerFusion = "mean") -> Tensor:
    """Fuse the maps of several target layers, each scaled to [0, 1] and enlarged to the size of the largest.

    Args:
        maps: One ``(b, h, w)`` a layer, of any sizes; volumes ``(b, d, h, w)`` as well.
        how: ``"mean"`` or ``"max"``, cell by cell.

    Returns:
        ``(b, h, w)`` in [0, 1]; the maps of a single layer as they are. A flat map counts as 0, NaN stays.

    Raises:
        ArgumentError: If there is no map, or ``how`` is another word.

    Source:
        pytorch-grad-cam, which scales, enlarges to the image's size, and takes the mean.

    Example:
        >>> fuse_layers([torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[3.0, 0.0]]])], how="max")
        tensor([[[1., 1.]]])
    """
    check_layer_fusion(how)
    if not maps:
        raise ArgumentError("`maps` must hold the maps of one layer at least, got none.")
    if len(maps) == 1:
        return maps[0]
    size = max((each.shape[1:] for each in maps), key=lambda shape: shape.numel())
    enlarged = torch.stack([_enlarge(_scale(each), size) for each in maps])
    return enlarged.mean(dim=0) if how == "mean" else enlarged.amax(dim=0)


def check_layer_fusion(how: LayerFusion) -> LayerFusion:
    """Return the rule, or refuse it.

    Example:
        >>> check_layer_fusion("mean")
        'mean'
    """
    if how not in ("mean", "max"):
        raise ArgumentError(f"`layer_fusion` must be 'mean' or 'max', got {how!r}.")
    return how


def _scale(maps: Tensor) -> Tensor:
    cells = maps.flatten(1)
    low, high = (each.reshape(-1, *[1] * (maps.dim() - 1)) for each in cells.aminmax(dim=1))
    span = high - low
    return (maps - low) / torch.where(span == 0, torch.ones_like(span), span)


def _enlarge(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[1:] == size:
        return maps
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]
