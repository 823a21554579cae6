"""Consistency, responsiveness and robustness: what is summed up, and what the sums mean."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pooling import build_pooling, pool_maps, rankable_maps, snap_ties
from lightning_camrobust.types import Comparison, Similarity

Undefined = Literal["nan", "vacuous"]


class SegmentPooling:
    """The segments of a batch, ready to score maps of any size.

    Args:
        segments: Labels ``(b, H, W)`` integers.

    Example:
        >>> pooling = SegmentPooling(torch.tensor([[[0, 0], [1, 1]]]))
        >>> scores, present, rankable = pooling.score(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]))
        >>> scores, rankable
        (tensor([[666667.,      0.]], dtype=torch.float64), tensor([True]))
    """

    def __init__(self, segments: Tensor) -> None:
        self.segments = segments
        self._operators: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def score(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rank scores ``(b, s)`` float64, existing segments ``(b, s)`` bool and rankable maps ``(b,)`` bool."""
        size = (int(maps.shape[1]), int(maps.shape[2]))
        if size not in self._operators:
            self._operators[size] = build_pooling(self.segments, map_size=size)
        operator, present = self._operators[size]
        return snap_ties(pool_maps(maps, operator), maps), present, rankable_maps(maps, present)


@dataclass(frozen=True)
class StabilitySums:
    """Sums over pairs of a clean and a noisy map, from which all scores follow; they simply add up.

    Every field is a float64 tensor of one common shape: one element a cell (say a perturbation at a severity).

    Attributes:
        same_similarity: Sum of the similarity over the pairs S whose prediction survived.
        same_count: Their number.
        changed_dissimilarity: Sum of 1 - similarity over the pairs D whose prediction changed.
        changed_count: Their number.
        degenerate_count: Pairs left out of both, because a map could not be ranked.

    Example:
        >>> sums = StabilitySums(*(torch.tensor(each) for each in (1.5, 2.0, 0.4, 1.0, 0.0)))
        >>> round(float(sums.robustness()), 6)
        0.3
    """

    same_similarity: Tensor
    same_count: Tensor
    changed_dissimilarity: Tensor
    changed_count: Tensor
    degenerate_count: Tensor

    def consistency(self, undefined: Undefined = "nan") -> Tensor:
        """Mean similarity over S, in [0, 1]."""
        return self._mean(self.same_similarity, self.same_count, undefined)

    def responsiveness(self, undefined: Undefined = "nan") -> Tensor:
        """Mean dissimilarity over D, in [0, 1]."""
        return self._mean(self.changed_dissimilarity, self.changed_count, undefined)

    def robustness(self, undefined: Undefined = "nan") -> Tensor:
        """Consistency times responsiveness, in [0, 1]."""
        return self.consistency(undefined) * self.responsiveness(undefined)

    def flip_rate(self) -> Tensor:
        """Share of the scored pairs whose prediction changed; NaN without a scored pair."""
        return self.changed_count / (self.same_count + self.changed_count)

    def degenerate_rate(self) -> Tensor:
        """Share of all pairs that could not be scored; NaN without a pair."""
        return self.degenerate_count / (self.same_count + self.changed_count + self.degenerate_count)

    def pooled(self) -> "StabilitySums":
        """Add all cells up to one."""
        return StabilitySums(*(getattr(self, field.name).sum() for field in fields(self)))

    def _mean(self, total: Tensor, count: Tensor, undefined: Undefined) -> Tensor:
        # "vacuous" is about one empty set beside a filled one; without a single scored pair nothing is known at all.
        scored = self.same_count + self.changed_count > 0
        empty = torch.where(scored, 1.0 if check_undefined(undefined) == "vacuous" else torch.nan, torch.nan)
        return torch.where(count > 0, total / count.clamp_min(1), empty.to(total.dtype))


def check_undefined(undefined: str) -> str:
    """Check the rule for empty sets.

    Args:
        undefined: ``"nan"`` (an empty set leaves the score undefined) or ``"vacuous"`` (it counts as 1).

    Returns:
        The rule.

    Raises:
        ArgumentError: If it is another word.

    Example:
        >>> check_undefined("nan")
        'nan'
    """
    if undefined not in ("nan", "vacuous"):
        raise ArgumentError(f"`undefined` must be 'nan' or 'vacuous', got {undefined!r}.")
    return undefined


def sum_up(comparison: Comparison) -> StabilitySums:
    """Sum comparisons over the images of a batch.

    Args:
        comparison: Fields ``(b,)``, or ``(b, cells)`` to sum several cells at once.

    Returns:
        Sums without the batch axis.

    Example:
        >>> yes, no = torch.tensor([True]), torch.tensor([False])
        >>> sum_up(Comparison(torch.tensor([0.25]), same_class=no, rankable=yes)).changed_dissimilarity
        tensor(0.7500, dtype=torch.float64)
    """
    similarity = comparison.similarity.double()
    same = comparison.rankable & comparison.same_class
    changed = comparison.rankable & ~comparison.same_class
    nothing = torch.zeros_like(similarity)
    return StabilitySums(
        same_similarity=torch.where(same, similarity, nothing).sum(dim=0),
        same_count=same.sum(dim=0).double(),
        changed_dissimilarity=torch.where(changed, 1 - similarity, nothing).sum(dim=0),
        changed_count=changed.sum(dim=0).double(),
        degenerate_count=(~comparison.rankable).sum(dim=0).double(),
    )


def compare_maps(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    similarity: Similarity,
) -> Comparison:
    """Compare ready maps, from whatever library.

    Args:
        clean_maps: ``(b, h, w)`` float, any scale.
        noisy_maps: The same shape.
        clean_classes: Predicted class of the clean images, ``(b,)`` integers.
        noisy_classes: Predicted class of the noisy images, ``(b,)`` integers.
        segments: Labels ``(b, H, W)`` of the clean images, at least as large as the maps; negative labels are ignored.
        similarity: How two score rows are compared.

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
    pooling = SegmentPooling(segments)
    clean, present, clean_ok = pooling.score(clean_maps)
    noisy, _, noisy_ok = pooling.score(noisy_maps)
    return compare_scores(
        clean,
        noisy,
        present,
        similarity=similarity,
        same_class=clean_classes == noisy_classes,
        rankable=clean_ok & noisy_ok,
    )


def compare_scores(
    clean: Tensor, noisy: Tensor, present: Tensor, *, similarity: Similarity, same_class: Tensor, rankable: Tensor
) -> Comparison:
    """Compare segment scores; pairs that cannot be ranked get NaN, never a number.

    Args:
        clean: ``(b, s)`` float64.
        noisy: ``(b, s)`` float64.
        present: ``(b, s)`` bool.
        similarity: How two score rows are compared.
        same_class: ``(b,)`` bool.
        rankable: ``(b,)`` bool.

    Returns:
        The comparison.

    Example:
        >>> from lightning_camrobust.compare.rbo import RankBiasedOverlap
        >>> row, yes = torch.tensor([[1.0, 2.0]]), torch.tensor([True])
        >>> compare_scores(row, row, row > 0, similarity=RankBiasedOverlap(), same_class=yes, rankable=~yes).similarity
        tensor([nan], dtype=torch.float64)
    """
    values = similarity(clean, noisy, present=present)
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
