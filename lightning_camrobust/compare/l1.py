"""Mean absolute difference of two maps, each scaled to its largest value."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import check_maps


@dataclass(frozen=True)
class L1:
    """One minus the mean absolute difference of maps scaled to maximum 1: ``1 - mean |a / max a - b / max b|``.

    Cells that are empty in both maps count as alike, so sparse maps score high whatever they show.

    Attributes:
        of_maps: It compares maps, not segment scores.
        lowest: The least value it can take, for maps that are nowhere negative.

    Example:
        >>> clean, noisy = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[4.0, 1.0]]])
        >>> L1()(clean, noisy)  # 1 - (0 + 1/4) / 2
        tensor([0.8750], dtype=torch.float64)
    """

    of_maps: ClassVar[bool] = True
    lowest: ClassVar[float] = 0.0

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Compare maps ``(b, h, w)`` float, any scale.

        Returns:
            ``(b,)`` float64 in [0, 1] for maps that are nowhere negative; NaN for a map without a value above 0 or with
            one that is not finite.

        Raises:
            ArgumentError: If shapes or dtypes are wrong.
        """
        check_maps(clean, noisy)
        scaled = []
        for maps in (clean, noisy):
            cells = maps.double().flatten(1)
            largest = cells.amax(dim=1, keepdim=True)
            scaled.append(cells / torch.where(largest > 0, largest, torch.nan))
        difference = (scaled[0] - scaled[1]).abs().mean(dim=1)
        return torch.where(difference.isfinite(), 1 - difference, torch.nan)


EXAMPLES = (L1(),)
