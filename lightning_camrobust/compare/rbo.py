"""Rank-biased overlap."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

Ties = Literal["b", "a", "w", "stable"]


@dataclass(frozen=True)
class RankBiasedOverlap:
    """Similarity of two rankings that cares most for the top.

    Attributes:
        p: Patience in (0, 1): the weight of depth d falls as ``p ** (d - 1)``. At 0.2 the top segment carries 89%.
        ties: How equal scores are ranked, see :func:`rank_biased_overlap`.

    Example:
        >>> RankBiasedOverlap()
        RankBiasedOverlap(p=0.2, ties='b')
    """

    p: float = 0.2
    ties: Ties = "b"

    def __post_init__(self) -> None:
        _check_settings(self.p, self.ties)

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1]."""
        return rank_biased_overlap(clean, noisy, self.p, ties=self.ties, present=present)


def rank_biased_overlap(
    clean: Tensor, noisy: Tensor, p: float = 0.2, *, ties: Ties = "b", present: Tensor | None = None
) -> Tensor:
    """Compare the rankings that two rows of scores put the same segments in, largest score first.

    Both rankings hold all m segments of the image, so the overlap is known at every depth and

        RBO = (1 - p) * sum over d = 1..m of p^(d-1) A_d  +  p^m,

    where the agreement A_d is the share of segments common to both tops of depth d. Independent random rankings score
    ``(1 - p^m) / (m (1 - p))``, not 0.

    Args:
        clean: Scores ``(b, s)``, any real dtype, no unit (only their order counts).
        noisy: Scores to compare with, same shape.
        p: Patience, strictly between 0 and 1.
        ties: ``"b"`` (default): a tie is an unknown order, and a ranking is fully similar to itself; ``"a"``: the
            expected RBO over random tie breaking, unbiased for unrelated rankings; ``"w"``: a tie is true equality, all
            its members stand at its first rank; ``"stable"``: broken by segment number, as a plain sort would.
        present: ``(b, s)`` bool, the segments that exist; None if all do.

    Returns:
        ``(b,)`` float64 in [0, 1]; NaN for a row without segments or with a NaN score.

    Raises:
        ArgumentError: If shapes, p or ties are wrong.

    Source:
        Webber, Moffat and Zobel 2010 (RBO_EXT for conjoint rankings); ties after Corsi and Urbano, SIGIR 2024.

    Example:
        >>> clean, noisy = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[3.0, 1.0, 2.0]])
        >>> rank_biased_overlap(clean, noisy, p=0.5)  # 0.5 * (1 + 0.5 * 1/2 + 0.25 * 1) + 0.125
        tensor([0.8750], dtype=torch.float64)
    """
    _check_settings(p, ties)
    present = _check_rows(clean, noisy, present)
    first, second = (_contributions(row.double(), present, ties) for row in (clean, noisy))  # (b, s, d)
    overlap = (first * second).sum(dim=1)
    depth = torch.arange(1, clean.shape[1] + 1, dtype=torch.float64, device=clean.device)
    if ties == "w":
        agreement = 2 * overlap / (first + second).sum(dim=1).clamp_min(1)
    elif ties == "b":
        norms = first.square().sum(dim=1) * second.square().sum(dim=1)
        # Where nothing is ranked yet both are 0, which happens only in rows without segments.
        agreement = overlap / norms.sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    else:
        agreement = overlap / depth
    length = present.sum(dim=1, keepdim=True)
    weights = torch.where(depth <= length, (1 - p) * p ** (depth - 1), torch.zeros_like(depth))
    overlap_score = (agreement * weights).sum(dim=1) + torch.pow(p, length[:, 0].double())
    undefined = (length[:, 0] == 0) | ((clean.isnan() | noisy.isnan()) & present).any(dim=1)
    return torch.where(undefined, torch.full_like(overlap_score, torch.nan), overlap_score.clamp(0, 1))


def _contributions(scores: Tensor, present: Tensor, ties: Ties) -> Tensor:
    """How much of each segment stands in the top of each depth, ``(b, s, d)``; a tie group spans ranks t..t+k-1."""
    size = scores.shape[1]
    # Absent segments go below everything, and behind the length of the row no depth has weight.
    first_rank, group = _stable_ranks(scores, present) if ties == "stable" else _tied_ranks(scores, present)
    depth = torch.arange(1, size + 1, dtype=torch.float64, device=scores.device)
    gone_by = depth - first_rank[..., None] + 1  # how many ranks of the group lie within the depth
    share = gone_by.clamp(min=0) if ties == "w" else gone_by.clamp(min=0) / group[..., None]
    return share.clamp(max=1) * present[..., None]


def _tied_ranks(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    other = present[:, None, :]
    first_rank = ((scores[:, None, :] > scores[:, :, None]) & other).sum(dim=2) + 1
    group = ((scores[:, None, :] == scores[:, :, None]) & other).sum(dim=2)
    return first_rank.double(), group.clamp_min(1).double()


def _stable_ranks(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    lowered = torch.where(present, scores, torch.full_like(scores, -torch.inf))
    # Two keys, so that a present segment with score -inf still comes before an absent one.
    order = torch.argsort((~present).long(), dim=1, stable=True)
    order = order.gather(1, torch.argsort(lowered.gather(1, order), dim=1, descending=True, stable=True))
    ranks = torch.argsort(order, dim=1) + 1
    return ranks.double(), torch.ones_like(scores)


def _check_settings(p: float, ties: str) -> None:
    if not isinstance(p, (int, float)) or not 0 < p < 1:
        raise ArgumentError(
            f"`p` must lie strictly between 0 and 1, got {p!r}. 0.2 looks at the top, 0.9 further down."
        )
    if ties not in ("b", "a", "w", "stable"):
        raise ArgumentError(f"`ties` must be 'b', 'a', 'w' or 'stable', got {ties!r}.")


def _check_rows(clean: Tensor, noisy: Tensor, present: Tensor | None) -> Tensor:
    if clean.dim() != 2 or clean.shape != noisy.shape:
        raise ArgumentError(
            "`clean` and `noisy` must be score rows (b, s) of equal shape, "
            f"got {tuple(clean.shape)} and {tuple(noisy.shape)}."
        )
    if present is None:
        return torch.ones_like(clean, dtype=torch.bool)
    if present.shape != clean.shape or present.dtype != torch.bool:
        raise ArgumentError(f"`present` must be bool {tuple(clean.shape)}, got {present.dtype} {tuple(present.shape)}.")
    return present


EXAMPLES = (RankBiasedOverlap(), RankBiasedOverlap(p=0.9, ties="a"))
