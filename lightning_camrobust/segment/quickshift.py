"""Quickshift, on the device of the images."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from lightning_camrobust.enlarging import enlarge_images, resize_labels
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.quickshift_density import pixel_density, rgb_to_lab, tie_noise, window_reach
from lightning_camrobust.quickshift_forest import label_trees, nearest_denser

# Pixels in a block: few enough for the cache of a processor, enough to keep any device busy.
_PIXELS_ON_PROCESSOR, _PIXELS_ON_DEVICE = 3 * 2**16, 2**22


@dataclass(frozen=True)
class Quickshift:
    """Mode-seeking segmentation in colour and position.

    Each pixel is linked to the nearest pixel of higher density, and a tree of links is a segment. The definition is
    that of ``skimage.segmentation.quickshift``, down to the fixed tiny noise that decides between equal densities, so
    labels are the same; the segmenter ``quickshift_skimage`` is that function itself.

    Attributes:
        kernel_size: Width of the density estimate, in pixels, 1 or more.
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

    def __post_init__(self) -> None:
        if not self.kernel_size >= 1:
            raise ArgumentError(f"Quickshift: `kernel_size` must be 1 pixel or more, got {self.kernel_size!r}.")

    def __call__(self, images: Tensor) -> Tensor:
        """Return labels ``(b, H, W)`` int64 for images ``(b, 3, H, W)`` in [0, 1]."""
        height, width = images.shape[2:]
        device = images.device if _has_float64(images.device) else torch.device("cpu")
        enlarged = enlarge_images(images.detach().to(device), min_side=self.min_side)
        labels = _map_blocks(self._segment, torch.split(enlarged, _images_in_block(enlarged)))
        return resize_labels(torch.cat(labels), size=(height, width)).to(images.device)

    def _segment(self, images: Tensor) -> Tensor:
        colours = (rgb_to_lab(images.double()) * self.ratio).transpose(0, 1).contiguous()
        density = pixel_density(colours, kernel_size=self.kernel_size)
        batch, height, width = density.shape
        density += torch.from_numpy(tie_noise(height, width)).to(density.device)
        parent, distance = nearest_denser(colours, density, reach=window_reach(self.kernel_size))
        own = torch.arange(len(parent), device=parent.device)
        return label_trees(torch.where(distance.sqrt() > self.max_dist, own, parent), shape=(batch, height, width))


def _images_in_block(images: Tensor) -> int:
    size = images.shape[2] * images.shape[3]
    if images.device.type != "cpu":
        return max(1, _PIXELS_ON_DEVICE // size)
    share = math.ceil(len(images) / torch.get_num_threads())
    return max(1, min(share, _PIXELS_ON_PROCESSOR // size))


def _map_blocks(work: Callable[[Tensor], Tensor], blocks: Sequence[Tensor]) -> list[Tensor]:
    """Do the same with each block; on a processor, several blocks at a time, each in one thread."""
    threads = torch.get_num_threads()
    if threads == 1 or blocks[0].device.type != "cpu":
        return [work(block) for block in blocks]
    pools = _thread_pools()

    def in_one_thread(block: Tensor) -> Tensor:
        # Torch would rather share each of the thousands of small steps between threads, which then wait for each other
        # after every step: a few milliseconds each time, as soon as another program is busy on one of the cores. The
        # limit holds for this very thread; `torch.set_num_threads` would reach the user's own.
        torch.get_num_threads()  # torch sets the number when a thread first asks; only then can it be lowered
        with pools.limit(limits=1, user_api="openmp"):
            return work(block)

    with ThreadPoolExecutor(min(threads, len(blocks)), "quickshift") as executor:
        return list(executor.map(in_one_thread, blocks))


@lru_cache
def _thread_pools() -> ThreadpoolController:
    """Find the loaded libraries that have threads of their own."""
    return ThreadpoolController()


@lru_cache
def _has_float64(device: torch.device) -> bool:
    """Tell whether a device computes in double precision; Apple's do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


EXAMPLES = (Quickshift(), Quickshift(kernel_size=3.0))
