"""One way of turning two maps into one number: similarity, segments, what stands for a segment, and which class."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.types import MapSimilarity, Segmenter, Similarity

Reduction = Literal["mean", "sum", "max"]
TargetRule = Literal["predicted", "original"]


@dataclass(frozen=True)
class Reading:
    """How maps are read.

    Attributes:
        similarity: How two score rows, or two maps, are compared.
        segmenter: How the clean image is cut.
        reduction: What stands for a segment: the mean, sum or maximum of the enlarged map inside it.
        target: Which class a noisy image's map explains: the one predicted there, or the one of the clean image. Where
            a plan names the class itself (a number, a function), ``"predicted"`` stands for that one.

    Example:
        >>> make_reading("spearman", "grid", reduction="max").reduction
        'max'
    """

    similarity: Similarity | MapSimilarity
    segmenter: Segmenter
    reduction: Reduction = "mean"
    target: TargetRule = "predicted"

    def __post_init__(self) -> None:
        for name, kinds in (("reduction", Reduction), ("target", TargetRule)):
            if getattr(self, name) not in get_args(kinds):
                allowed = ", ".join(map(repr, get_args(kinds)))
                raise ArgumentError(f"Reading: `{name}` must be one of {allowed}; got {getattr(self, name)!r}.")

    def same_segments(self, other: "Reading") -> bool:
        """Whether both score segments alike, so that the scores of one serve the other."""
        return bool(self.segmenter == other.segmenter) and self.reduction == other.reduction


def make_reading(
    similarity: Any = "rbo",
    segmenter: Any = "quickshift",
    *,
    reduction: Reduction = "mean",
    target: TargetRule = "predicted",
) -> Reading:
    """Resolve names.

    Args:
        similarity: Name or instance.
        segmenter: Name or instance.
        reduction: ``"mean"``, ``"sum"`` or ``"max"``. Sums say much about the size of a segment and little about the
            map: unrelated maps look alike, because sizes are the same in both.
        target: ``"predicted"`` or ``"original"``.

    Returns:
        The reading.

    Raises:
        ArgumentError: If a name is unknown.

    Example:
        >>> make_reading().similarity
        RankBiasedOverlap(p=0.2, ties='b')
    """
    return Reading(resolve_member("compare", similarity), resolve_member("segment", segmenter), reduction, target)
