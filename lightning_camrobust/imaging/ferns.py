"""Pictures of frost on a window, drawn from random numbers."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_camrobust.imaging.filtering import gaussian_filter
from lightning_camrobust.imaging.weather import plasma_fractal
from lightning_camrobust.types import Randomness

_FERNS = 16
# Branches leave their stem at 60 degrees, as crystals of ice do.
_COS_60, _SIN_60 = 0.5, 3**0.5 / 2


class Shoots(NamedTuple):
    """Needles of ice, n an image; places and directions are (row, column) in pixels.

    Attributes:
        root: Where each begins, ``(b, n, 2)``.
        ahead: Unit vector of its first direction, ``(b, n, 2)``.
        length: In pixels, ``(b, n, 1)``.
        bend: How far the tip lies aside, as a share of the length, ``(b, n, 1)``.
        light: Brightness at the root, ``(b, n, 1)``.
    """

    root: Tensor
    ahead: Tensor
    length: Tensor
    bend: Tensor
    light: Tensor


def frost_picture(randomness: Randomness, *, size: tuple[int, int]) -> Tensor:
    """Draw feathers of ice that grow from the border, over a milky glaze that is thicker near the border.

    Args:
        randomness: Of the images.
        size: Height and width.

    Returns:
        ``(b, 3, *size)`` float32 in [0, 1], bluish white.

    Example:
        >>> from lightning_camrobust.randomness import ImageRandomness, image_keys
        >>> frost_picture(ImageRandomness(image_keys(torch.rand(2, 1, 9, 7)), 0, "frost", 1), size=(9, 7)).shape
        torch.Size([2, 3, 9, 7])
    """
    clouds = plasma_fractal(randomness, size=size, decay=1.5)
    grain = plasma_fractal(randomness, size=size, decay=1.1)
    feathers = _draw(_grow(randomness, size), size)
    crisp, glow = (gaussian_filter(feathers, sigma=sigma)[:, 0] for sigma in (0.4, max(size) / 70))
    # Veins lie where the clouds pass through their middle.
    veins = 1 - (clouds * 2 - 1).abs()
    glaze = (0.15 + 0.25 * _nearness_to_border(size, clouds.device)) * (0.5 + clouds) * (0.6 + 0.8 * grain)
    ice = (glaze + 0.12 * veins * grain + 0.55 * crisp * (0.5 + grain) + 0.4 * glow).clamp_(0, 1)
    # Thin ice is blue, thick ice is white.
    blue = 1 - ice
    return torch.stack([ice * (1 - 0.5 * blue), ice * (1 - 0.22 * blue), ice * (1 - 0.02 * blue)], dim=1)


def _nearness_to_border(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return ``(H, W)``: 1 at the border, 0 in the middle."""
    rows, columns = ((torch.arange(n, device=device) * 2 - (n - 1)).abs() / max(1, n - 1) for n in size)
    return torch.maximum(rows[:, None], columns[None])


def _grow(randomness: Randomness, size: tuple[int, int]) -> list[tuple[Shoots, int]]:
    """Grow stems, branches and twigs, and say with how many points each of a kind is drawn."""
    side = max(size)
    stems = _stems(randomness, size)
    branches = _sprout(stems, randomness, places=max(3, side // 8), reach=0.36)
    twigs = _sprout(branches, randomness, places=max(2, side // 20), reach=0.4)
    return [(stems, side), (branches, side // 4 + 2), (twigs, side // 28 + 2)]


def _stems(randomness: Randomness, size: tuple[int, int]) -> Shoots:
    """Let stems start anywhere on the border, up to 60 degrees off the inward direction."""
    draws = randomness.uniform((_FERNS, 6))
    border, along, slant, length, bend, light = draws.unbind(dim=-1)
    top_or_left, upright = (border * 2) % 1 < 0.5, border < 0.5
    start, inward = torch.where(top_or_left, 0.0, 1.0), torch.where(top_or_left, 1.0, -1.0)
    row, column = torch.where(upright, start, along), torch.where(upright, along, start)
    root = torch.stack([row * (size[0] - 1), column * (size[1] - 1)], dim=-1)
    # Half of the angle's tangent gives its sine and cosine without calling for either.
    half = (slant * 2 - 1) * 0.577
    straight, aside = (1 - half * half) / (1 + half * half) * inward, 2 * half / (1 + half * half)
    ahead = torch.stack([torch.where(upright, straight, aside), torch.where(upright, aside, straight)], dim=-1)
    length = max(size) * (0.2 + 0.7 * length)
    return Shoots(root, ahead, length[..., None], (bend[..., None] - 0.5) * 0.8, 0.55 + 0.45 * light[..., None])


def _sprout(shoots: Shoots, randomness: Randomness, *, places: int, reach: float) -> Shoots:
    """Grow straight branches to both sides, shorter towards the tip; ``reach`` is the longest one's share."""
    draws = randomness.uniform((shoots.root.shape[1], places, 2, 3))
    # Axes: b, parent, place, hand, and the coordinate.
    place = (torch.arange(places, device=draws.device)[:, None] + draws[..., 0]) / places
    place = place[..., None]
    parent = Shoots(*(each[:, :, None, None] for each in shoots))
    start, heading = _position(parent, place)
    hand = torch.arange(-1, 2, 2, device=draws.device)[:, None]
    ahead = heading * _COS_60 + _left(heading) * (hand * _SIN_60)
    length = parent.length * (1 - place) * reach * (0.3 + 0.7 * draws[..., 1, None])
    light = parent.light * (1 - 0.4 * place) * (0.6 + 0.4 * draws[..., 2, None])
    return Shoots(*(each.flatten(1, 3) for each in (start, ahead, length, torch.zeros_like(length), light)))


def _position(shoots: Shoots, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a shoot is after a share ``place`` of its length, and its unit direction there."""
    aside = _left(shoots.ahead) * shoots.bend
    heading = shoots.ahead + aside * (2 * place)
    spot = shoots.root + (shoots.ahead + aside * place) * (place * shoots.length)
    return spot, heading / heading.square().sum(dim=-1, keepdim=True).sqrt()


def _left(heading: Tensor) -> Tensor:
    return torch.stack([-heading[..., 1], heading[..., 0]], dim=-1)


def _draw(kinds: list[tuple[Shoots, int]], size: tuple[int, int]) -> Tensor:
    """Set points along all shoots; where several fall on a pixel, the brightest shows: ``(b, 1, H, W)``."""
    height, width = size
    like = kinds[0][0].root
    canvas = torch.zeros(len(like), height * width + 1, device=like.device, dtype=like.dtype)
    for shoots, points in kinds:
        place = (torch.arange(points, device=canvas.device)[:, None] + 0.5) / points
        each = Shoots(*(part[:, :, None] for part in shoots))
        row, column = _position(each, place)[0].round().unbind(dim=-1)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        spot = torch.where(inside, row * width + column, height * width).long()
        light = (each.light * (1 - 0.5 * place))[..., 0]
        canvas.scatter_reduce_(1, spot.flatten(1), light.flatten(1), "amax")
    return canvas[:, :-1].reshape(-1, 1, height, width)
