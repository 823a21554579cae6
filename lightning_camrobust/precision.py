"""Numbers must not depend on the dtype that somebody made torch's default, as Lightning does in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Let new tensors be float32 inside the block.

    Yields:
        Nothing.

    Example:
        >>> torch.set_default_dtype(torch.float64)
        >>> with float32_by_default():
        ...     torch.zeros(1).dtype
        torch.float32
        >>> torch.zeros(1).dtype
        torch.float64
        >>> torch.set_default_dtype(torch.float32)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
