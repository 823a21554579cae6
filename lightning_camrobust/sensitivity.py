"""How far maps move under noise: the unbounded scores of other packages, lower = steadier.

All compare one clean map with its noisy copies and reduce over the copies n. Maps are taken as they are; divide each by
its largest value first if only its pattern counts. An image gets NaN if its clean map is all-zero, if there is NaN or
infinity in anything that belongs to it, or if there is no copy.

None of these scores asks whether a map should have moved: an explanation that never changes is perfect here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.overlap import check_maps

__all__ = [
    "average_sensitivity",
    "local_lipschitz",
    "max_sensitivity",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
]


def average_sensitivity(
    clean: Tensor, noisy: Tensor, *, relative_to: Tensor | None = None, same_class: Tensor | None = None
) -> Tensor:
    """Mean relative change of the map, ``mean_n |e - e'_n| / |e|`` with L2 norms over the cells.

    Args:
        clean: Maps of the clean images, ``(b, h, w)`` float.
        noisy: Maps of the noisy copies, ``(n, b, h, w)`` float.
        relative_to: What the change is divided by the norm of, ``(b, ...)`` float: None takes the clean map, as Captum
            does; Quantus takes the clean image.
        same_class: Whether the prediction survived each noise, ``(n, b)`` bool; an image with a changed one gets NaN.
            None: all copies count.

    Returns:
        ``(b,)`` float64, 0 or more.

    Raises:
        ArgumentError: If shapes or dtypes are wrong.

    Source:
        Yeh et al. 2019 (arXiv 1901.09392), who divide by nothing.

    Example:
        >>> clean, noisy = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[[3.0, 3.0]]], [[[0.0, 4.0]]]])
        >>> average_sensitivity(clean, noisy)  # (1/5 + 3/5) / 2
        tensor([0.4000], dtype=torch.float64)
    """
    return _reduce(_relative_changes(clean, noisy, relative_to), clean, same_class, _mean)


def max_sensitivity(
    clean: Tensor, noisy: Tensor, *, relative_to: Tensor | None = None, same_class: Tensor | None = None
) -> Tensor:
    """Largest relative change of the map, ``max_n |e - e'_n| / |e|`` with L2 norms over the cells.

    Arguments, result and errors as in :func:`average_sensitivity`.

    Source:
        Yeh et al. 2019 (arXiv 1901.09392), who divide by nothing.

    Example:
        >>> clean, noisy = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[[3.0, 3.0]]], [[[0.0, 4.0]]]])
        >>> max_sensitivity(clean, noisy)
        tensor([0.6000], dtype=torch.float64)
    """
    return _reduce(_relative_changes(clean, noisy, relative_to), clean, same_class, _largest)


def local_lipschitz(
    clean: Tensor,
    noisy: Tensor,
    images: Tensor,
    noisy_images: Tensor,
    *,
    floor: float = 1e-6,
    same_class: Tensor | None = None,
) -> Tensor:
    """Largest change of the map per change of the image, ``max_n |e - e'_n| / max(|x - x'_n|, floor)``.

    Args:
        clean: Maps of the clean images, ``(b, h, w)`` float.
        noisy: Maps of the noisy copies, ``(n, b, h, w)`` float.
        images: The clean images, ``(b, c, H, W)`` float, in any unit.
        noisy_images: The noisy copies, ``(n, b, c, H, W)`` float, in the same unit.
        floor: Least denominator, so that a copy equal to its image is not divided by 0.
        same_class: As in :func:`average_sensitivity`.

    Returns:
        ``(b,)`` float64, 0 or more, in units of the map per unit of the image.

    Raises:
        ArgumentError: If shapes or dtypes are wrong, or floor is not above 0.

    Source:
        Alvarez-Melis and Jaakkola 2018 (arXiv 1806.08049).

    Example:
        >>> clean, noisy = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[[3.0, 3.0]]]])
        >>> local_lipschitz(clean, noisy, torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 2, 2))  # 1 / |(1, 1, 1, 1)|
        tensor([0.5000], dtype=torch.float64)
    """
    _check_noisy(clean, noisy)
    _check_pair("images", images, noisy_images, noisy)
    _check_positive("floor", floor)
    ratios = _changes(clean, noisy) / _changes(images, noisy_images).clamp_min(floor)
    return _reduce(ratios, clean, same_class, _largest)


def relative_input_stability(
    clean: Tensor,
    noisy: Tensor,
    images: Tensor,
    noisy_images: Tensor,
    *,
    eps: float = 1e-6,
    floor: float = 1e-6,
    same_class: Tensor | None = None,
) -> Tensor:
    """Largest relative change of the map per relative change of the image.

    ``max_n |(e - e'_n) / e| / max(|(x - x'_n) / x|, floor)``, divided cell by cell and pixel by pixel. So one cell that
    ReLU made 0 and that becomes .01 adds ``.01 / eps = 10^4``: the value often tells how many such cells there are.

    Args:
        clean: Maps of the clean images, ``(b, h, w)`` float.
        noisy: Maps of the noisy copies, ``(n, b, h, w)`` float.
        images: The clean images, ``(b, c, H, W)`` float, as the network sees them.
        noisy_images: The noisy copies, ``(n, b, c, H, W)`` float.
        eps: Stands for zeros among the divisors e and x.
        floor: Least denominator.
        same_class: As in :func:`average_sensitivity`.

    Returns:
        ``(b,)`` float64, 0 or more, no unit.

    Raises:
        ArgumentError: If shapes or dtypes are wrong, or eps or floor is not above 0.

    Source:
        Agarwal et al. 2022 (arXiv 2203.06877).

    Example:
        >>> clean, noisy = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[[2.0, 3.0]]]])
        >>> images = torch.ones(1, 1, 2, 2)
        >>> relative_input_stability(clean, noisy, images, 1.5 * images[None])  # 1/4 / |(1/2, 1/2, 1/2, 1/2)|
        tensor([0.2500], dtype=torch.float64)
    """
    _check_noisy(clean, noisy)
    _check_pair("images", images, noisy_images, noisy)
    _check_positive("eps", eps)
    _check_positive("floor", floor)
    caused = _changes(images, noisy_images, eps=eps).clamp_min(floor)
    return _reduce(_changes(clean, noisy, eps=eps) / caused, clean, same_class, _largest)


def relative_output_stability(
    clean: Tensor,
    noisy: Tensor,
    logits: Tensor,
    noisy_logits: Tensor,
    *,
    eps: float = 1e-6,
    floor: float = 1e-6,
    same_class: Tensor | None = None,
) -> Tensor:
    """Largest relative change of the map per change of the logits.

    ``max_n |(e - e'_n) / e| / max(|y - y'_n|, floor)``, the map divided cell by cell; see the caution in
    :func:`relative_input_stability`, whose other arguments, result, errors and source it shares.

    Args:
        clean: Maps of the clean images, ``(b, h, w)`` float.
        noisy: Maps of the noisy copies, ``(n, b, h, w)`` float.
        logits: Logits of the clean images, ``(b, k)`` float.
        noisy_logits: Logits of the noisy copies, ``(n, b, k)`` float.
        eps: Stands for zeros among the divisors e.
        floor: Least denominator.
        same_class: As in :func:`average_sensitivity`.

    Example:
        >>> clean, noisy = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[[2.0, 3.0]]]])
        >>> relative_output_stability(clean, noisy, torch.zeros(1, 2), torch.tensor([[[3.0, 4.0]]]))  # 1/4 / 5
        tensor([0.0500], dtype=torch.float64)
    """
    _check_noisy(clean, noisy)
    _check_pair("logits", logits, noisy_logits, noisy)
    _check_positive("eps", eps)
    _check_positive("floor", floor)
    caused = _changes(logits, noisy_logits).clamp_min(floor)
    return _reduce(_changes(clean, noisy, eps=eps) / caused, clean, same_class, _largest)


def relative_representation_stability(
    clean: Tensor,
    noisy: Tensor,
    representations: Tensor,
    noisy_representations: Tensor,
    *,
    eps: float = 1e-6,
    floor: float = 1e-6,
    same_class: Tensor | None = None,
) -> Tensor:
    """Largest relative change of the map per relative change of what a layer gives.

    ``max_n |(e - e'_n) / e| / max(|(L - L'_n) / L|, floor)``, divided cell by cell and unit by unit; see the caution in
    :func:`relative_input_stability`, whose other arguments, result, errors and source it shares.

    Args:
        clean: Maps of the clean images, ``(b, h, w)`` float.
        noisy: Maps of the noisy copies, ``(n, b, h, w)`` float.
        representations: Output of a layer for the clean images, ``(b, ...)`` float; join several layers by
            flattening and concatenating them.
        noisy_representations: The same for the noisy copies, ``(n, b, ...)`` float.
        eps: Stands for zeros among the divisors e and L.
        floor: Least denominator.
        same_class: As in :func:`average_sensitivity`.

    Example:
        >>> clean, noisy = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[[2.0, 3.0]]]])
        >>> layer, noisy_layer = torch.tensor([[2.0, 4.0]]), torch.tensor([[[2.0, 2.0]]])
        >>> relative_representation_stability(clean, noisy, layer, noisy_layer)  # 1/4 / 1/2
        tensor([0.5000], dtype=torch.float64)
    """
    _check_noisy(clean, noisy)
    _check_pair("representations", representations, noisy_representations, noisy)
    _check_positive("eps", eps)
    _check_positive("floor", floor)
    caused = _changes(representations, noisy_representations, eps=eps).clamp_min(floor)
    return _reduce(_changes(clean, noisy, eps=eps) / caused, clean, same_class, _largest)


def _relative_changes(clean: Tensor, noisy: Tensor, relative_to: Tensor | None) -> Tensor:
    _check_noisy(clean, noisy)
    if relative_to is not None and (len(relative_to) != len(clean) or not relative_to.is_floating_point()):
        raise ArgumentError(
            f"`relative_to` must be float ({len(clean)}, ...), one row a map, such as the clean images; "
            f"got {relative_to.dtype} {tuple(relative_to.shape)}."
        )
    whole = clean if relative_to is None else relative_to
    norm = _changes(whole, torch.zeros_like(whole)[None])
    return _changes(clean, noisy) / torch.where(norm > 0, norm, torch.nan)


def _changes(clean: Tensor, noisy: Tensor, *, eps: float | None = None) -> Tensor:
    """L2 norms of what noise changed, ``(n, b)`` float64; relative to the clean entries if eps is given for zeros."""
    before = clean.double().flatten(1)
    divisor = torch.ones_like(before) if eps is None else torch.where(before == 0, eps, before)
    # One copy at a time in float64: all copies of all images at once can be large.
    rows = [((before - copy.double().flatten(1)) / divisor).square().sum(dim=1).sqrt() for copy in noisy]
    norms = torch.stack(rows) if rows else before.new_empty(0, len(before))
    # An infinite change in a denominator would make a perfect 0.
    return torch.where(norms.isfinite(), norms, torch.nan)


def _largest(ratios: Tensor) -> Tensor:
    return ratios.amax(dim=0)


def _mean(ratios: Tensor) -> Tensor:
    return ratios.mean(dim=0)


def _reduce(
    ratios: Tensor, clean: Tensor, same_class: Tensor | None, over_copies: Callable[[Tensor], Tensor]
) -> Tensor:
    """Reduce ``(n, b)`` values of all copies; NaN where they do not tell anything."""
    if same_class is not None and (same_class.shape != ratios.shape or same_class.dtype != torch.bool):
        raise ArgumentError(
            f"`same_class` must be bool {tuple(ratios.shape)}, one entry for each copy and image; "
            f"got {same_class.dtype} {tuple(same_class.shape)}."
        )
    if not len(ratios):
        return torch.full((len(clean),), torch.nan, dtype=torch.float64, device=clean.device)
    defined = (clean != 0).flatten(1).any(dim=1)
    if same_class is not None:
        defined &= same_class.all(dim=0)
    return torch.where(defined, over_copies(ratios), torch.nan)


def _check_noisy(clean: Tensor, noisy: Tensor) -> None:
    if noisy.dim() != 4 or noisy.shape[1:] != clean.shape:
        raise ArgumentError(
            "`noisy` must be maps (n, b, h, w), n copies of each map of `clean` (b, h, w); "
            f"got {tuple(noisy.shape)} for {tuple(clean.shape)}. One copy is noisy[None]."
        )
    check_maps(clean, noisy[0] if len(noisy) else clean)


def _check_pair(name: str, clean: Tensor, noisy: Tensor, noisy_maps: Tensor) -> None:
    """Refuse a cause of other shape than its noisy copies, or of other counts than the maps."""
    if noisy.dim() < 2 or noisy.shape[1:] != clean.shape or noisy.shape[:2] != noisy_maps.shape[:2]:
        raise ArgumentError(
            f"`noisy_{name}` must be (n, b, ...), copies of `{name}` (b, ...), with n and b of the noisy maps; got "
            f"{tuple(noisy.shape)} for {tuple(clean.shape)} and maps {tuple(noisy_maps.shape)}."
        )


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ArgumentError(f"`{name}` must be a finite number above 0, got {value!r}. Its default is 1e-6.")
