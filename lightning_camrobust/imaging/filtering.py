"""Filters that blur pixels, with the borders and the cut-offs of scipy, OpenCV and ImageMagick.

Every filter is a sum of shifted copies of the images wherever that is affordable: then it gives the same bits for an
image in whatever batch it stands, and neither autocast nor a reduced matrix precision can touch it.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

Border = Literal["nearest", "reflect", "mirror"]


def fold_into(positions: Tensor, length: int, border: Border) -> Tensor:
    """Bring positions beyond the border back into the image, however far away they are.

    Args:
        positions: Whole or fractional pixel positions along one axis, any shape.
        length: Number of pixels along that axis.
        border: ``"nearest"`` repeats the last pixel (``a a|a b c|c c``), ``"reflect"`` mirrors at the edge of the
            image (``b a|a b c|c b``), ``"mirror"`` at the centre of the last pixel (``c b|a b c|b a``). The names are
            those of ``scipy.ndimage``.

    Returns:
        Positions in [0, length - 1], same shape and dtype; between pixels they are meant for linear interpolation.

    Raises:
        ArgumentError: If ``border`` is unknown.

    Example:
        >>> fold_into(torch.arange(-4, 5), 3, "mirror").tolist()
        [0, 1, 2, 1, 0, 1, 2, 1, 0]
    """
    if border == "reflect":
        wrapped = positions.remainder(2 * length)
        positions = torch.minimum(wrapped, 2 * length - 1 - wrapped)
    elif border == "mirror":
        period = max(1, 2 * length - 2)
        wrapped = positions.remainder(period)
        positions = torch.minimum(wrapped, period - wrapped)
    elif border != "nearest":
        raise ArgumentError(f"`border` must be 'nearest', 'reflect' or 'mirror', got {border!r}.")
    return positions.clamp(0, length - 1)


def pad_with_border(images: Tensor, margin: int, border: Border, *, dim: int) -> Tensor:
    """Continue images beyond both ends of one axis; unlike torch's padding, by more than the image's size if need be.

    Args:
        images: Any shape.
        margin: Pixels to add at each end.
        border: As in :func:`fold_into`.
        dim: The axis.

    Returns:
        The images, longer by twice the margin along ``dim``.

    Example:
        >>> pad_with_border(torch.tensor([1, 2]), 3, "reflect", dim=0).tolist()
        [2, 2, 1, 1, 2, 2, 1, 1]
    """
    length = images.shape[dim]
    positions = torch.arange(-margin, length + margin, device=images.device)
    return images.index_select(dim, fold_into(positions, length, border))


def gaussian_filter(images: Tensor, *, sigma: float, truncate: float = 4.0, border: Border = "nearest") -> Tensor:
    """Blur rows and columns by a Gaussian that is cut off, as ``scipy.ndimage.gaussian_filter`` does.

    Args:
        images: ``(b, c, H, W)`` float.
        sigma: Standard deviation in pixels; 0 changes nothing.
        truncate: Where to cut the Gaussian off, in standard deviations.
        border: As in :func:`fold_into`. Note that the default of scikit-image's ``gaussian`` is ``"nearest"``.

    Returns:
        Blurred copies, same shape and dtype.

    Raises:
        ArgumentError: If ``sigma`` or ``truncate`` is negative or not finite.

    Example:
        >>> impulse = torch.zeros(1, 1, 3, 3)
        >>> impulse[0, 0, 1, 1] = 1
        >>> gaussian_filter(impulse, sigma=0.5, truncate=2.0)[0, 0, 1]
        tensor([0.0838, 0.6193, 0.0838])
    """
    for name, value in (("sigma", sigma), ("truncate", truncate)):
        if not 0 <= value < math.inf:
            raise ArgumentError(f"`{name}` must be a finite number of 0 or more, got {value!r}.")
    weights = _gaussian_weights(float(sigma), float(truncate))
    if len(weights) == 1:
        return images.clone()
    for dim in (2, 3):
        if len(weights) > images.shape[dim]:
            images = _filter_folded(images, weights, border, dim=dim)
        else:
            images = _filter_axis(images, weights, border, dim=dim)
    return images


def motion_filter(images: Tensor, *, radius: float, sigma: float, angles: Tensor) -> Tensor:
    """Smear each image along its own direction, as ImageMagick's ``motion-blur`` does.

    A one-sided Gaussian weighs ``2 * ceil(radius) + 1`` pixels that start at the pixel itself and go off in one
    direction; each is the pixel nearest to the line, and beyond the border the last pixel repeats.

    Args:
        images: ``(b, c, H, W)`` float.
        radius: Sets the number of pixels, above 0.
        sigma: Standard deviation in pixels, above 0.
        angles: Direction for each image, ``(b,)`` float, in degrees, from rightwards (0) to downwards (90).

    Returns:
        Smeared copies, same shape and dtype.

    Raises:
        ArgumentError: If ``radius`` or ``sigma`` is not above 0.

    Example:
        >>> dot = torch.zeros(1, 1, 1, 5)
        >>> dot[..., 3] = 1
        >>> motion_filter(dot, radius=1, sigma=1.0, angles=torch.zeros(1))
        tensor([[[[0.0000, 0.0777, 0.3482, 0.5741, 0.0000]]]])
    """
    count, channels, height, width = images.shape
    # One row a pixel, so that a position is looked up once for all channels.
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()
    starts = torch.arange(0, count * height * width, height * width, device=images.device).view(-1, 1, 1)
    smeared = torch.zeros_like(pixels)
    for weight, rows, columns in motion_path(images, radius=radius, sigma=sigma, angles=angles):
        lookup = (starts + rows[:, :, None] * width) + columns[:, None, :]
        smeared.add_(pixels.index_select(0, lookup.flatten()), alpha=weight)
    return smeared.view(count, height, width, channels).permute(0, 3, 1, 2).contiguous()


def motion_path(images: Tensor, *, radius: float, sigma: float, angles: Tensor) -> list[tuple[float, Tensor, Tensor]]:
    """List where :func:`motion_filter` looks, step by step.

    Args:
        images: ``(b, c, H, W)``; only their size counts.
        radius: As there.
        sigma: As there.
        angles: As there.

    Returns:
        For each step its weight, and the rows ``(b, H)`` and columns ``(b, W)`` that are looked up, int64.

    Raises:
        ArgumentError: If ``radius`` or ``sigma`` is not above 0.

    Example:
        >>> path = motion_path(torch.zeros(1, 1, 1, 4), radius=1, sigma=1.0, angles=torch.zeros(1))
        >>> [columns.tolist() for _, _, columns in path]
        [[[0, 1, 2, 3]], [[1, 2, 3, 3]], [[2, 3, 3, 3]]]
    """
    for name, value in (("radius", radius), ("sigma", sigma)):
        if not 0 < value < math.inf:
            raise ArgumentError(f"`{name}` must be a finite number above 0, got {value!r}.")
    length = 2 * math.ceil(radius) + 1
    weights = np.exp(-np.square(np.arange(length) / sigma) / 2)
    weights /= weights.sum()
    radians = angles.deg2rad()[:, None]
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
    path = []
    for step, weight in enumerate(weights.tolist()):
        down, right = ((step * part - 0.5).ceil().long() for part in (radians.sin(), radians.cos()))
        looked_up = [fold_into(axis + by, len(axis), "nearest") for axis, by in ((rows, down), (columns, right))]
        path.append((weight, looked_up[0], looked_up[1]))
    return path


def sampling_grid(rows: Tensor, columns: Tensor) -> Tensor:
    """Turn pixel positions into a grid for ``torch.nn.functional.grid_sample`` with ``align_corners=False``.

    Args:
        rows: Row that each output pixel comes from, ``(b, H, W)``; fractions lie between pixels.
        columns: The same for columns.

    Returns:
        ``(b, H, W, 2)`` float32 of (x, y), in [-1, 1] inside the image.

    Example:
        >>> sampling_grid(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
        tensor([[[[-0.5000,  0.0000],
                  [ 0.5000,  0.0000]]]])
    """
    height, width = rows.shape[1:]
    parts = [(2 * at.float() + 1) / size - 1 for at, size in ((columns, width), (rows, height))]
    return torch.stack(parts, dim=3)


@lru_cache(maxsize=64)
def _gaussian_weights(sigma: float, truncate: float) -> tuple[float, ...]:
    radius = int(truncate * sigma + 0.5)
    if not radius:
        return (1.0,)
    weights = np.exp(-np.square(np.arange(-radius, radius + 1) / sigma) / 2)
    return tuple((weights / weights.sum()).tolist())


def _filter_axis(images: Tensor, weights: tuple[float, ...], border: Border, *, dim: int) -> Tensor:
    length = images.shape[dim]
    padded = pad_with_border(images, len(weights) // 2, border, dim=dim)
    filtered = torch.zeros_like(images)
    for shift, weight in enumerate(weights):
        filtered.add_(padded.narrow(dim, shift, length), alpha=weight)
    return filtered


def _filter_folded(images: Tensor, weights: tuple[float, ...], border: Border, *, dim: int) -> Tensor:
    # A kernel wider than the image meets each of its pixels several times: add up the weights instead of the pixels.
    matrix = _folded_matrix(images.shape[dim], weights, border, images.dtype, images.device)
    # Image by image, each at the start of its own memory: products of other sizes, or from addresses that are aligned
    # otherwise, add in another order.
    with torch.autocast(images.device.type, enabled=False):
        products = [matrix @ image.clone() if dim == 2 else image.clone() @ matrix.T for image in images.contiguous()]
    return torch.stack(products)


@lru_cache(maxsize=16)
def _folded_matrix(
    length: int, weights: tuple[float, ...], border: Border, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # Kept, and made outside inference mode, as all constants are.
    with torch.inference_mode(False):
        margin = len(weights) // 2
        unit = torch.eye(length, dtype=torch.float64, device="cpu")
        padded = pad_with_border(unit, margin, border, dim=0)
        kernel = torch.tensor(weights, dtype=torch.float64, device="cpu")
        # Row i weighs the pixels that the shifted kernel meets.
        return torch.stack([kernel @ padded[i : i + len(weights)] for i in range(length)]).to(device, dtype)
