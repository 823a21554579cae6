"""Noisy linear imputation."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Randomness

Array = np.ndarray[Any, np.dtype[Any]]
# (down, right, weight): the eight neighbours of a pixel; the other four are the mirror images of these.
_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


@dataclass(frozen=True)
class NoisyLinear:
    """Fill each removed pixel with the weighted mean of its eight neighbours, plus a little noise.

    Direct neighbours weigh 1/6 and diagonal ones 1/12. Removed neighbours are unknown themselves, so the pixels of an
    image are the solution of one sparse linear system, found on the host. At the edge of the picture the weights of the
    neighbours that exist are scaled to sum to 1. Where no pixel is left to start from, the fill is middle grey.

    What was removed cannot shine through: the fill depends on the pixels that stay, and on where they are.

    Attributes:
        sigma: Standard deviation of the noise in pixel units; 0 for none.

    Source:
        Rong, Leemann, Borisov, Kasneci and Kasneci 2022, ROAD (arXiv 2202.00449).

    Example:
        >>> NoisyLinear()
        NoisyLinear(sigma=0.01)
    """

    sigma: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise ArgumentError(
                f"NoisyLinear: `sigma` must be finite and at least 0 (pixel units), got {self.sigma!r}."
            )

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return the images ``(b, c, H, W)`` with the removed pixels filled in, in the dtype of ``pixels``."""
        noise = randomness.normal(tuple(pixels.shape[1:])).to(pixels.dtype).mul_(self.sigma)
        pairs = zip(pixels.detach().double().cpu().numpy(), removed.cpu().numpy(), strict=True)
        filled = torch.from_numpy(np.stack([_impute(image, mask[0]) for image, mask in pairs]))
        noisy = filled.to(pixels.device, pixels.dtype).add_(noise).clamp_(0, 1)
        return torch.where(removed, noisy, pixels)


def _impute(image: Array, mask: Array) -> Array:
    """Solve for the removed pixels of one image ``(c, H, W)``; ``mask`` ``(H, W)`` tells which they are."""
    filled, gone = image.copy(), mask.ravel()
    if gone.all():
        filled[:] = 0.5
    elif gone.any():
        flat = filled.reshape(len(image), -1)
        rows = _mean_of_neighbours(*mask.shape)[gone]
        system = sparse.identity(int(gone.sum()), format="csc") - rows[:, gone].tocsc()
        solution = spsolve(system, rows[:, ~gone] @ flat[:, ~gone].T)
        flat[:, gone] = solution.reshape(-1, len(image)).T
    return filled


@lru_cache(maxsize=4)
def _mean_of_neighbours(height: int, width: int) -> sparse.csr_matrix:
    """Matrix ``(H*W, H*W)`` that takes a picture to the weighted means of each pixel's neighbours."""
    place = np.arange(height * width).reshape(height, width)
    matrix = sparse.csr_matrix((height * width, height * width))
    for down, right, weight in _NEIGHBOURS:
        left, last = max(0, -right), width - max(0, right)
        here, there = place[: height - down, left:last].ravel(), place[down:, left + right : last + right].ravel()
        link = sparse.csr_matrix((np.full(len(here), weight), (here, there)), shape=matrix.shape)
        matrix = matrix + link + link.T
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    # A picture of one pixel has no neighbours at all.
    return sparse.diags(1 / np.where(sums > 0, sums, 1)) @ matrix


EXAMPLES = (NoisyLinear(), NoisyLinear(sigma=0.0))
