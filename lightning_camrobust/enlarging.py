"""Look at small images through a magnifier: enlarge them, cut them into segments, and bring the labels back to size."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def enlarge_images(images: Tensor, *, min_side: int) -> Tensor:
    """Enlarge images, bilinearly, until their shorter side has a number of pixels; larger ones stay as they are.

    Args:
        images: ``(b, c, H, W)`` float.
        min_side: Length of the shorter side, in pixels.

    Returns:
        ``(b, c, H', W')``, at least float32, on the same device.

    Example:
        >>> enlarge_images(torch.rand(2, 3, 32, 48), min_side=64).shape
        torch.Size([2, 3, 64, 96])
    """
    # Not every device interpolates in half precision.
    wide = images if images.dtype == torch.float64 else images.float()
    scale = min_side / min(images.shape[2:])
    if scale <= 1:
        return wide
    size = [round(side * scale) for side in images.shape[2:]]
    return interpolate(wide, size=size, mode="bilinear", align_corners=False)


def resize_labels(labels: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Bring labels to another size; each pixel takes the label nearest to its centre.

    Args:
        labels: ``(b, H', W')`` int64.
        size: ``(H, W)`` to return.

    Returns:
        ``(b, H, W)`` int64. Segments narrower than a pixel may be lost, and their numbers with them.

    Example:
        >>> resize_labels(torch.tensor([[[0, 0, 1, 1]] * 4]), size=(1, 2))
        tensor([[[0, 1]]])
    """
    if labels.shape[1:] == size:
        return labels
    # Interpolation knows no integers.
    return interpolate(labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
