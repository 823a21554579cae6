"""Certified overlap of the top cells of any CAM of any network, by randomised smoothing."""

import math

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError


def certified_overlap(
    mean_map: Tensor, *, k: int, samples: int, sigma: float, radius: float, confidence: float = 0.95
) -> Tensor:
    """Certify which share of the top cells of a smoothed map stays on top under any shift of the image.

    With probability ``confidence`` over the samples: for every image within an L2 distance ``radius``, the k largest
    cells of its exact smoothed map share at least so many with the k largest cells of ``mean_map``.

    Args:
        mean_map: Mean of maps in [0, 1] over noisy samples, ``(b, n)``.
        k: Number of top cells, 1..n.
        samples: Number of samples q behind the mean.
        sigma: Standard deviation of the noise, in pixel units.
        radius: L2 distance, in pixel units, at least 0.
        confidence: In (0, 1), for each image.

    Returns:
        ``(b,)`` float64, the certified overlap i / k; 0 where nothing is certified.

    Raises:
        ArgumentError: If an argument is out of range.

    Source:
        Levine, Singla, Feizi 2019 (arXiv 1905.12105): with c = sqrt(ln(2n / (1 - confidence)) / 2q) and the cells
        sorted downwards, i of k stay if Phi(Phi^-1(h_i - c) - 2 radius / sigma) - c > h_(2k+1-i).

    Example:
        >>> mean_map = torch.tensor([[0.9, 0.8, 0.1, 0.1]])
        >>> certified_overlap(mean_map, k=2, samples=10_000, sigma=0.25, radius=0.1)
        tensor([1.], dtype=torch.float64)
    """
    if not 0 <= radius < math.inf:
        raise ArgumentError(f"`radius` must be a finite number of at least 0, in pixel units; got {radius!r}.")
    bound = _radii(mean_map, k=k, samples=samples, sigma=sigma, confidence=confidence)
    # Radii fall from the first cell to the last, so counting finds the last one that holds.
    return (bound > radius).sum(dim=1).double() / k


def certified_radius(
    mean_map: Tensor, *, k: int, samples: int, sigma: float, overlap: float = 1.0, confidence: float = 0.95
) -> Tensor:
    """Find the largest L2 radius below which a given overlap is certified; arguments as in :func:`certified_overlap`.

    The rule is solved for the radius: sigma / 2 * (Phi^-1(h_i - c) - Phi^-1(h_(2k+1-i) + c)), i = ceil(overlap * k).

    Args:
        mean_map: ``(b, n)``.
        k: Number of top cells.
        samples: Number of samples behind the mean.
        sigma: Standard deviation of the noise, in pixel units.
        overlap: Share of the top cells that has to stay, in (0, 1].
        confidence: In (0, 1).

    Returns:
        ``(b,)`` float64, in pixel units: every smaller radius is certified. 0 where none is; infinite where so many
        cells are on top that the overlap cannot be missed.

    Raises:
        ArgumentError: If an argument is out of range.

    Example:
        >>> mean_map = torch.tensor([[0.9, 0.8, 0.1, 0.1]])
        >>> certified_radius(mean_map, k=2, samples=10_000, sigma=0.25)
        tensor([0.2477], dtype=torch.float64)
    """
    check_overlap(overlap)
    bound = _radii(mean_map, k=k, samples=samples, sigma=sigma, confidence=confidence)
    # 0.3 * 10 is a little above 3 in floating point.
    return bound[:, math.ceil(overlap * k - 1e-9) - 1].clamp(min=0)


def _radii(mean_map: Tensor, *, k: int, samples: int, sigma: float, confidence: float) -> Tensor:
    """Radii ``(b, k)`` below which 1, 2, ... k cells stay; minus infinity for never."""
    check_smoothing(sigma=sigma, samples=samples, confidence=confidence)
    cells = mean_map.shape[1]
    if not 1 <= k <= cells:
        raise ArgumentError(f"`k` must lie in 1..{cells}, as the map has {cells} cells; got {k!r}.")
    error = math.sqrt(math.log(2 * cells / (1 - confidence)) / (2 * samples))
    ordered = mean_map.double().sort(dim=1, descending=True).values
    lows = (ordered[:, :k] - error).clamp(min=0)
    # The (2k+1-i)-th cell for i = 1..k; where there is none, nothing can push a cell out.
    rivals = torch.full_like(lows, -math.inf)
    known = ordered[:, k : 2 * k].flip(1) + error
    rivals[:, k - known.shape[1] :] = known.clamp(max=1)
    gap = torch.special.ndtri(lows) - torch.where(rivals.isinf(), 0.0, torch.special.ndtri(rivals.clamp(min=0)))
    return torch.where(rivals.isinf(), math.inf, torch.where((lows <= 0) | (rivals >= 1), -math.inf, sigma / 2 * gap))


def check_smoothing(*, sigma: float, samples: int, confidence: float) -> None:
    """Check the settings of randomised smoothing.

    Args:
        sigma: Standard deviation of the noise, above 0.
        samples: Number of samples, at least 1.
        confidence: In (0, 1).

    Raises:
        ArgumentError: If one is out of range.

    Example:
        >>> check_smoothing(sigma=0.1, samples=1000, confidence=0.95)
    """
    if not 0 < sigma < math.inf:
        raise ArgumentError(f"`sigma` must be finite and above 0, in pixel units; got {sigma!r}.")
    if not isinstance(samples, int) or samples < 1:
        raise ArgumentError(f"`samples` must be a whole number of at least 1, got {samples!r}.")
    if not 0 < confidence < 1:
        raise ArgumentError(f"`confidence` must lie in (0, 1), got {confidence!r}.")


def check_overlap(overlap: float) -> None:
    """Check that a share of the top cells lies in (0, 1].

    Raises:
        ArgumentError: If it does not.

    Example:
        >>> check_overlap(0.8)
    """
    if not 0 < overlap <= 1:
        raise ArgumentError(f"`overlap` must lie in (0, 1], a share of the top cells; got {overlap!r}.")
