"""Decide how many noisy copies of a batch go through the network together."""

import torch

# Images in one pass beyond which an accelerator is busy anyway.
_ENOUGH_IMAGES = 256
# Share of the free memory that may be filled. What a pass allocates in all is several times its peak, so even this
# share is hardly ever needed.
_SHARE = 0.5


class PassMeter:
    """Watch what one pass allocates on an accelerator.

    Begin before the pass, ask after it. No statistics are reset, since they are the user's. On a CPU the answer is
    always 1: there a larger batch is no faster, and the caches are small.

    Args:
        device: Where the pass runs.

    Example:
        >>> PassMeter(torch.device("cpu")).copies(images=32)
        1
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = _allocated(device)

    def copies(self, *, images: int) -> int:
        """Say how many copies of a batch fit.

        Args:
            images: How many images the pass held.

        Returns:
            1 or more.
        """
        if self._device.type != "cuda":
            return 1
        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return copies_that_fit(images=images, pass_bytes=_allocated(self._device) - self._before, free_bytes=free)


def copies_that_fit(*, images: int, pass_bytes: int, free_bytes: int) -> int:
    """Say how many copies of a batch go through the network together.

    Args:
        images: How many images one copy has.
        pass_bytes: What a pass of one copy allocates in all.
        free_bytes: Memory that is free.

    Returns:
        1 or more.

    Example:
        >>> copies_that_fit(images=32, pass_bytes=10, free_bytes=80)
        4
    """
    by_memory = int(free_bytes * _SHARE) // max(1, pass_bytes)
    return max(1, min(_ENOUGH_IMAGES // max(1, images), by_memory))


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats(device).get("allocated_bytes.all.allocated", 0))
