"""Rank-biased overlap."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_camrobust.overlap import Ties, check_overlap_settings, rank_biased_overlap

__all__ = ["EXAMPLES", "RankBiasedOverlap", "Ties", "rank_biased_overlap"]


@dataclass(frozen=True)
class RankBiasedOverlap:
    """Similarity of two rankings that cares most for the top.

    Attributes:
        p: Patience in (0, 1): the weight of depth d falls as ``p ** (d - 1)``. At 0.2 the top segment carries 89%.
        ties: How equal scores are ranked, see :func:`rank_biased_overlap`.
        lowest: The least value it can take.
        of_ranks: Only the order of the scores counts.

    Example:
        >>> RankBiasedOverlap()
        RankBiasedOverlap(p=0.2, ties='b')
    """

    p: float = 0.2
    ties: Ties = "b"
    lowest: ClassVar[float] = 0.0
    of_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_overlap_settings(self.p, self.ties)

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1]."""
        return rank_biased_overlap(clean, noisy, self.p, ties=self.ties, present=present)


EXAMPLES = (RankBiasedOverlap(), RankBiasedOverlap(p=0.9, ties="a"))
