"""The certified statement: the k largest cells of a map stay among the largest; and the search for its radius."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError


def top_cells(maps: Tensor, k: int) -> Tensor:
    """Mark the k largest cells.

    Args:
        maps: ``(b, n)``.
        k: How many, 1..n.

    Returns:
        ``(b, n)`` bool with k true cells in each row; ties go to whichever cell the sorting puts first.

    Example:
        >>> top_cells(torch.tensor([[1.0, 3.0, 2.0]]), 2)
        tensor([[False,  True,  True]])
    """
    return torch.zeros_like(maps, dtype=torch.bool).scatter_(1, maps.topk(k, dim=1).indices, True)


def stays_on_top(lower: Tensor, upper: Tensor, top: Tensor, *, rivals_allowed: int = 0, slack: Tensor) -> Tensor:
    """Decide from bounds of the cells whether the top cells are sure to stay on top.

    Args:
        lower: Lower bounds of the cells, ``(b, n)``.
        upper: Upper bounds, ``(b, n)``.
        top: The cells on top of the undisturbed map, ``(b, n)`` bool.
        rivals_allowed: How many other cells may overtake: k2 - k1 for "the top k1 stay inside the top k2".
        slack: What must be left between the bounds, ``(b,)``, so that rounding decides nothing.

    Returns:
        ``(b,)`` bool.

    Source:
        Gu et al. 2020 (CORGI, arXiv 2301.11324).

    Example:
        >>> lower, upper = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([[5.0, 4.5, 1.0]])
        >>> top, slack = torch.tensor([[True, False, False]]), torch.zeros(1)
        >>> stays_on_top(lower, upper, top, slack=slack), stays_on_top(lower, upper, top, rivals_allowed=1, slack=slack)
        (tensor([False]), tensor([True]))
    """
    lowest = lower.masked_fill(~top, float("inf")).amin(dim=1)
    rival = upper.masked_fill(top, float("-inf")).topk(rivals_allowed + 1, dim=1).values[:, -1]
    return lowest - rival > slack


def largest_radius(
    certified: Callable[[Tensor], Tensor], low: Tensor, high: Tensor | float, *, halvings: int
) -> Tensor:
    """Search the largest certified radius of each image by bisection.

    Each radius that is returned was certified itself, so the search need not assume that certification fails for all
    larger ones.

    Args:
        certified: Tells for radii ``(b,)`` which images are certified, ``(b,)`` bool.
        low: ``(b,)`` radii that are certified, such as 0.
        high: ``(b,)`` or one number for all; the search stays below it.
        halvings: Number of bisections.

    Returns:
        ``(b,)``, ``low`` where no other radius that was tried was certified.

    Example:
        >>> largest_radius(lambda radii: radii < 0.3, torch.zeros(1), 1.0, halvings=3)
        tensor([0.2500])
    """
    above = torch.zeros_like(low) + high
    for _ in range(halvings):
        middle = (low + above) / 2
        holds = certified(middle)
        low, above = torch.where(holds, middle, low), torch.where(holds, above, middle)
    return low


def top_count(k: int | None, share: float | None, cells: int) -> int:
    """Decide how many cells are the top.

    Args:
        k: Their number, or None.
        share: Their share of all cells, in (0, 1), or None.
        cells: Number of cells of the map.

    Returns:
        The number, at least 1 and below ``cells``.

    Raises:
        ArgumentError: If both or none are given, or the number is not in 1..cells-1.

    Example:
        >>> top_count(None, 0.2, 49)
        10
    """
    if (k is None) == (share is None):
        raise ArgumentError(f"Pass either `k` or `share`, got k={k!r} and share={share!r}.")
    if share is not None and not 0 < share < 1:
        raise ArgumentError(f"`share` must lie in (0, 1), the share of cells on top; got {share!r}.")
    count = max(1, round(share * cells)) if share is not None else k
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count < cells:
        raise ArgumentError(f"`k` must be a whole number in 1..{cells - 1} for a map of {cells} cells, got {count!r}.")
    return count


def check_search(max_radius: float, halvings: int) -> None:
    """Check the settings of a search for a radius.

    Args:
        max_radius: Pixel units, in (0, 1].
        halvings: At least 1.

    Raises:
        ArgumentError: If one is out of range.

    Example:
        >>> check_search(0.005, 15)
    """
    if not 0 < max_radius <= 1:
        raise ArgumentError(f"`max_radius` must lie in (0, 1], in pixel units; got {max_radius!r}.")
    if not isinstance(halvings, int) or halvings < 1:
        raise ArgumentError(f"`halvings` must be a whole number of at least 1, got {halvings!r}.")
