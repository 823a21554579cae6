"""Cut elementwise work on a batch into pieces that stay in the processor's cache."""

from torch import Tensor

# Values in a block. A dozen passes over 1 MiB of float32 run from the cache of one core, over 20 MiB from memory.
_BLOCK_VALUES = 2**18


def cache_blocks(images: Tensor) -> list[slice]:
    """List the blocks of a batch that elementwise work should take one after the other.

    On an accelerator the whole batch is one block, since there a launch costs more than a pass over memory.

    Args:
        images: ``(b, ...)``.

    Returns:
        Slices of the first axis, in order; none for an empty batch.

    Example:
        >>> import torch
        >>> cache_blocks(torch.zeros(3, 3, 224, 224))
        [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    count = len(images)
    if not count:
        return []
    size = count if images.device.type != "cpu" else max(1, _BLOCK_VALUES // max(1, images[0].numel()))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
