"""Square pieces of pictures: an image, and its map laid over it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

if TYPE_CHECKING:
    from lightning_camrobust.gallery import Panel

# How strongly the map covers the image, and how wide the outline of a segment is, in pixels.
_COVER, _OUTLINE = 0.6, 2

Tile = np.ndarray[Any, np.dtype[np.float32]]


def panel_tiles(panel: "Panel", *, side: int) -> tuple[Tile, Tile]:
    """Render the two tiles of a panel.

    Args:
        panel: One copy of an image.
        side: Of a tile, in pixels. Images that are not square are centred on white.

    Returns:
        The image, and the map over the image in grey with the segment ranked first outlined in white; each
        ``(side, side, 3)`` float32 in [0, 1].

    Example:
        >>> from lightning_camrobust.gallery import Panel
        >>> whole = torch.ones(8, 6, dtype=torch.bool)
        >>> picture, overlay = panel_tiles(Panel(torch.rand(1, 8, 6), torch.rand(2, 2), whole, 3, "clean"), side=32)
        >>> picture.shape, overlay.shape
        ((32, 32, 3), (32, 32, 3))
    """
    pixels = panel.pixels.float()
    channels = pixels if len(pixels) == 3 else pixels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    scale = side / max(pixels.shape[1:])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[2] * scale)))
    picture = _resized(channels, size)
    overlay = (1 - _COVER) * picture.mean(dim=0, keepdim=True) + _COVER * _heat(panel.heat, size)
    overlay = torch.where(_outline(panel.top_segment, size), torch.ones(()), overlay)
    return _centred(picture, side), _centred(overlay, side)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if size[0] >= image.shape[1]:
        return interpolate(image[None], size=size, mode="nearest-exact")[0]
    return interpolate(image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _heat(heat: Tensor, size: tuple[int, int]) -> Tensor:
    from matplotlib import colormaps

    heat = heat.float().nan_to_num()
    span = float(heat.max() - heat.min())
    scaled = (heat - heat.min()) / (span or 1.0)
    large = interpolate(scaled[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    colours = colormaps["inferno"](large.numpy())[..., :3].astype(np.float32)
    return torch.from_numpy(colours).permute(2, 0, 1)


def _outline(segment: Tensor, size: tuple[int, int]) -> Tensor:
    if segment.all() or not segment.any():
        return torch.zeros(size, dtype=torch.bool)
    large = _resized(segment[None].float(), size).round()
    grown = max_pool2d(large[None], 2 * _OUTLINE + 1, stride=1, padding=_OUTLINE)[0]
    return (grown > large)[0]


def _centred(image: Tensor, side: int) -> Tile:
    down, right = side - image.shape[1], side - image.shape[2]
    framed = pad(image, (right // 2, right - right // 2, down // 2, down - down // 2), value=1.0)
    tile: Tile = framed.permute(1, 2, 0).contiguous().numpy().astype(np.float32)
    return tile
