"""L1 distance of two maps, each scaled to sum 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import check_maps


@dataclass(frozen=True)
class NormalisedL1:
    """What two maps have in common when each is scaled to sum 1: ``1 - sum |a - b| / (sum a + sum b)``.

    With sums of 1 this is ``1 - sum |a - b| / 2 = sum min(a, b)``, the histogram intersection. Cells that are empty in
    both maps have no say, and maps without a common cell score 0.

    Attributes:
        of_maps: It compares maps, not segment scores.
        lowest: The least value it can take.

    Source:
        Bray and Curtis 1957, on shares; Swain and Ballard 1991 (histogram intersection).

    Example:
        >>> clean, noisy = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[3.0, 1.0]]])
        >>> NormalisedL1()(clean, noisy)  # min(1, 3/4) + min(0, 1/4)
        tensor([0.7500], dtype=torch.float64)
    """

    of_maps: ClassVar[bool] = True
    lowest: ClassVar[float] = 0.0

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Compare maps ``(b, h, w)`` float, any scale.

        Returns:
            ``(b,)`` float64 in [0, 1]; NaN for a map whose sum is not above 0 or not finite. Negative cells are not
            meant to occur.

        Raises:
            ArgumentError: If shapes or dtypes are wrong.
        """
        check_maps(clean, noisy)
        shares = []
        for maps in (clean, noisy):
            cells = maps.double().flatten(1)
            total = cells.sum(dim=1, keepdim=True)
            shares.append(cells / torch.where((total > 0) & (total < torch.inf), total, torch.nan))
        # Maps without a common cell come out a hair beside 0.
        return (1 - (shares[0] - shares[1]).abs().sum(dim=1) / 2).clamp_min(0)


EXAMPLES = (NormalisedL1(),)
