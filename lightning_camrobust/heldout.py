"""Hold the images of a run, each with its position in the data, until a chunk is full."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, IterableDataset, SequentialSampler

# Position of an image that another process measures, or that a sampler repeated to fill up its shards.
NOT_MINE = -1


@dataclass(frozen=True)
class Chunk:
    """Images that go through the network together.

    Attributes:
        images: ``(b, c, H, W)``.
        positions: Position of each in the data, ``(b,)`` int64.
    """

    images: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Numbering:
    """How a process numbers the images it sees.

    Attributes:
        number: From the count of images this process has seen to the position in the data, or ``NOT_MINE``.
        settled: Whether these positions hold over all processes; those of a stream are counted anew at the end, when
            it is known how many images each process saw.
    """

    number: Callable[[int], int] = lambda index: index
    settled: bool = True


class HeldOutImages:
    """Collect the images of a run whose position is below ``num_samples``, and hand them out in chunks of a fixed size.

    Chunks do not depend on how the loader cuts its batches, so neither do the numbers.

    Args:
        num_samples: How many images to take, over all processes.
        chunk_size: How many are handed out at once.
        numbering: How this process numbers the images it sees.

    Example:
        >>> held = HeldOutImages(num_samples=5, chunk_size=2)
        >>> held.add(torch.zeros(4, 3, 8, 8))
        >>> [len(chunk.images) for chunk in held.chunks(whole_only=True)]
        [2, 2]
        >>> held.add(torch.zeros(4, 3, 8, 8))
        >>> [chunk.positions.tolist() for chunk in held.chunks(whole_only=False)]
        [[4]]
    """

    def __init__(self, num_samples: int, chunk_size: int, numbering: Numbering | None = None) -> None:
        self.chunk_size = chunk_size
        self._num_samples = num_samples
        numbering = Numbering() if numbering is None else numbering
        self._number = numbering.number
        self.settled = numbering.settled
        self._seen = 0
        self._waiting: list[tuple[int, Tensor]] = []

    @property
    def full(self) -> bool:
        """Whether no further image can be wanted; positions only grow."""
        return self._seen >= self._num_samples or self._number(self._seen) >= self._num_samples

    @property
    def capacity(self) -> int:
        """The largest number of images that one process can hold."""
        return self._num_samples

    @property
    def waiting(self) -> list[Tensor]:
        """The images that wait, each ``(c, H, W)``."""
        return [image for _, image in self._waiting]

    def add(self, images: Tensor) -> None:
        """Take what is wanted of a batch ``(b, c, H, W)``, as copies."""
        positions = [self._number(self._seen + index) for index in range(len(images))]
        self._seen += len(images)
        for position, image in zip(positions, images, strict=True):
            if NOT_MINE < position < self._num_samples:
                # What the user's own step does to the batch later must not reach us, nor the other way round.
                self._waiting.append((position, image.detach().clone()))

    def settle(self, counts: list[int], rank: int) -> None:
        """Number a stream's images over all processes, first the first one of each, and keep those that are wanted.

        Args:
            counts: How many images wait on each process.
            rank: Of this process.
        """
        numbered = []
        for index, (_, image) in enumerate(self._waiting):
            before = sum(min(count, index + (other < rank)) for other, count in enumerate(counts))
            numbered.append((before, image))
        self._waiting = [(position, image) for position, image in numbered if position < self._num_samples]
        self.settled = True

    def chunks(self, *, whole_only: bool) -> list[Chunk]:
        """Hand out chunks, with ``whole_only`` just those that are full. Images of different size never share one."""
        handed: list[Chunk] = []
        while self._waiting:
            size = self._waiting[0][1].shape
            alike = next((i for i, (_, image) in enumerate(self._waiting) if image.shape != size), len(self._waiting))
            count = min(alike, self.chunk_size)
            if whole_only and count == len(self._waiting) < self.chunk_size:
                break
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            positions = torch.tensor([position for position, _ in taken])
            handed.append(Chunk(_stacked([image for _, image in taken]), positions))
        return handed


def _stacked(images: list[Tensor]) -> Tensor:
    """Stack images in the memory format that they came in; a network in `channels_last` is slower with another."""
    first = images[0]
    stacked = torch.stack(images)
    if first.is_contiguous() or not first[None].is_contiguous(memory_format=torch.channels_last):
        return stacked
    return stacked.contiguous(memory_format=torch.channels_last)


def find_numbering(loader: Any, *, rank: int, world_size: int) -> Numbering:
    """Tell how a loader of one process numbers the images of the whole data set.

    Args:
        loader: The process's own data loader.
        rank: Of this process.
        world_size: Number of processes.

    Returns:
        The numbering. Equal positions mean the same image on all processes, so every image is measured once: the
        copies that a ``DistributedSampler`` appends to fill its shards are ``NOT_MINE``, and if every process sees all
        data, each takes its share.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(range(5), sampler=DistributedSampler(range(5), 2, 1, shuffle=False))
        >>> numbering = find_numbering(loader, rank=1, world_size=2)
        >>> [numbering.number(index) for index in range(3)]
        [1, 3, -1]
    """
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None) or getattr(loader, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        length, replicas, own = len(sampler.dataset), sampler.num_replicas, sampler.rank  # type: ignore[arg-type]
        return Numbering(lambda index: _below(index * replicas + own, length))
    streamed = isinstance(getattr(loader, "dataset", None), IterableDataset)
    if world_size > 1 and isinstance(sampler, SequentialSampler) and not streamed:
        return Numbering(lambda index: index if index % world_size == rank else NOT_MINE)
    return Numbering(settled=world_size == 1)


def _below(position: int, length: int) -> int:
    return position if position < length else NOT_MINE
