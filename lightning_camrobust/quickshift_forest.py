"""Second half of quickshift: link each pixel to its nearest denser one, and name the trees this makes."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

# Pairs of pixels looked at in one go: on a processor what its cache holds, elsewhere what does not fill the memory.
_PAIRS_IN_CACHE, _PAIRS_IN_MEMORY = 2**18, 2**23


def nearest_denser(colours: Tensor, density: Tensor, *, reach: int) -> tuple[Tensor, Tensor]:
    """Find for each pixel the nearest one of higher density, in colour and position, within a square window.

    Of equally near ones the first in raster order is taken.

    Args:
        colours: ``(c, b, H, W)`` float64.
        density: ``(b, H, W)`` float64.
        reach: Pixels from the centre of the window to its edge.

    Returns:
        Position of the found pixel in the flattened batch, ``(b*H*W,)`` int64, a pixel without a denser one its own;
        and squared distance, same shape, float64, infinite where none was found.

    Example:
        >>> density = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]], dtype=torch.float64)
        >>> nearest_denser(torch.zeros(3, 1, 1, 4, dtype=torch.float64), density, reach=3)[0]
        tensor([1, 2, 2, 2])
    """
    # A border of no density: each pixel has a whole window, and what lies outside the image is never denser. (Nor is a
    # pixel of density NaN, hence "not denser" below, which is more than "at most as dense".)
    planes = [pad(each, (reach,) * 4) for each in colours]
    density = pad(density, (reach,) * 4, value=-math.inf)
    places = torch.arange(density.numel(), device=density.device).view(density.shape)
    inside = places[:, reach:-reach, reach:-reach].flatten()
    distance, parent = _search_next_door(planes, density, places, reach)
    _search_further(planes, density, inside, reach, distance, parent)
    parent = torch.where(distance.isinf(), inside, parent)
    # From places with the border to places without.
    compact = torch.empty_like(places).flatten()
    compact[inside] = torch.arange(len(inside), device=density.device)
    return compact[parent], distance


def _search_next_door(planes: list[Tensor], density: Tensor, places: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Look at the eight neighbours of all pixels at once; most pixels need no more."""
    height, width = density.shape[1] - 2 * reach, density.shape[2] - 2 * reach

    def shifted(plane: Tensor, down: int, right: int) -> Tensor:
        return plane[:, reach + down : reach + down + height, reach + right : reach + right + width]

    parent = shifted(places, 0, 0).clone()
    distance = torch.full(parent.shape, math.inf, dtype=density.dtype, device=density.device)
    # In raster order, so that the first of equally near ones stays.
    for down, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        found = torch.zeros_like(distance)
        for plane in planes:
            difference = shifted(plane, down, right) - shifted(plane, 0, 0)
            found.addcmul_(difference, difference)
        found += down**2 + right**2
        denser = shifted(density, down, right) > shifted(density, 0, 0)
        found.masked_fill_(denser.logical_not_(), math.inf)
        closer = found < distance
        torch.where(closer, found, distance, out=distance)
        torch.where(closer, shifted(places, down, right), parent, out=parent)
    return distance.flatten(), parent.flatten()


def _search_further(
    planes: list[Tensor], density: Tensor, inside: Tensor, reach: int, distance: Tensor, parent: Tensor
) -> None:
    """Look outwards from the pixels that may still find a nearer one, and write it into ``distance`` and ``parent``."""
    steps, gaps = _outward_steps(reach, width=density.shape[2], like=density)
    limits = [*gaps.tolist(), math.inf]
    most_pairs = _PAIRS_IN_CACHE if density.device.type == "cpu" else _PAIRS_IN_MEMORY
    start = 0
    # An equally near pixel may come first in raster order, so only a strictly smaller distance is final.
    unsettled = (distance >= limits[0]).nonzero()[:, 0]
    while len(unsettled) and start < len(steps):
        stop = min(start + max(1, most_pairs // len(unsettled)), len(steps))
        here = inside[unsettled]
        there = here + steps[start:stop, None]
        found = torch.zeros(there.shape, dtype=density.dtype, device=density.device)
        for plane in planes:
            difference = plane.take(there) - plane.take(here)
            found.addcmul_(difference, difference)
        found += gaps[start:stop, None]
        denser = density.take(there) > density.take(here)
        found.masked_fill_(denser.logical_not_(), math.inf)
        found = torch.cat([distance[unsettled][None], found])
        places = torch.cat([parent[unsettled][None], there])
        nearest = found.amin(dim=0)
        distance[unsettled] = nearest
        parent[unsettled] = places.masked_fill_(found > nearest, torch.iinfo(torch.int64).max).amin(dim=0)
        start = stop
        unsettled = unsettled[nearest >= limits[start]]


def _outward_steps(reach: int, *, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """List the ways from a pixel to those of its window, the next eight left out: in the flattened image, and squared.

    They go outwards, since no pixel further on can be nearer than the way to it.
    """
    line = torch.arange(-reach, reach + 1, device=like.device)
    gaps, steps = (line[:, None] ** 2 + line**2).flatten(), (line[:, None] * width + line).flatten()
    outwards = gaps.argsort(stable=True)[9:]
    return steps[outwards], gaps[outwards].to(like.dtype)


def label_trees(parent: Tensor, *, shape: tuple[int, int, int]) -> Tensor:
    """Number the trees of a forest.

    Args:
        parent: Where each pixel of the flattened batch is linked to, ``(b*H*W,)`` int64; roots to themselves. Links do
            not leave an image.
        shape: ``(b, H, W)``.

    Returns:
        ``(b, H, W)`` int64: 0..m-1 in each image, in raster order of the roots.

    Example:
        >>> label_trees(torch.tensor([1, 2, 2, 3]), shape=(1, 1, 4))
        tensor([[[0, 0, 0, 1]]])
    """
    root = parent
    while True:
        # Twice as far with each turn.
        ahead = root[root]
        if torch.equal(ahead, root):
            break
        root = ahead
    is_root = root == torch.arange(len(root), device=root.device)
    number = is_root.view(shape[0], shape[1] * shape[2]).cumsum(dim=1) - 1
    return number.flatten()[root].view(shape)
