"""Activation checkpointing: what it runs, it runs again in the backward pass, where no context of ours is left."""

import sys
from types import FrameType

import torch.utils.checkpoint


def inside_checkpointing() -> bool:
    """Say whether the code that asks is run by ``torch.utils.checkpoint``.

    Returns:
        True if it is, for the first time or again.

    Example:
        >>> torch.utils.checkpoint.checkpoint(inside_checkpointing, use_reentrant=False), inside_checkpointing()
        (True, False)
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
        frame = frame.f_back
    return False
