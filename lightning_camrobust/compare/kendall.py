"""Kendall's rank correlation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import check_rows, unranked_rows


@dataclass(frozen=True)
class Kendall:
    """Rank correlation tau-b, moved to [0, 1]: ``(1 + tau) / 2``, the share of pairs in equal order if nothing ties.

    Attributes:
        lowest: The least value it can take.
        of_ranks: Only the order of the scores counts.

    Example:
        >>> Kendall()
        Kendall()
    """

    lowest: ClassVar[float] = 0.0
    of_ranks: ClassVar[bool] = True

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1], NaN where :func:`kendall_tau` is undefined."""
        return (1 + kendall_tau(clean, noisy, present=present)) / 2


def kendall_tau(clean: Tensor, noisy: Tensor, *, present: Tensor | None = None) -> Tensor:
    """Count the pairs of segments that two rows of scores put in the same order, less those in opposite order.

    Variant b: the difference is divided by the geometric mean of the pairs that do not tie in either row.

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
        Kendall 1945; the same number as ``scipy.stats.kendalltau``.

    Example:
        >>> clean, noisy = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])
        >>> kendall_tau(clean, noisy)  # two pairs of three kept their order, one did not
        tensor([0.3333], dtype=torch.float64)
    """
    present = check_rows(clean, noisy, present)
    first, second = (_pair_orders(row, present) for row in (clean, noisy))  # (b, s, s)
    agreement = torch.einsum("bij,bij->b", first, second)
    untied = first.square().sum(dim=(1, 2)) * second.square().sum(dim=(1, 2))
    tau = (agreement / untied.sqrt()).clamp(-1, 1)
    return torch.where(unranked_rows(clean, noisy, present), torch.nan, tau)


def _pair_orders(scores: Tensor, present: Tensor) -> Tensor:
    """1 where segment i scores above segment j, -1 where below, 0 for ties and absent ones; ``(b, i, j)`` float64."""
    # Not the sign of a difference: the difference of two infinities is NaN.
    above = (scores[:, :, None] > scores[:, None, :]) & present[:, :, None] & present[:, None, :]
    return above.double() - above.transpose(1, 2).double()


EXAMPLES = (Kendall(),)
