"""Structural similarity of two maps."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.overlap import check_maps

# The window of 11 x 11 pixels has to fit in several times.
_SHORTEST_SIDE = 32
_HALF_WINDOW = 5


@dataclass(frozen=True)
class SSIM:
    """Structural similarity of maps scaled to maximum 1, with a Gaussian window of 11 x 11 pixels and data range 1.

    Maps with a side below 32 are first upsampled bilinearly, so that the shorter side has 32 pixels. The value is the
    mean over all places where the window fits in, as Wang et al. and scikit-image have it; it can fall below 0 where
    two maps run opposite to each other.

    Attributes:
        of_maps: It compares maps, not segment scores.
        lowest: The least value it can take.

    Source:
        Wang et al. 2004; compared like this, with data range 1, in the released code of CF-CAM (arXiv 2504.00060).

    Example:
        >>> maps = torch.rand(1, 7, 7)
        >>> SSIM()(maps, 3 * maps).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """

    of_maps: ClassVar[bool] = True
    lowest: ClassVar[float] = -1.0

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Compare maps ``(b, h, w)`` float, any scale.

        Returns:
            ``(b,)`` float64 in [-1, 1]; NaN for a map without a value above 0 or with one that is not finite.

        Raises:
            ArgumentError: If shapes or dtypes are wrong.
        """
        from torchmetrics.functional.image import structural_similarity_index_measure

        check_maps(clean, noisy)
        if not len(clean):
            return torch.zeros(0, dtype=torch.float64, device=clean.device)
        usable = [maps.isfinite().flatten(1).all(dim=1) & (maps.flatten(1).amax(dim=1) > 0) for maps in (clean, noisy)]
        defined = usable[0] & usable[1]
        first, second = (_picture(maps.double(), defined) for maps in (clean, noisy))
        # Its own mean counts in or leaves out the padded border, depending on the version (torchmetrics#2721).
        _, places = structural_similarity_index_measure(
            first, second, gaussian_kernel=True, sigma=1.5, reduction="none", data_range=1.0, return_full_image=True
        )
        inside = places[:, 0, _HALF_WINDOW:-_HALF_WINDOW, _HALF_WINDOW:-_HALF_WINDOW]
        return torch.where(defined, inside.mean(dim=(1, 2)), torch.nan)


def _picture(maps: Tensor, defined: Tensor) -> Tensor:
    """Scale to maximum 1 and enlarge, ``(b, 1, H, W)``; maps that cannot be scaled stay as they are."""
    largest = maps.flatten(1).amax(dim=1)[:, None, None]
    scaled = (maps / torch.where(defined[:, None, None], largest, 1))[:, None]
    height, width = maps.shape[1:]
    shorter = min(height, width)
    if shorter >= _SHORTEST_SIDE:
        return scaled
    size = (round(height * _SHORTEST_SIDE / shorter), round(width * _SHORTEST_SIDE / shorter))
    return interpolate(scaled, size=size, mode="bilinear", align_corners=False)


EXAMPLES = (SSIM(),)
