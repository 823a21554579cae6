"""The first principal component of a feature map over its cells, with a sign that means something."""

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

# The power is 2 to this: values that differ by one part in 10^5 are told apart.
_SQUARINGS = 22


def principal_map(features: Tensor) -> Tensor:
    """Project every cell on the first principal axis of all cells.

    The sign of a principal component is arbitrary, and a flipped map would count as instability. Here it is fixed: the
    map correlates positively with the mean of the features over channels.

    Args:
        features: ``(b, c, h, w)`` or ``(b, c, d, h, w)`` float.

    Returns:
        ``(b, h, w)`` or ``(b, d, h, w)`` float64, of both signs; NaN for an image with a feature that is not finite.

    Source:
        Muhammad and Yeasin 2020 (arXiv 2008.00299), equation 3; channels centred over the cells, as in
        pytorch-grad-cam.

    Example:
        >>> principal_map(torch.tensor([[[[1.0, 3.0]], [[4.0, 4.0]]]]))
        tensor([[[-1.0000,  1.0000]]], dtype=torch.float64)
    """
    b, _, *size = features.shape
    cells = features.double().flatten(2).transpose(1, 2)  # (b, h*w, c)
    cells = cells - cells.mean(dim=1, keepdim=True)
    projection = first_component(cells)
    brightness = cells.mean(dim=2)
    sign = torch.where((projection * brightness).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    return (projection * sign).reshape(b, *size)


def first_component(cells: Tensor) -> Tensor:
    """Project centred cells on their first principal axis, whose sign is left to chance.

    Args:
        cells: ``(b, n, c)`` float64, mean 0 over ``n``.

    Returns:
        ``(b, n)`` float64; NaN for an image with a cell that is not finite.

    Example:
        >>> first_component(torch.tensor([[[3.0, 4.0], [-3.0, -4.0]]], dtype=torch.float64)).abs()
        tensor([[5., 5.]], dtype=torch.float64)
    """
    few_cells = cells.shape[1] <= cells.shape[2]
    small, large = (cells, cells.transpose(1, 2)) if few_cells else (cells.transpose(1, 2), cells)
    gram = small @ large
    # Solvers cannot take NaN, and one image's NaN must stay its own. NaN and infinity have no finite square.
    finite = gram.diagonal(dim1=1, dim2=2).sum(dim=1).isfinite()[:, None]
    gram = torch.where(finite[..., None], gram, torch.zeros_like(gram))
    # An accelerator has no solver for one vector alone, and the host would have to wait for its verdict.
    value, first = _by_lapack(gram) if gram.device.type == "cpu" else _by_squaring(gram)
    projection = first * value.clamp_min(0).sqrt() if few_cells else (cells @ first[..., None])[..., 0]
    return torch.where(finite, projection, torch.full_like(projection, torch.nan))


def _by_lapack(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue ``(b, 1)`` and its unit vector ``(b, n)``; all of them would take three times as long."""
    last = gram.shape[1] - 1
    pairs = [eigh(each, subset_by_index=[last, last], check_finite=False) for each in gram.numpy()]
    values, vectors = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(vectors)[..., 0])


def _by_squaring(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same by powers of the matrix; where two values are equal, any vector of their plane is as good."""
    power = gram
    for _ in range(_SQUARINGS):
        power = power / _trace(power).clamp_min(torch.finfo(power.dtype).tiny)
        power = power @ power
    # All columns of the limit point the same way; the one with the largest diagonal entry is the longest.
    column = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
    vector = power.gather(2, column[:, None, None].expand(-1, power.shape[1], 1))[..., 0]
    vector = torch.nn.functional.normalize(vector, dim=1, eps=torch.finfo(power.dtype).tiny)
    return (vector[:, None] @ gram @ vector[..., None])[..., 0], vector


def _trace(square: Tensor) -> Tensor:
    return square.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
