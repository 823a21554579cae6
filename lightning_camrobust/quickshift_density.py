"""First half of quickshift: how densely the pixels of an image lie around each other, in colour and position."""

import math
from collections.abc import Iterator
from functools import lru_cache
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Linear sRGB to CIE XYZ, and XYZ of the white D65 seen by the standard observer of 2 degrees.
_XYZ_FROM_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)

_Window = tuple[EllipsisType, slice, slice]


def rgb_to_lab(images: Tensor) -> Tensor:
    """Convert sRGB to CIELAB (D65, 2 degrees), where equal distances look equally far apart.

    Args:
        images: ``(b, 3, H, W)`` float in [0, 1].

    Returns:
        ``(b, 3, H, W)`` float of the same dtype: lightness 0..100, then green to red, and blue to yellow.

    Example:
        >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=1)[0]
        tensor(100.)
    """
    linear = torch.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)
    # Products one by one: a matrix product may be rounded in another way in another batch.
    red, green, blue = linear.unbind(1)
    x, y, z = (
        _lab_curve((row[0] * red + row[1] * green + row[2] * blue) / white)
        for row, white in zip(_XYZ_FROM_RGB, _WHITE, strict=True)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _lab_curve(light: Tensor) -> Tensor:
    return torch.where(light > 0.008856, light ** (1 / 3), 7.787 * light + 16 / 116)


def window_reach(kernel_size: float) -> int:
    """Tell how many pixels to each side the kernel is followed: three standard deviations.

    Example:
        >>> window_reach(5.0)
        15
    """
    return math.ceil(3 * kernel_size)


def pixel_density(colours: Tensor, *, kernel_size: float) -> Tensor:
    """Add up, for each pixel, Gaussian weights of the pixels in the window around it.

    A pixel at squared distance ``d2`` (colour and position together) weighs ``exp(-d2 / (2 kernel_size^2))``; the pixel
    itself counts, with weight 1. A pair weighs the same from both its ends, so only half of the window is visited.

    Args:
        colours: ``(c, b, H, W)`` float64, contiguous; channels come first so that each is one run of memory.
        kernel_size: Standard deviation of the weights, in pixels.

    Returns:
        ``(b, H, W)`` float64.

    Example:
        >>> pixel_density(torch.zeros(3, 1, 1, 2, dtype=torch.float64), kernel_size=1.0)  # 1 + exp(-1/2)
        tensor([[[1.6065, 1.6065]]], dtype=torch.float64)
    """
    # Powers of two are cheaper than powers of e, and equally exact: the factor goes into the colours.
    scaled = colours * math.sqrt(math.log2(math.e) / 2) / kernel_size
    density, zero = torch.ones_like(scaled[0]), scaled.new_zeros(())
    # Buffers are reused, each time as one run without holes: fresh memory would cost more than the arithmetic.
    differences, weights = scaled.new_empty(scaled.numel()), scaled.new_empty(density.numel())
    for here, there, gap in _half_window(scaled.shape[2], scaled.shape[3], window_reach(kernel_size)):
        one = scaled[here]
        difference = differences[: one.numel()].view(one.shape)
        weight = weights[: one[0].numel()].view(one.shape[1:])
        torch.sub(one, scaled[there], out=difference)
        exponent = zero
        for channel in difference.unbind():
            torch.addcmul(exponent, channel, channel, value=-1, out=weight)
            exponent = weight
        weight.exp2_()
        nearness = math.exp(-gap / (2 * kernel_size**2))
        density[here].add_(weight, alpha=nearness)
        density[there].add_(weight, alpha=nearness)
    return density


def _half_window(height: int, width: int, reach: int) -> Iterator[tuple[_Window, _Window, int]]:
    """List pairs of equally large parts of an image that are shifted against each other, and the squared shift."""
    for down in range(min(reach, height - 1) + 1):
        for right in range(-min(reach, width - 1) if down else 1, min(reach, width - 1) + 1):
            here = (..., slice(0, height - down), slice(max(0, -right), width - max(0, right)))
            there = (..., slice(down, height), slice(max(0, right), width - max(0, -right)))
            yield here, there, down**2 + right**2


@lru_cache(maxsize=4)
def tie_noise(height: int, width: int) -> np.ndarray[Any, Any]:
    """Draw what decides between pixels of equal density: always the same numbers, tiny ones, from a stream of its own.

    In a flat area all densities are equal and no pixel would be a mode. scikit-image adds these very numbers.

    Args:
        height: Of the image.
        width: Of the image.

    Returns:
        ``(H, W)`` float64, shared by all callers: not to be written into.

    Example:
        >>> float(abs(tie_noise(4, 4)).max()) < 1e-4
        True
    """
    return np.random.default_rng(42).normal(scale=1e-5, size=(height, width))
