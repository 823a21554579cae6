"""Segment images, and remember the result: held-out images come back every epoch, and segmenting them is slow."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.images import check_images
from lightning_camrobust.members import resolve_member
from lightning_camrobust.types import Segmenter


class SegmentCache:
    """Labels by image content and segmenter, the least recently used ones dropped first.

    Args:
        max_bytes: Upper limit of what is kept.

    Example:
        >>> cache = SegmentCache(max_bytes=1000)
        >>> cache.put("a", torch.zeros(2, 2, dtype=torch.int64))
        >>> cache.get("a").shape, cache.get("b"), cache.num_bytes
        (torch.Size([2, 2]), None, 8)
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._labels: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tensor | None:
        """Return the labels ``(H, W)`` int64 kept under a key, or None."""
        with self._lock:
            if key not in self._labels:
                return None
            self._labels.move_to_end(key)
            return self._labels[key].long()

    def put(self, key: Hashable, labels: Tensor) -> None:
        """Keep labels ``(H, W)``, in the smallest integer type that holds them."""
        small = labels.to(torch.int16 if int(labels.max()) < 2**15 else torch.int32)
        with self._lock:
            if key in self._labels or _num_bytes(small) > self.max_bytes:
                return
            self._labels[key] = small
            self.num_bytes += _num_bytes(small)
            while self.num_bytes > self.max_bytes:
                _, dropped = self._labels.popitem(last=False)
                self.num_bytes -= _num_bytes(dropped)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._labels.clear()
            self.num_bytes = 0


_CACHE = SegmentCache()


def segment_images(
    images: Tensor, method: str | Segmenter = "quickshift", *, cache: SegmentCache | None = None
) -> Tensor:
    """Cut images into segments.

    Args:
        images: ``(b, c, H, W)`` float in [0, 1] with 1 or 3 channels (other counts are averaged to grey).
        method: ``"quickshift"``, ``"slic"``, ``"grid"``, or a ready-made segmenter.
        cache: Where to look first; None is one cache of 256 MiB shared by the whole process.

    Returns:
        Labels ``(b, H, W)`` int64 on the images' device, 0..m-1 in each image, each label used.

    Raises:
        ArgumentError: If shape, range or method is wrong, or the segmenter returns labels of another size.

    Example:
        >>> segment_images(torch.rand(2, 3, 8, 8), "grid").shape
        torch.Size([2, 8, 8])
    """
    _check_range(images)
    segmenter: Segmenter = resolve_member("segment", method)
    store = _CACHE if cache is None else cache
    host = _three_channels(images.detach()).float().cpu()
    # Kept under the segmenter itself and not its name: settings may be functions or tensors, whose text says little.
    known = segmenter if isinstance(segmenter, Hashable) else object()
    keys: list[Hashable] = [(_content_key(image), known) for image in host]
    found = [store.get(key) for key in keys]
    missing = [index for index, labels in enumerate(found) if labels is None]
    if missing:
        for index, labels in zip(missing, _run(segmenter, host[missing]), strict=True):
            found[index] = labels
            store.put(keys[index], labels)
    return torch.stack([labels for labels in found if labels is not None]).to(images.device)


def _run(segmenter: Segmenter, images: Tensor) -> Tensor:
    labels = segmenter(images)
    if labels.shape != (len(images), *images.shape[2:]):
        raise ArgumentError(
            f"Segmenter {segmenter!r} must return labels (b, H, W) = {(len(images), *images.shape[2:])}, "
            f"got {tuple(labels.shape)}. Labels must have the size of the images."
        )
    # Enlarged images lose a sliver of a segment now and then; ranks are over the segments that exist.
    return torch.stack([torch.unique(each, return_inverse=True)[1] for each in labels])


def _check_range(images: Tensor) -> None:
    check_images(images)
    low, high = float(images.min()), float(images.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise ArgumentError(
            f"`images` must lie in [0, 1], got values from {low:.4g} to {high:.4g}. "
            "Undo the normalisation, or divide by 255, before segmenting."
        )


def _three_channels(images: Tensor) -> Tensor:
    if images.shape[1] == 3:
        return images
    return images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def _num_bytes(labels: Tensor) -> int:
    return labels.numel() * labels.element_size()


def _content_key(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16)
    digest.update(str(tuple(image.shape)).encode())
    return digest.hexdigest()
