"""Check images before anything is done with them."""

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError


def check_images(images: Tensor, *, volumes: bool = False) -> None:
    """Check that a tensor is a batch of images that a network can be probed with.

    Args:
        images: What was given.
        volumes: Whether ``(b, c, D, H, W)`` is accepted as well.

    Raises:
        ArgumentError: If it is no float tensor ``(b, c, H, W)`` with at least one image and finite pixels.

    Example:
        >>> check_images(torch.rand(1, 3, 8, 8))
    """
    if not isinstance(images, Tensor):
        raise ArgumentError(f"`images` must be a tensor (b, c, H, W), got {type(images).__name__}.")
    if images.dim() != 4 and not (volumes and images.dim() == 5):
        raise ArgumentError(
            f"`images` must be 4-d (b, c, H, W), got {images.dim()}-d with shape {tuple(images.shape)}. "
            "Add a batch axis to a single image with images[None]."
        )
    if images.numel() == 0:
        raise ArgumentError(f"`images` must hold at least one image, got shape {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise ArgumentError(f"`images` must be floating point, as the model takes them; got {images.dtype}.")
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ArgumentError(
            f"`images` must have finite pixels; {len(bad)} of {len(images)} images hold NaN or infinity "
            f"(positions {bad[:5]}{'...' if len(bad) > 5 else ''}). Repair or drop them before they reach the model."
        )
