"""Textures that imitate weather: fractal clouds and enlarged noise.

Every number of a texture comes from its own image's random numbers, and every step adds and multiplies element by
element, so that neighbours in a batch change no bit of it.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.types import Randomness


def plasma_fractal(randomness: Randomness, *, size: tuple[int, int], decay: float) -> Tensor:
    """Make clouds by the diamond-square algorithm on a square that wraps around.

    The midpoint of four known points is their mean plus a random step; the steps shrink by ``decay**2`` each time the
    grid gets twice as fine. (The script draws from +-w and multiplies by w again, hence the square.)

    Args:
        randomness: One uniform number for each point of the square is drawn.
        size: Height and width to cut out; the square has the next power of two, at least 2.
        decay: Above 0; small values give rough clouds.

    Returns:
        ``(b, *size)`` float32 in [0, 1]. The whole square reaches from 0 to 1, the part cut out may not.

    Source:
        Fournier, Fussell and Carpenter 1982; Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> from lightning_camrobust.randomness import ImageRandomness, image_keys
        >>> randomness = ImageRandomness(image_keys(torch.rand(2, 1, 9, 7)), 0, "fog", 1)
        >>> plasma_fractal(randomness, size=(9, 7), decay=2.0).shape
        torch.Size([2, 9, 7])
    """
    side = 1 << max(1, (max(size) - 1).bit_length())
    wobble = randomness.uniform((side, side)).mul_(2).sub_(1)
    grid = torch.zeros_like(wobble)
    step, spread = side, 1.0
    while step >= 2:
        _fill_middles(grid, wobble.mul(spread), step)
        step, spread = step // 2, spread / decay**2
    grid -= grid.amin(dim=(1, 2), keepdim=True)
    grid /= grid.amax(dim=(1, 2), keepdim=True)
    return grid[:, : size[0], : size[1]]


def _fill_middles(grid: Tensor, wobble: Tensor, step: int) -> None:
    half = step // 2
    corners = grid[:, ::step, ::step]
    pairs = corners + corners.roll(-1, 1)
    middles = (pairs + pairs.roll(-1, 2)) / 4 + wobble[:, half::step, half::step]
    grid[:, half::step, half::step] = middles
    # Each diamond has two corners of the old grid and two of the middles just made.
    above = (corners + corners.roll(-1, 2)) + (middles + middles.roll(1, 1))
    grid[:, ::step, half::step] = above / 4 + wobble[:, ::step, half::step]
    left = (corners + corners.roll(-1, 1)) + (middles + middles.roll(1, 2))
    grid[:, half::step, ::step] = left / 4 + wobble[:, half::step, ::step]


def zoom_centre(layer: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of a layer to the layer's own size, linearly, corners of the cut on corners.

    Args:
        layer: ``(b, H, W)``.
        factor: 1 or more.

    Returns:
        ``(b, H, W)``.

    Example:
        >>> zoom_centre(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), 2.0)
        tensor([[[1.0000, 1.3333, 1.6667, 2.0000]]])
    """
    for dim in (1, 2):
        low, high, share = _zoom_steps(layer.shape[dim], factor, layer.dtype, layer.device)
        # The share is a column for rows and a row for columns.
        share = share[:, None] if dim == 1 else share
        layer = layer.index_select(dim, low) * (1 - share) + layer.index_select(dim, high) * share
    return layer


@lru_cache(maxsize=64)
def _zoom_steps(length: int, factor: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    cut = math.ceil(length / factor)
    enlarged = max(length, round(cut * factor))
    first = (enlarged - length) // 2
    places = np.arange(first, first + length) * ((cut - 1) / max(1, enlarged - 1))
    low = np.minimum(np.floor(places).astype(int), max(0, cut - 2))
    top = (length - cut) // 2
    with torch.inference_mode(False):
        low_index = torch.from_numpy(low + top).to(device)
        high_index = torch.from_numpy(np.minimum(low + 1, cut - 1) + top).to(device)
        return low_index, high_index, torch.from_numpy(places - low).to(dtype).to(device)
