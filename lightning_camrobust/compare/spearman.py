"""Spearman's rank correlation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import check_rows, tied_ranks, unranked_rows


@dataclass(frozen=True)
class Spearman:
    """Rank correlation, moved to [0, 1]: ``(1 + rho) / 2``. All ranks weigh the same; unrelated rankings score 0.5.

    Attributes:
        lowest: The least value it can take.
        of_ranks: Only the order of the scores counts.

    Example:
        >>> Spearman()
        Spearman()
    """

    lowest: ClassVar[float] = 0.0
    of_ranks: ClassVar[bool] = True

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1], NaN where :func:`spearman_correlation` is undefined."""
        return (1 + spearman_correlation(clean, noisy, present=present)) / 2


def spearman_correlation(clean: Tensor, noisy: Tensor, *, present: Tensor | None = None) -> Tensor:
    """Correlate the ranks that two rows of scores give to the same segments; equal scores take their mean rank.

    Args:
        clean: Scores ``(b, s)``, any real dtype, no unit (only their order counts).
        noisy: Scores to compare with, same shape.
        present: ``(b, s)`` bool, the segments that exist; None if all do.

    Returns:
        ``(b,)`` float64 in [-1, 1]; NaN for a row with a NaN score, with fewer than two segments, or whose scores are
        all equal.

    Raises:
        ArgumentError: If shapes are wrong.

    Source:
        Spearman 1904; the same number as ``scipy.stats.spearmanr``.

    Example:
        >>> clean, noisy = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])
        >>> spearman_correlation(clean, noisy)  # 1 - 6 * (0 + 1 + 1) / (3 * 8)
        tensor([0.5000], dtype=torch.float64)
    """
    present = check_rows(clean, noisy, present)
    middle = (present.sum(dim=1, keepdim=True) + 1) / 2
    centred = []
    for row in (clean, noisy):
        first_rank, group = tied_ranks(row, present)
        # Whole and half numbers, so that the sums below are exact.
        centred.append((first_rank + (group - 1) / 2 - middle) * present)
    variances = centred[0].square().sum(dim=1) * centred[1].square().sum(dim=1)
    rho = ((centred[0] * centred[1]).sum(dim=1) / variances.sqrt()).clamp(-1, 1)
    return torch.where(unranked_rows(clean, noisy, present), torch.nan, rho)


EXAMPLES = (Spearman(),)
