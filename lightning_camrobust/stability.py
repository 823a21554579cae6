"""Consistency, responsiveness and robustness: what is summed up, and what the sums mean."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Comparison

Undefined = Literal["nan", "vacuous"]


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
