"""A blurred copy of the image."""

import math
from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.imaging.filtering import gaussian_filter
from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class Blur:
    """Fill with the image under a Gaussian blur, edge pixels repeated beyond the edge.

    The blur sees the pixels that are to be removed, so a trace of them stays in the picture.

    Attributes:
        sigma: Standard deviation of the bell in pixels; it is cut off at 4 sigma.

    Source:
        Fong and Vedaldi 2017 (arXiv 1704.03296), which blurs 224-pixel images by 10.

    Example:
        >>> Blur(sigma=5.0)
        Blur(sigma=5.0)
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ArgumentError(f"Blur: `sigma` must be finite and above 0 (pixels), got {self.sigma!r}.")

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return blurred copies ``(b, c, H, W)`` in the dtype of ``pixels``."""
        return gaussian_filter(pixels, sigma=self.sigma).clamp_(0, 1)


EXAMPLES = (Blur(), Blur(sigma=2.0))
