"""L2 distance of two maps, relative to the clean one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_camrobust.overlap import check_maps


@dataclass(frozen=True)
class RelativeL2:
    """One minus the relative change of a map: ``1 - |e - e'| / |e|`` with L2 norms over the cells.

    One minus this similarity is the sensitivity of the literature, so a mean over noisy copies gives the average
    sensitivity. The maps are compared as they are: a map of another scale is another map, and the value can fall below
    0 without bound.

    Attributes:
        of_maps: It compares maps, not segment scores.
        lowest: The least value it can take.

    Source:
        Yeh et al. 2019 (arXiv 1901.09392), divided by the norm of the clean map.

    Example:
        >>> clean, noisy = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[3.0, 3.0]]])
        >>> RelativeL2()(clean, noisy)  # 1 - 1/5
        tensor([0.8000], dtype=torch.float64)
    """

    of_maps: ClassVar[bool] = True
    lowest: ClassVar[float] = -torch.inf

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Compare maps ``(b, h, w)`` float.

        Returns:
            ``(b,)`` float64, at most 1; NaN where the clean map is all-zero or a map is not finite.

        Raises:
            ArgumentError: If shapes or dtypes are wrong.
        """
        check_maps(clean, noisy)
        before, after = clean.double().flatten(1), noisy.double().flatten(1)
        # Scaled first, so that squares neither vanish nor overflow; 0/0 and inf/inf make the undefined ones NaN.
        unit = before.abs().amax(dim=1, keepdim=True)
        size = (before / unit).square().sum(dim=1).sqrt()
        change = ((before - after) / unit).square().sum(dim=1).sqrt()
        return 1 - torch.where((size > 0) & change.isfinite(), change / size, torch.nan)


EXAMPLES = (RelativeL2(),)
