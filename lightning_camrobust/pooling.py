"""From maps to one score a segment, without ever upsampling a map."""

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

# Scores closer than this share of the map's largest value are ties, so that float dust does not make an order.
TIE_TOLERANCE = 1e-6


def build_pooling(segments: Tensor, *, map_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Build the operator that takes a map to the means of its upsampled version inside each segment.

    Bilinear upsampling (``align_corners=False``) and taking a mean are both linear, so their product is one small
    matrix an image, and a map is pooled by one multiplication with it.

    Args:
        segments: Labels ``(b, H, W)`` integers, at least as large as the map; negative labels belong to no segment.
        map_size: ``(h, w)`` of the maps.

    Returns:
        The operator ``(b, s, h*w)`` float64, and the mask ``(b, s)`` bool of the segments that exist in an image.

    Raises:
        ArgumentError: If the labels are unusable or smaller than the map.

    Example:
        >>> operator, present = build_pooling(torch.tensor([[[0, 0], [1, 1]]]), map_size=(2, 2))
        >>> operator[0]
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    _check_segments(segments, map_size)
    if not len(segments):
        empty = torch.zeros(0, 1, map_size[0] * map_size[1], dtype=torch.float64, device=segments.device)
        return empty, torch.zeros(0, 1, dtype=torch.bool, device=segments.device)
    rows = _upsampling(map_size[0], segments.shape[1], like=segments)
    columns = _upsampling(map_size[1], segments.shape[2], like=segments)
    count = max(int(segments.max()) + 1, 1)
    ids = torch.arange(count, device=segments.device)
    operators, sizes = [], []
    # One image at a time, and always in the same place: the indicator of all segments is large.
    indicator = torch.empty(count, *segments.shape[1:], dtype=torch.float64, device=segments.device)
    for labels in segments:
        torch.eq(labels, ids[:, None, None], out=indicator)  # (s, H, W)
        sizes.append(indicator.sum(dim=(1, 2)))
        operators.append(rows.T @ (indicator @ columns))  # (s, h, w)
    size = torch.stack(sizes)
    operator = torch.stack(operators).flatten(2) / size.clamp_min(1)[..., None]
    return operator, size > 0


def pool_maps(maps: Tensor, operator: Tensor) -> Tensor:
    """Score the segments of each image by the mean of the map inside them.

    Args:
        maps: ``(b, h, w)`` float, or ``(b, ..., h, w)`` for several maps of each image.
        operator: ``(b, s, h*w)`` from :func:`build_pooling`.

    Returns:
        Scores ``(b, s)`` or ``(b, ..., s)`` float64, in the map's unit.

    Example:
        >>> operator, _ = build_pooling(torch.tensor([[[0, 0], [1, 1]]]), map_size=(2, 2))
        >>> pool_maps(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), operator)
        tensor([[2., 0.]], dtype=torch.float64)
    """
    return torch.einsum("b...p,bsp->b...s", maps.double().flatten(-2), operator)


def snap_ties(scores: Tensor, maps: Tensor) -> Tensor:
    """Express scores in whole millionths of the map's largest absolute value, so that float dust makes no order.

    Args:
        scores: ``(b, s)`` or ``(b, ..., s)`` float64.
        maps: ``(b, h, w)`` or ``(b, ..., h, w)``, what they were pooled from.

    Returns:
        float64 of the same shape, whole numbers; only their order has a meaning.

    Example:
        >>> snap_ties(torch.tensor([[1.0, 1.0 + 1e-9, 0.5]]).double(), torch.ones(1, 2, 2))
        tensor([[1000000., 1000000.,  500000.]], dtype=torch.float64)
    """
    unit = maps.double().flatten(-2).abs().amax(dim=-1, keepdim=True) * TIE_TOLERANCE
    return torch.where(unit > 0, scores / unit, scores).round()


def rankable_maps(maps: Tensor, present: Tensor) -> Tensor:
    """Tell which maps can be ranked at all.

    Args:
        maps: ``(b, h, w)`` or ``(b, ..., h, w)`` float.
        present: ``(b, s)`` bool, the segments that exist.

    Returns:
        ``(b,)`` or ``(b, ...)`` bool; false for maps with NaN or infinity, for flat ones (all-zero included; their
        range is at most 1e-6 of their largest absolute value), and for images with fewer than two segments.

    Example:
        >>> maps = torch.stack([torch.zeros(2, 2), torch.eye(2)])
        >>> rankable_maps(maps, torch.ones(2, 3, dtype=torch.bool))
        tensor([False,  True])
    """
    flat = maps.double().flatten(-2)
    low, high = flat.aminmax(dim=-1)
    # Subtraction turns infinity and NaN into something that is not finite, so one look at the ends is enough.
    uneven = (high - low).isfinite() & (high - low > TIE_TOLERANCE * torch.maximum(high, -low))
    enough = present.sum(dim=1) >= 2
    return uneven & enough.reshape(-1, *[1] * (uneven.dim() - 1))


def _upsampling(size: int, target: int, *, like: Tensor) -> Tensor:
    """Matrix ``(target, size)`` of one-dimensional linear interpolation with half-pixel centres."""
    centre = (torch.arange(target, device=like.device, dtype=torch.float64) + 0.5) * size / target - 0.5
    centre = centre.clamp(0, size - 1)
    distance = (centre[:, None] - torch.arange(size, device=like.device)).abs()
    return (1 - distance).clamp_min(0)


def _check_segments(segments: Tensor, map_size: tuple[int, int]) -> None:
    if segments.dim() != 3 or segments.is_floating_point() or segments.dtype == torch.bool:
        raise ArgumentError(
            f"`segments` must be integer labels (b, H, W), got {segments.dtype} {tuple(segments.shape)}. "
            "segment_images() makes them."
        )
    height, width = segments.shape[1:]
    if height < map_size[0] or width < map_size[1]:
        raise ArgumentError(
            f"`segments` must be at least as large as the maps, got segments {(height, width)} for maps {map_size}. "
            "Segment the image at its own size."
        )
    if segments.numel() and int(segments.max()) >= height * width:
        raise ArgumentError(
            f"`segments` must be numbered from 0 without large gaps, got label {int(segments.max())} in pictures of "
            f"{height * width} pixels. Renumber each picture with torch.unique(labels, return_inverse=True)."
        )
