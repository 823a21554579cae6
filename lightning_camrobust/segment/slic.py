"""SLIC superpixels, by scikit-image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Slic:
    """k-means in colour and position: compact segments of similar size.

    Attributes:
        n_segments: How many segments to aim at.
        compactness: Weight of position against colour.
        sigma: Width of the Gaussian smoothing before, in pixels.

    Source:
        Achanta et al. 2012.

    Example:
        >>> Slic()
        Slic(n_segments=50, compactness=10.0, sigma=1.0)
    """

    n_segments: int = 50
    compactness: float = 10.0
    sigma: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        """Return labels ``(b, H, W)`` int64 for images ``(b, 3, H, W)`` in [0, 1]."""
        from skimage.segmentation import slic

        arrays = images.detach().cpu().double().permute(0, 2, 3, 1).numpy()
        labels = [
            slic(each, n_segments=self.n_segments, compactness=self.compactness, sigma=self.sigma, start_label=0)
            for each in arrays
        ]
        return torch.from_numpy(np.stack(labels)).long().to(images.device)


EXAMPLES = (Slic(), Slic(n_segments=20))
