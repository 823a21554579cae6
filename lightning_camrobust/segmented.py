"""The images of a batch, cut into segments when somebody first asks, and their pooling operators kept for later."""

import time
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.comparison import score_segments
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.pooling import build_pooling, pool_maps, snap_ties
from lightning_camrobust.reading import Reduction
from lightning_camrobust.reducing import segment_maxima, segment_sums
from lightning_camrobust.segmentation import host_keys, segment_pixels
from lightning_camrobust.types import Segmenter


class SegmentedBatch:
    """Score maps of a batch by the segments of its images.

    An operator is small, lives on the images' device, and belongs to an image and a map size. While it is kept, neither
    labels nor pixels of the image are touched again.

    Args:
        images: ``(b, c, H, W)`` float, in the model's input units.
        space: How inputs relate to pixels.
        segmenter: How images are cut.
        keys: ``(b, 2)`` int32 from :func:`~lightning_camrobust.randomness.image_keys`.
        operators: Where operators are kept; None keeps none beyond this batch.

    Example:
        >>> from lightning_camrobust.segment.grid import Grid
        >>> from lightning_camrobust.randomness import image_keys
        >>> images = torch.rand(2, 3, 8, 8)
        >>> batch = SegmentedBatch(images, PixelSpace((0.0,), (1.0,)), Grid(rows=2, columns=2), image_keys(images))
        >>> scores, present, rankable = batch.score(torch.rand(2, 5, 4, 4))
        >>> scores.shape, present.shape, rankable.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 4]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        images: Tensor,
        space: PixelSpace,
        segmenter: Segmenter,
        keys: Tensor,
        *,
        operators: TensorCache | None = None,
    ) -> None:
        self._images, self._space, self._segmenter = images, space, segmenter
        # The one look the host takes at the images: what it needs to find their segments.
        self._keys = host_keys(keys)
        self._kept = TensorCache(0) if operators is None else operators
        self._seconds = 0.0
        self._ready: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def score(self, maps: Tensor, *, reduction: Reduction = "mean") -> tuple[Tensor, Tensor, Tensor]:
        """Score maps.

        Args:
            maps: ``(b, ..., h, w)`` float, any number of maps of each image.
            reduction: What stands for a segment. Others than the mean ask for the labels each time.

        Returns:
            Rank scores ``(b, ..., s)`` float64, existing segments ``(b, s)`` bool, rankable maps ``(b, ...)`` bool.
        """
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        if size not in self._ready:
            self._ready[size] = self._operators(size)
        operator, present = self._ready[size]
        scores, rankable = score_segments(maps, operator, present)
        if reduction != "mean":
            scores = snap_ties(self._reduced(maps, operator, reduction), maps)
        return scores, present, rankable

    def _reduced(self, maps: Tensor, operator: Tensor, reduction: Reduction) -> Tensor:
        labels = self.labels(range(len(self)))
        if reduction == "sum":
            return segment_sums(pool_maps(maps, operator), labels)
        return segment_maxima(maps, labels, count=operator.shape[1])

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Return the segments ``(n, H, W)`` int64 of some images."""
        chosen = list(indices)
        pixels = self._space.to_pixels(self._images[chosen])
        return segment_pixels(pixels, self._segmenter, [self._keys[index] for index in chosen])

    @property
    def seconds(self) -> float:
        """Time spent on what is kept, and will not be spent on these images again."""
        return self._seconds

    def _operators(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        segmenter = self._segmenter if isinstance(self._segmenter, Hashable) else object()
        keys = [(key, segmenter, size, self._images.device) for key in self._keys]
        rows = {index: row for index, key in enumerate(keys) if (row := self._kept.get(key)) is not None}
        missing = [index for index in range(len(keys)) if index not in rows]
        if missing:
            start = time.perf_counter()
            operators, present = build_pooling(self.labels(missing), map_size=size)
            counts = present.sum(dim=1).tolist()
            for index, row, count in zip(missing, operators, counts, strict=True):
                # Labels run from 0 without gaps, so the segments that exist come first.
                rows[index] = row[:count].clone()
                self._kept.put(keys[index], rows[index])
            if all(self._kept.get(keys[index]) is not None for index in missing):
                self._seconds += time.perf_counter() - start
        operator = torch.nn.utils.rnn.pad_sequence([rows[index] for index in range(len(keys))], batch_first=True)
        # The weights of a segment add up to 1, those of the padding to 0.
        return operator, operator.sum(dim=2) > 0.5
