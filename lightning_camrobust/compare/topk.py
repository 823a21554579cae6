"""How many of the top segments stay at the top."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.overlap import check_rows, tied_ranks, unranked_rows


@dataclass(frozen=True)
class TopKOverlap:
    """Share of the k largest scores that both rows have in common.

    Segments that tie across rank k share the places left to them: with two places for three equals, each stands in the
    top with weight 2/3. The common part is the sum of the smaller weights, so a row is fully similar to itself.
    A k beyond the segments of an image is cut to them; then all are at the top, and the value is 1.

    Attributes:
        k: How many segments are the top, at least 1. Give k or share.
        share: Part of an image's segments that are the top, in (0, 1); rounded up to whole segments.
        lowest: The least value it can take.
        of_ranks: Only the order of the scores counts.

    Raises:
        ArgumentError: If not exactly one of k and share is given, or it is out of range.

    Example:
        >>> clean, noisy = torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[4.0, 2.0, 3.0, 1.0]])
        >>> TopKOverlap(k=2)(clean, noisy, present=clean > 0)
        tensor([0.5000], dtype=torch.float64)
    """

    k: int | None = None
    share: float | None = None
    lowest: ClassVar[float] = 0.0
    of_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_size(self.k, self.share)

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1]; NaN where a row has no order (NaN score, one segment, all equal)."""
        common, size = _common_part(clean, noisy, present, self.k, self.share)
        return common / size


@dataclass(frozen=True)
class TopKIoU:
    """Intersection over union of the segments with the k largest scores; ties and sizes as in :class:`TopKOverlap`.

    Attributes:
        k: How many segments are the top, at least 1. Give k or share.
        share: Part of an image's segments that are the top, in (0, 1); rounded up to whole segments.
        lowest: The least value it can take.
        of_ranks: Only the order of the scores counts.

    Raises:
        ArgumentError: If not exactly one of k and share is given, or it is out of range.

    Example:
        >>> clean, noisy = torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[4.0, 2.0, 3.0, 1.0]])
        >>> TopKIoU(k=2)(clean, noisy, present=clean > 0)
        tensor([0.3333], dtype=torch.float64)
    """

    k: int | None = None
    share: float | None = None
    lowest: ClassVar[float] = 0.0
    of_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_size(self.k, self.share)

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 in [0, 1]; NaN where a row has no order (NaN score, one segment, all equal)."""
        common, size = _common_part(clean, noisy, present, self.k, self.share)
        return common / (2 * size - common)


def _common_part(
    clean: Tensor, noisy: Tensor, present: Tensor, k: int | None, share: float | None
) -> tuple[Tensor, Tensor]:
    """How much the two tops have in common, and how large each of them is, both ``(b,)`` float64."""
    present = check_rows(clean, noisy, present)
    count = present.sum(dim=1).double()
    # The little less keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
    size = count.clamp(max=k) if share is None else (share * count - 1e-9).ceil().clamp(min=1)
    weights = []
    for row in (clean, noisy):
        first_rank, group = tied_ranks(row, present)
        weights.append(((size[:, None] - first_rank + 1) / group).clamp(0, 1) * present)
    # Thirds do not add up to a whole to the last bit.
    common = torch.minimum(*weights).sum(dim=1).minimum(size)
    return torch.where(unranked_rows(clean, noisy, present), torch.nan, common), size


def _check_size(k: int | None, share: float | None) -> None:
    if (k is None) == (share is None):
        raise ArgumentError(f"Give exactly one of `k` and `share`, got k={k!r} and share={share!r}.")
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise ArgumentError(f"`k` must be a whole number of segments, 1 or more, got {k!r}.")
    if share is not None and (not isinstance(share, float) or not 0 < share < 1):
        raise ArgumentError(f"`share` must lie strictly between 0 and 1, got {share!r}. For a fixed number use `k`.")


EXAMPLES = (TopKOverlap(share=0.2), TopKOverlap(k=5), TopKIoU(share=0.2), TopKIoU(k=5))
