"""In which order a map takes pixels out of its image, and how many at each step."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.pooling import snap_ties


def removal_ranks(maps: Tensor, *, size: tuple[int, int], descending: bool) -> Tensor:
    """Number the pixels of each image in the order in which they go.

    Small maps are upsampled bilinearly (``align_corners=False``). Values are rounded to whole millionths of the
    map's largest; equal ones are ties, and ties go row by row from the top left in either direction.

    Args:
        maps: Importance ``(b, h, w)``, any scale.
        size: ``(H, W)`` of the images.
        descending: Whether the most important pixel goes first.

    Returns:
        Position of each pixel in the order, ``(b, H*W)`` int64, 0 for the first to go.

    Example:
        >>> removal_ranks(torch.tensor([[[0.5, 1.0, 0.5]]]), size=(1, 3), descending=False)
        tensor([[0, 2, 1]])
    """
    large = interpolate(maps.double()[:, None], size=size, mode="bilinear", align_corners=False)
    values = snap_ties(large.flatten(1), maps)
    order = torch.argsort(values, dim=1, descending=descending, stable=True)
    return torch.argsort(order, dim=1)


def removal_counts(area: int, steps: int) -> Tensor:
    """Count the pixels that are gone at each step.

    Args:
        area: Pixels in the image.
        steps: Steps from the first pixel to the last.

    Returns:
        ``k * area // steps`` for k = 0..steps, ``(steps + 1,)`` int64.

    Example:
        >>> removal_counts(10, 3)
        tensor([ 0,  3,  6, 10])
    """
    return torch.arange(steps + 1) * area // steps
