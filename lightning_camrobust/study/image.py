"""One image of a study, a batch of them, and what a source of images must look like."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError


class StudyImage(NamedTuple):
    """One image, ready to be disturbed and shown to a network.

    Attributes:
        pixels: ``(c, H, W)`` float32 in [0, 1].
        label: True class, or -1 where it is not known.
        name: Its file, relative to the folder; or its position in the data set. Unique in a source.
        index: Position in the source, 0..n-1.
    """

    pixels: Tensor
    label: int
    name: str
    index: int  # type: ignore[assignment]  # of the sequence's method of that name there is no need


class StudyBatch(NamedTuple):
    """Several images of one shape.

    Attributes:
        pixels: ``(b, c, H, W)`` float32 in [0, 1].
        labels: ``(b,)`` int64, -1 where a class is not known.
        names: Of each image.
        indices: Position of each image in the source, ``(b,)`` int64.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]
    indices: Tensor


@runtime_checkable
class ImageSource(Protocol):
    """A map-style data set of images, which data loaders can hand to other processes."""

    @property
    def name(self) -> str:
        """Name of the data set, in reports."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> StudyImage:
        """Return one image; its pixels are the same each time."""

    def fingerprint(self) -> str:
        """Return a SHA-256 of what is shown (names, labels, contents, framing), the same in every process."""


@runtime_checkable
class KnowsLabels(Protocol):
    """A source that can say all true classes without reading an image."""

    def known_labels(self) -> Sequence[int]:
        """Return the label of every image, -1 where it is not known."""


def collate(images: Sequence[StudyImage]) -> StudyBatch:
    """Put images into one batch; made for ``DataLoader(collate_fn=collate)``.

    Args:
        images: One at least, of one shape.

    Returns:
        The batch, in the same order.

    Raises:
        ArgumentError: If there is none, or shapes differ.

    Example:
        >>> batch = collate([StudyImage(torch.zeros(3, 8, 8), 4, "cat.png", 0)])
        >>> batch.pixels.shape, batch.labels.tolist(), batch.names
        (torch.Size([1, 3, 8, 8]), [4], ('cat.png',))
    """
    if not images:
        raise ArgumentError("collate: `images` must hold at least one image, got none.")
    first = images[0]
    for image in images:
        if image.pixels.shape != first.pixels.shape:
            raise unequal_shapes(first.name, first.pixels.shape, image.name, image.pixels.shape)
    return StudyBatch(
        torch.stack([image.pixels for image in images]),
        torch.tensor([image.label for image in images], dtype=torch.int64),
        tuple(image.name for image in images),
        torch.tensor([image.index for image in images], dtype=torch.int64),
    )


def unequal_shapes(first: str, shape: Sequence[int], second: str, other: Sequence[int]) -> ArgumentError:
    """Write the error for two images of different shapes.

    Args:
        first: Name of one image.
        shape: Its ``(c, H, W)`` or ``(H, W)``.
        second: Name of the other.
        other: Its shape.

    Returns:
        The error, to be raised.

    Example:
        >>> str(unequal_shapes("a.png", (8, 8), "b.png", (8, 9)))[:63]
        "open_images: all images must have one shape, but 'a.png' is 8 x"
    """
    return ArgumentError(
        f"open_images: all images must have one shape, but {first!r} is {_times(shape)} and {second!r} is "
        f"{_times(other)}. Pass size=224 (or what your network takes): the shorter side is resized to it and the "
        "centre is cut out. If channels differ, pass channels=3."
    )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(int(length)) for length in shape)


def spread(count: int, num_images: int | None) -> tuple[int, ...]:
    """Choose images evenly spaced over a data set.

    Args:
        count: How many there are.
        num_images: How many are wanted; None for all.

    Returns:
        Their positions, ascending.

    Raises:
        ArgumentError: If there are none, or fewer than are wanted.

    Example:
        >>> spread(10, 4)
        (0, 2, 5, 7)
    """
    if count < 1:
        raise ArgumentError("open_images: `data` holds no images. Check that it is the right folder, file or split.")
    wanted = count if num_images is None else num_images
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= count:
        raise ArgumentError(
            f"open_images: `num_images` must be 1..{count}, as `data` holds {count} images, or None for all; "
            f"got {num_images!r}."
        )
    return tuple(position * count // wanted for position in range(wanted))
