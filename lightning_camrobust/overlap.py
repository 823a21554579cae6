"""Rank-biased overlap, ranks with ties, and the checks that all similarities share."""

from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

Ties = Literal["b", "a", "w", "stable"]


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
    check_overlap_settings(p, ties)
    present = check_rows(clean, noisy, present)
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


def tied_ranks(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Rank scores, largest first, equal scores sharing their ranks.

    Args:
        scores: ``(b, s)``, any real dtype.
        present: ``(b, s)`` bool, the segments that exist.

    Returns:
        The first rank of each segment's tie group, from 1 on, and the size of that group, both ``(b, s)`` float64. The
        group spans ranks ``first .. first + size - 1``. What stands at absent segments has no meaning.

    Example:
        >>> tied_ranks(torch.tensor([[7.0, 9.0, 7.0, 1.0]]), torch.tensor([[True, True, True, False]]))[0]
        tensor([[2., 1., 2., 4.]], dtype=torch.float64)
    """
    other = present[:, None, :]
    first_rank = ((scores[:, None, :] > scores[:, :, None]) & other).sum(dim=2) + 1
    group = ((scores[:, None, :] == scores[:, :, None]) & other).sum(dim=2)
    return first_rank.double(), group.clamp_min(1).double()


def unranked_rows(clean: Tensor, noisy: Tensor, present: Tensor) -> Tensor:
    """Tell which pairs of rows hold no two rankings to compare.

    Args:
        clean: Scores ``(b, s)``, any real dtype.
        noisy: Scores to compare with, same shape.
        present: ``(b, s)`` bool, the segments that exist.

    Returns:
        ``(b,)`` bool; true where a score is NaN, fewer than two segments exist, or all scores of a row are equal.

    Example:
        >>> clean, noisy = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[5.0, 4.0], [3.0, 3.0]])
        >>> unranked_rows(clean, noisy, torch.ones(2, 2, dtype=torch.bool))
        tensor([False,  True])
    """
    # A second rank is there exactly if two segments differ.
    ordered = [((tied_ranks(row, present)[0] > 1) & present).any(dim=1) for row in (clean, noisy)]
    return ~(ordered[0] & ordered[1]) | ((clean.isnan() | noisy.isnan()) & present).any(dim=1)


def check_overlap_settings(p: float, ties: str) -> None:
    """Refuse a patience or a tie rule that :func:`rank_biased_overlap` does not know.

    Args:
        p: Patience.
        ties: Tie rule.

    Raises:
        ArgumentError: If p does not lie strictly between 0 and 1, or the tie rule is unknown.

    Example:
        >>> check_overlap_settings(0.2, "b")
    """
    if not isinstance(p, (int, float)) or not 0 < p < 1:
        raise ArgumentError(
            f"`p` must lie strictly between 0 and 1, got {p!r}. 0.2 looks at the top, 0.9 further down."
        )
    if ties not in ("b", "a", "w", "stable"):
        raise ArgumentError(f"`ties` must be 'b', 'a', 'w' or 'stable', got {ties!r}.")


def check_rows(clean: Tensor, noisy: Tensor, present: Tensor | None) -> Tensor:
    """Refuse score rows that do not fit together.

    Args:
        clean: Scores, to be ``(b, s)``.
        noisy: Scores, to be of the same shape.
        present: The segments that exist, to be ``(b, s)`` bool; None if all do.

    Returns:
        The mask ``(b, s)`` bool, all true for None.

    Raises:
        ArgumentError: If shapes or the mask's dtype are wrong.

    Example:
        >>> check_rows(torch.rand(1, 2), torch.rand(1, 2), None)
        tensor([[True, True]])
    """
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


def check_maps(clean: Tensor, noisy: Tensor) -> None:
    """Refuse maps that do not fit together.

    Args:
        clean: Maps, to be ``(b, h, w)`` float.
        noisy: Maps to compare with, to be of the same shape.

    Raises:
        ArgumentError: If they are not.

    Example:
        >>> check_maps(torch.rand(1, 7, 7), torch.rand(1, 7, 7))
    """
    fits = clean.dim() == 3 and clean.is_floating_point() and noisy.is_floating_point()
    if not fits or clean.shape != noisy.shape:
        raise ArgumentError(
            "`clean` and `noisy` must be float maps (b, h, w) of equal shape, "
            f"got {clean.dtype} {tuple(clean.shape)} and {noisy.dtype} {tuple(noisy.shape)}. "
            "Drop a channel axis with maps[:, 0]."
        )


def _contributions(scores: Tensor, present: Tensor, ties: Ties) -> Tensor:
    """How much of each segment stands in the top of each depth, ``(b, s, d)``; a tie group spans ranks t..t+k-1."""
    size = scores.shape[1]
    # Absent segments go below everything, and behind the length of the row no depth has weight.
    first_rank, group = _stable_ranks(scores, present) if ties == "stable" else tied_ranks(scores, present)
    depth = torch.arange(1, size + 1, dtype=torch.float64, device=scores.device)
    gone_by = depth - first_rank[..., None] + 1  # how many ranks of the group lie within the depth
    share = gone_by.clamp(min=0) if ties == "w" else gone_by.clamp(min=0) / group[..., None]
    return share.clamp(max=1) * present[..., None]


def _stable_ranks(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    lowered = torch.where(present, scores, torch.full_like(scores, -torch.inf))
    # Two keys, so that a present segment with score -inf still comes before an absent one.
    order = torch.argsort((~present).long(), dim=1, stable=True)
    order = order.gather(1, torch.argsort(lowered.gather(1, order), dim=1, descending=True, stable=True))
    ranks = torch.argsort(order, dim=1) + 1
    return ranks.double(), torch.ones_like(scores)
