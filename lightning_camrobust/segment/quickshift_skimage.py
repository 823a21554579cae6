"""Quickshift by scikit-image, always on the processor."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.enlarging import enlarge_images, resize_labels


@dataclass(frozen=True)
class QuickshiftSkimage:
    """The same definition as the segmenter ``quickshift``, by other hands and several times slower.

    Attributes:
        kernel_size: Width of the density estimate, in pixels.
        max_dist: Longest link between pixels of one segment.
        ratio: Weight of colour against position.
        min_side: Images with a shorter side below this many pixels are enlarged to it first, since at their own size
            they would fall into one single segment.

    Source:
        Vedaldi and Soatto 2008, as in ``skimage.segmentation.quickshift``.

    Example:
        >>> QuickshiftSkimage()
        QuickshiftSkimage(kernel_size=5.0, max_dist=200.0, ratio=0.2, min_side=224)
    """

    kernel_size: float = 5.0
    max_dist: float = 200.0
    ratio: float = 0.2
    min_side: int = 224

    def __call__(self, images: Tensor) -> Tensor:
        """Return labels ``(b, H, W)`` int64 for images ``(b, 3, H, W)`` in [0, 1]."""
        height, width = images.shape[2:]
        enlarged = enlarge_images(images.detach().cpu(), min_side=self.min_side).double().permute(0, 2, 3, 1).numpy()
        # scikit-image releases the interpreter lock, so threads do help.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            labels = np.stack(list(pool.map(self._segment, enlarged)))
        return resize_labels(torch.from_numpy(labels).long(), size=(height, width)).to(images.device)

    def _segment(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        from skimage.segmentation import quickshift

        segment: Any = quickshift  # untyped upstream
        found: np.ndarray[Any, Any] = segment(
            image, kernel_size=self.kernel_size, max_dist=self.max_dist, ratio=self.ratio, rng=42
        )
        return found


EXAMPLES = (QuickshiftSkimage(),)
