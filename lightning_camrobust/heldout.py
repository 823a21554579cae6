"""Find the images in a user's batch, and hold them until a chunk is full."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.errors import BatchFormatError

_IMAGE_KEYS = ("image", "images", "pixel_values", "img", "imgs", "x", "input", "inputs", "data")


def find_images(batch: Any, prepare_batch: Callable[[Any], Any] | None = None) -> Tensor:
    """Find the image tensor in a batch.

    Args:
        batch: What the data loader gave: a tensor, or a tuple, list, dict or named tuple holding it.
        prepare_batch: The user's own way to it, ``batch -> (b, c, H, W)``.

    Returns:
        ``(b, c, H, W)``.

    Raises:
        BatchFormatError: If there is none, or ``prepare_batch`` returned something else.

    Example:
        >>> find_images({"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 8)}).shape
        torch.Size([2, 3, 8, 8])
    """
    if prepare_batch is not None:
        images = prepare_batch(batch)
        if not _are_images(images):
            raise BatchFormatError(
                "CAMRobustnessCallback: `prepare_batch` must return the images, one float tensor (b, c, H, W); "
                f"got {_describe(images)}."
            )
        return images  # type: ignore[no-any-return]
    found = _search(batch)
    if found is None:
        raise BatchFormatError(
            "CAMRobustnessCallback: no images, that is no float tensor (b, c, H, W), were found in the validation "
            f"batch; it is {_describe(batch)}. Tell where they are: "
            "CAMRobustnessCallback(prepare_batch=lambda batch: batch['scan'])."
        )
    return found


class HeldOutImages:
    """Collect the first images of a validation run, and hand them out in chunks of a fixed size.

    Chunks do not depend on how the loader cuts its batches, so neither do the numbers.

    Args:
        num_samples: How many images to take at most.
        chunk_size: How many are handed out at once.

    Example:
        >>> held = HeldOutImages(num_samples=5, chunk_size=2)
        >>> [len(chunk) for chunk in held.add(torch.zeros(4, 3, 8, 8))], [len(chunk) for chunk in held.rest()]
        ([2, 2], [])
        >>> [len(chunk) for chunk in held.add(torch.zeros(4, 3, 8, 8))], held.full
        ([1], True)
    """

    def __init__(self, num_samples: int, chunk_size: int) -> None:
        self._open = num_samples
        self._chunk_size = chunk_size
        self._waiting: list[Tensor] = []

    @property
    def full(self) -> bool:
        """Whether no further image is wanted."""
        return self._open == 0

    def add(self, images: Tensor) -> list[Tensor]:
        """Take what is still wanted of a batch, and return the chunks that became full."""
        wanted = images[: self._open]
        self._open -= len(wanted)
        # Images of another size cannot share a chunk.
        chunks = self.rest() if self._waiting and self._waiting[0].shape != images.shape[1:] else []
        # Clones: what the user's own step does to the batch later must not reach us, nor the other way round.
        self._waiting.extend(wanted.detach().clone().unbind())
        while len(self._waiting) >= self._chunk_size:
            chunks.append(self._take(self._chunk_size))
        return chunks + self.rest() if self.full else chunks

    def rest(self) -> list[Tensor]:
        """Hand out what is left, as one chunk or none."""
        return [self._take(len(self._waiting))] if self._waiting else []

    def _take(self, count: int) -> Tensor:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return torch.stack(taken)


def _search(batch: Any) -> Tensor | None:
    if _are_images(batch):
        return batch  # type: ignore[no-any-return]
    if isinstance(batch, Mapping):
        named = [batch[key] for key in _IMAGE_KEYS if key in batch]
        return _first([*named, *batch.values()])
    if isinstance(batch, (tuple, list)):
        return _first(batch)
    return None


def _first(parts: Any) -> Tensor | None:
    return next((found for found in map(_search, parts) if found is not None), None)


def _are_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "a dict {" + ", ".join(f"{key!r}: {_describe(each)}" for key, each in list(value.items())[:6]) + "}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of (" + ", ".join(_describe(each) for each in value[:6]) + ")"
    return f"a {type(value).__name__}"
