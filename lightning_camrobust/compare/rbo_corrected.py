"""Rank-biased overlap, corrected for chance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import Ties, check_overlap_settings, check_rows, rank_biased_overlap, unranked_rows


@dataclass(frozen=True)
class CorrectedRankBiasedOverlap:
    """Rank-biased overlap on a scale where unrelated rankings score 0 on average: ``(RBO - b) / (1 - b)``.

    b is the expected overlap of two independent random rankings of the image's m segments, without ties,

        b = (1 - p^m) / (m (1 - p)).

    It depends on m, so the correction makes images with few and with many segments comparable. With ties, only the
    tie rule ``"a"`` keeps the mean of unrelated rankings at exactly 0.

    Attributes:
        p: Patience in (0, 1): the weight of depth d falls as ``p ** (d - 1)``. At 0.2 the top segment carries 89%.
        ties: How equal scores are ranked, see :func:`~lightning_camrobust.overlap.rank_biased_overlap`.
        lowest: The least value it can take, that of two segments in opposite order.
        of_ranks: Only the order of the scores counts.

    Raises:
        ArgumentError: If p or ties are wrong.

    Source:
        Own derivation: two random tops of depth d share d/m of their members on average. The form of the correction is
        Cohen's 1960.

    Example:
        >>> row = torch.tensor([[2.0, 1.0]])
        >>> CorrectedRankBiasedOverlap(p=0.5)(row, row.flip(1), present=row > 0)  # (0.5 - 0.75) / (1 - 0.75)
        tensor([-1.], dtype=torch.float64)
    """

    p: float = 0.2
    ties: Ties = "b"
    lowest: ClassVar[float] = -1.0
    of_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_overlap_settings(self.p, self.ties)

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [-1, 1]; NaN where a row has no order (NaN score, one segment, all equal)."""
        present = check_rows(clean, noisy, present)
        overlap = rank_biased_overlap(clean, noisy, self.p, ties=self.ties, present=present)
        length = present.sum(dim=1).double()
        chance = (1 - self.p**length) / (length * (1 - self.p))
        corrected = ((overlap - chance) / (1 - chance)).clamp(-1, 1)
        return torch.where(unranked_rows(clean, noisy, present), torch.nan, corrected)


EXAMPLES = (CorrectedRankBiasedOverlap(), CorrectedRankBiasedOverlap(p=0.9, ties="a"))
