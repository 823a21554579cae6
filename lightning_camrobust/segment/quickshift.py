"""Quickshift, by scikit-image."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Quickshift:
    """Mode-seeking segmentation in colour and position.

    Attributes:
        kernel_size: Width of the density estimate, in pixels.
        max_dist: Longest link between pixels of one segment.
        ratio: Weight of colour against position.
        min_side: Images with a shorter side below this many pixels are enlarged to it first, since at their own size
            they would fall into one single segment.

    Source:
        Vedaldi and Soatto 2008. The parameters are those of SLICE (CVPR 2024), by the first author of the noise
        robustness paper.

    Example:
        >>> Quickshift()
        Quickshift(kernel_size=5.0, max_dist=200.0, ratio=0.2, min_side=224)
    """

    kernel_size: float = 5.0
    max_dist: float = 200.0
    ratio: float = 0.2
    min_side: int = 224

    def __call__(self, images: Tensor) -> Tensor:
        """Return labels ``(b, H, W)`` int64 for images ``(b, 3, H, W)`` in [0, 1]."""
        size = (int(images.shape[2]), int(images.shape[3]))
        enlarged = self._enlarge(images).double().permute(0, 2, 3, 1).numpy()
        # scikit-image releases the interpreter lock, so threads do help.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            labels = np.stack(list(pool.map(self._segment, enlarged)))
        found = torch.from_numpy(labels)[:, None].double()
        if found.shape[2:] != size:
            found = interpolate(found, size=size, mode="nearest-exact")
        return found[:, 0].long()

    def _enlarge(self, images: Tensor) -> Tensor:
        scale = self.min_side / min(images.shape[2:])
        if scale <= 1:
            return images
        size = [round(side * scale) for side in images.shape[2:]]
        return interpolate(images, size=size, mode="bilinear", align_corners=False)

    def _segment(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        from skimage.segmentation import quickshift

        segment: Any = quickshift  # untyped upstream
        found: np.ndarray[Any, Any] = segment(
            image, kernel_size=self.kernel_size, max_dist=self.max_dist, ratio=self.ratio, rng=42
        )
        return found


EXAMPLES = (Quickshift(), Quickshift(kernel_size=3.0))
