"""Keep tensors within a budget of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import Tensor


class TensorCache:
    """Tensors by key, the least recently used ones dropped first.

    Args:
        max_bytes: Upper limit of what is kept.

    Example:
        >>> cache = TensorCache(max_bytes=1000)
        >>> cache.put("a", torch.zeros(2, 2))
        >>> cache.get("a").shape, cache.get("b"), cache.num_bytes
        (torch.Size([2, 2]), None, 16)
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tensor | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor, unless it is larger than the whole budget or its key is taken."""
        with self._lock:
            if key in self._kept or _num_bytes(tensor) > self.max_bytes:
                return
            self._kept[key] = tensor
            self.num_bytes += _num_bytes(tensor)
            while self.num_bytes > self.max_bytes:
                _, dropped = self._kept.popitem(last=False)
                self.num_bytes -= _num_bytes(dropped)

    def __reduce__(self) -> tuple[type["TensorCache"], tuple[int]]:
        """Copy and pickle as an empty cache of the same size."""
        return type(self), (self.max_bytes,)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.num_bytes = 0


class SegmentCache(TensorCache):
    """Segment labels by image content and segmenter, on the host.

    Args:
        max_bytes: Upper limit of what is kept.

    Example:
        >>> cache = SegmentCache(max_bytes=1000)
        >>> cache.put("a", torch.zeros(2, 2, dtype=torch.int64))
        >>> cache.get("a").dtype, cache.num_bytes
        (torch.int64, 8)
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        super().__init__(max_bytes)

    def get(self, key: Hashable) -> Tensor | None:
        """Return the labels ``(H, W)`` int64 kept under a key, or None."""
        labels = super().get(key)
        return None if labels is None else labels.long()

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep labels ``(H, W)``, in the smallest integer type that holds them."""
        small = tensor.to(torch.int16 if int(tensor.max()) < 2**15 else torch.int32)
        super().put(key, small)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
