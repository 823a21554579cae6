"""Compare the maps of clean and noisy images, segment by segment."""

from typing import cast

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pooling import build_pooling, pool_maps, rankable_maps, snap_ties
from lightning_camrobust.types import Comparison, MapSimilarity, Similarity


def score_segments(maps: Tensor, operator: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Score the segments of each map, and tell which maps can be ranked.

    Args:
        maps: ``(b, h, w)``, or ``(b, ..., h, w)`` for several maps of each image.
        operator: ``(b, s, h*w)`` from :func:`~lightning_camrobust.pooling.build_pooling`.
        present: ``(b, s)`` bool, the segments that exist.

    Returns:
        Rank scores ``(b, s)`` or ``(b, ..., s)`` float64, and rankable maps ``(b,)`` or ``(b, ...)`` bool.

    Example:
        >>> operator, present = build_pooling(torch.tensor([[[0, 0], [1, 1]]]), map_size=(2, 2))
        >>> score_segments(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), operator, present)
        (tensor([[666667.,      0.]], dtype=torch.float64), tensor([True]))
    """
    return snap_ties(pool_maps(maps, operator), maps), rankable_maps(maps, present)


def compare_maps(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    similarity: Similarity | MapSimilarity,
) -> Comparison:
    """Compare ready maps, from whatever library.

    Args:
        clean_maps: ``(b, h, w)`` float, any scale.
        noisy_maps: The same shape.
        clean_classes: Predicted class of the clean images, ``(b,)`` integers.
        noisy_classes: Predicted class of the noisy images, ``(b,)`` integers.
        segments: Labels ``(b, H, W)`` of the clean images, at least as large as the maps; negative labels are ignored.
        similarity: How two score rows, or two maps, are compared.

    Returns:
        The comparison, fields ``(b,)``.

    Raises:
        ArgumentError: If shapes or types do not fit.

    Example:
        >>> from lightning_camrobust.compare.rbo import RankBiasedOverlap
        >>> maps, classes = torch.rand(1, 2, 2), torch.tensor([3])
        >>> segments = torch.tensor([[[0, 0], [1, 1]]])
        >>> compare_maps(maps, maps, classes, classes, segments, similarity=RankBiasedOverlap()).similarity
        tensor([1.], dtype=torch.float64)
    """
    _check_maps(clean_maps, noisy_maps)
    batch = len(clean_maps)
    for name, classes in (("clean_classes", clean_classes), ("noisy_classes", noisy_classes)):
        if classes.shape != (batch,) or classes.is_floating_point():
            raise ArgumentError(
                f"`{name}` must be ({batch},) integers, one predicted class a map; "
                f"got {classes.dtype} {tuple(classes.shape)}."
            )
    if segments.dim() != 3 or len(segments) != batch:
        raise ArgumentError(
            f"`segments` must be labels ({batch}, H, W), one picture a map; got {tuple(segments.shape)}. "
            "segment_images() makes them from the clean images."
        )
    operator, present = build_pooling(segments, map_size=(int(clean_maps.shape[1]), int(clean_maps.shape[2])))
    clean, clean_ok = score_segments(clean_maps, operator, present)
    noisy, noisy_ok = score_segments(noisy_maps, operator, present)
    if getattr(similarity, "of_maps", False):
        values = cast("MapSimilarity", similarity)(clean_maps, noisy_maps)
    else:
        values = cast("Similarity", similarity)(clean, noisy, present=present)
    return pair_up(values, same_class=clean_classes == noisy_classes, rankable=clean_ok & noisy_ok)


def pair_up(values: Tensor, *, same_class: Tensor, rankable: Tensor) -> Comparison:
    """Put a comparison together; what cannot be ranked gets NaN, never a number.

    Args:
        values: Similarity of each pair, float64 of any shape.
        same_class: Whether the prediction survived, bool of the same shape.
        rankable: Whether both maps can be ranked, bool of the same shape.

    Returns:
        The comparison.

    Example:
        >>> yes = torch.tensor([True, True])
        >>> pair_up(torch.tensor([0.5, 1.0]), same_class=yes, rankable=torch.tensor([True, False])).similarity
        tensor([0.5000,    nan])
    """
    # A similarity may be undefined where maps can be ranked all the same, such as a correlation of tied scores.
    rankable = rankable & ~values.isnan()
    return Comparison(
        similarity=torch.where(rankable, values, torch.full_like(values, torch.nan)),
        same_class=same_class,
        rankable=rankable,
    )


def _check_maps(clean_maps: Tensor, noisy_maps: Tensor) -> None:
    for name, maps in (("clean_maps", clean_maps), ("noisy_maps", noisy_maps)):
        if not isinstance(maps, Tensor) or maps.dim() != 3 or not maps.is_floating_point():
            came = f"{maps.dtype} {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            raise ArgumentError(
                f"`{name}` must be float maps (b, h, w), got {came}. Drop a channel axis with maps[:, 0]."
            )
    if clean_maps.shape != noisy_maps.shape:
        raise ArgumentError(
            f"`clean_maps` and `noisy_maps` must have equal shape (b, h, w), got {tuple(clean_maps.shape)} and "
            f"{tuple(noisy_maps.shape)}. Explain clean and noisy images with the same layer."
        )
