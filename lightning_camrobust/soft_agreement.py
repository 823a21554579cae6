"""How alike two maps are, as a number that a loss can be made of: smooth, and blind to the scale of a map."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

# The name of a built-in agreement, or a function of two maps `(b, h, w)` that returns `(b,)`.
Agreement = Literal["pearson", "cosine"] | Callable[[Tensor, Tensor], Tensor]

# A map whose values differ by less than this share of the largest one is flat, as for the scores.
_FLAT = 1e-6


def check_agreement(agreement: Agreement) -> Callable[[Tensor, Tensor], Tensor]:
    """Turn a name into an agreement; a function passes through.

    Args:
        agreement: ``"pearson"``, ``"cosine"``, or a function ``(clean, noisy) -> (b,)`` of maps ``(b, h, w)`` that is 1
            for equal maps and lower the less they agree.

    Returns:
        The function.

    Raises:
        ArgumentError: If it is neither.

    Example:
        >>> check_agreement("pearson").__name__
        'pearson_agreement'
    """
    if isinstance(agreement, str) and agreement in _AGREEMENTS:
        return _AGREEMENTS[agreement]
    if callable(agreement):
        return agreement
    raise ArgumentError(
        f"CAMConsistencyLoss: `agreement` must be one of {', '.join(map(repr, _AGREEMENTS))}, or a differentiable "
        f"function (clean, noisy) -> (b,) of maps (b, h, w), got {agreement!r}. Rank-biased overlap has no gradient."
    )


def pearson_agreement(clean: Tensor, noisy: Tensor) -> Tensor:
    """Correlate two maps over their cells, ``<a - mean(a), b - mean(b)> / (|a - mean(a)| |b - mean(b)|)``.

    Like the ranking of segments it does not feel a map's scale or offset. So, unlike the cosine, it cannot be raised
    by lifting both maps evenly, which would only make them flatter.

    Args:
        clean: ``(b, h, w)`` float, no map flat.
        noisy: Same shape.

    Returns:
        ``(b,)`` in [-1, 1], differentiable.

    Example:
        >>> pearson_agreement(torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[5.0, 7.0, 9.0]]]))
        tensor([1.])
    """
    first, second = (_scaled(maps) for maps in (clean, noisy))
    return _cosine(first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True))


def cosine_agreement(clean: Tensor, noisy: Tensor) -> Tensor:
    """Take the cosine of two maps seen as vectors of cells, ``<a, b> / (|a| |b|)``.

    Args:
        clean: ``(b, h, w)`` float, no map all zero.
        noisy: Same shape.

    Returns:
        ``(b,)`` in [-1, 1], in [0, 1] for maps that are nowhere negative, differentiable.

    Example:
        >>> cosine_agreement(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 4.0]]]))
        tensor([0.6000])
    """
    return _cosine(_scaled(clean), _scaled(noisy))


def find_degenerate(maps: Tensor) -> Tensor:
    """Find maps of which nothing can be said: flat, all zero or not finite.

    Args:
        maps: ``(b, h, w)`` float.

    Returns:
        ``(b,)`` bool.

    Example:
        >>> find_degenerate(torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]], [[torch.nan, 1.0]]]))
        tensor([ True, False,  True])
    """
    cells = maps.detach().flatten(1)
    span, largest = cells.amax(dim=1) - cells.amin(dim=1), cells.abs().amax(dim=1)
    # Written so that NaN and infinity come out as degenerate.
    return ~((span > _FLAT * largest) & span.isfinite())


def mean_disagreement(
    clean: Tensor, noisy: Tensor, *, counted: Tensor, agreement: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Average ``1 - agreement`` over the pairs that count.

    Args:
        clean: ``(b, h, w)`` float.
        noisy: Same shape.
        counted: ``(b,)`` bool; false for each pair with a degenerate map.
        agreement: From :func:`check_agreement`.

    Returns:
        The mean, a scalar, exactly 0 if no pair counts, with gradients of exactly 0 by maps that do not count; and the
        agreement of each pair, ``(b,)`` detached, NaN where it does not count.

    Raises:
        ArgumentError: If the agreement does not return ``(b,)``.

    Example:
        >>> maps = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
        >>> mean_disagreement(maps, maps, counted=torch.tensor([True, False]), agreement=pearson_agreement)
        (tensor(0.), tensor([1., nan]))
    """
    # Put in the place of what does not count before anything is divided: NaN times 0 in a backward pass is NaN.
    ramp = torch.linspace(0, 1, clean[0].numel(), dtype=clean.dtype, device=clean.device).reshape(clean.shape[1:])
    kept = counted.reshape(-1, *[1] * (clean.dim() - 1))
    values = agreement(torch.where(kept, clean, ramp), torch.where(kept, noisy, ramp))
    if not isinstance(values, Tensor) or values.shape != (len(clean),):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ArgumentError(
            f"CAMConsistencyLoss: `agreement` must return one number a pair, shape ({len(clean)},), got {came}. "
            "Reduce over the cells, not over the batch."
        )
    lost = torch.where(counted, 1 - values, torch.zeros_like(values)).sum() / counted.sum().clamp_min(1)
    return lost, torch.where(counted, values, torch.full_like(values, torch.nan)).detach()


def _scaled(maps: Tensor) -> Tensor:
    """Flatten, and divide by the largest value, so that squares neither vanish nor overflow."""
    cells = maps.flatten(1)
    return cells / cells.detach().abs().amax(dim=1, keepdim=True)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    norms = first.square().sum(dim=1) * second.square().sum(dim=1)
    cosine = (first * second).sum(dim=1) / norms.sqrt()
    # Rounding may leave [-1, 1]. The number is put back, its gradient is left alone.
    return cosine + (cosine.clamp(-1, 1) - cosine).detach()


_AGREEMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"pearson": pearson_agreement, "cosine": cosine_agreement}
