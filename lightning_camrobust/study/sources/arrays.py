"""Turn arrays and tensors of users into pixels."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pixels import PixelSpace

_CHANNELS = (1, 3, 4)
# What half precision and the undoing of a normalisation may be off by.
_TOLERANCE = 1e-3


def pixels_of_array(value: NDArray[np.generic] | Tensor, *, space: PixelSpace | None, name: str) -> Tensor:
    """Turn one image into pixels.

    Args:
        value: ``(H, W)``, ``(c, H, W)`` or ``(H, W, c)``; uint8, uint16, or float in [0, 1].
        space: How floats were normalised; None if they were not.
        name: For messages.

    Returns:
        ``(c, H, W)`` float32 in [0, 1].

    Raises:
        ArgumentError: If shape, dtype or range is something else.

    Example:
        >>> pixels_of_array(np.full((8, 9, 3), 255, dtype=np.uint8), space=None, name="0").shape
        torch.Size([3, 8, 9])
    """
    array = _as_array(value)
    last = _channels_last(array.shape, tensor=isinstance(value, Tensor), name=name)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1) if last else array
    if array.size == 0:
        raise ArgumentError(
            f"open_images: {name!r} has no pixels, its shape is {array.shape}. Leave it out of the data."
        )
    if array.dtype in (np.uint8, np.uint16):
        if space is not None:
            raise ArgumentError(
                f"open_images: `mean` and `std` undo a normalisation, but {name!r} is {array.dtype}, which is not "
                "normalised. Leave them out here; those of the network go to StudyModel."
            )
        white = 255 if array.dtype == np.uint8 else 65535
        return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32))) / white
    if array.dtype.kind != "f":
        raise ArgumentError(
            f"open_images: {name!r} must be uint8, uint16, or float in [0, 1], got {array.dtype}. If its values are "
            "0..255, convert it: images.astype('uint8')."
        )
    return _within(array.astype(np.float64), space, name)


def _within(array: NDArray[np.float64], space: PixelSpace | None, name: str) -> Tensor:
    if not np.isfinite(array).all():
        raise ArgumentError(f"open_images: {name!r} holds NaN or infinity. Repair it, or leave it out of the data.")
    pixels = array if space is None else _undo(array, space, name)
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ArgumentError(
            f"open_images: {name!r} must lie in [0, 1], but its values go from {low:.4g} to {high:.4g}"
            f"{_advice(low, high, space)}"
        )
    return torch.from_numpy(pixels.clip(0, 1)).float()


def _advice(low: float, high: float, space: PixelSpace | None) -> str:
    if space is not None:
        return (
            f" after mean={space.mean} and std={space.std} were undone. Pass the constants of the Normalize that this "
            "very data set applies."
        )
    if low >= 0 and high <= 255 and high > 2:
        return ". They look like 0..255: convert to uint8, or divide by 255, or pass mean=0, std=1/255."
    return (
        ". The data set seems to normalise its images: pass the mean= and std= of its Normalize, which are then "
        "undone, for example mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]; or take Normalize out of its "
        "transforms. If it is an interpolation that overshoots, add clamp(0, 1)."
    )


def _undo(array: NDArray[np.float64], space: PixelSpace, name: str) -> NDArray[np.float64]:
    mean, std = (np.asarray(values, dtype=np.float64).reshape(-1, 1, 1) for values in (space.mean, space.std))
    if len(mean) not in (1, len(array)):
        raise ArgumentError(
            f"open_images: `mean` and `std` must hold one value, or one a channel ({len(array)} in {name!r}), "
            f"got {len(mean)}."
        )
    return array * std + mean


def _as_array(value: NDArray[np.generic] | Tensor) -> NDArray[np.generic]:
    if not isinstance(value, Tensor):
        return value
    dense = value.detach().cpu()
    return np.asarray((dense.float() if dense.is_floating_point() else dense).numpy())


def _channels_last(shape: tuple[int, ...], *, tensor: bool, name: str) -> bool:
    if len(shape) == 2:
        return False
    if len(shape) != 3:
        raise ArgumentError(
            f"open_images: {name!r} must be one image (H, W), (c, H, W) or (H, W, c), got shape {shape}. Several "
            "images in one item, or videos, must be separate items."
        )
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if tensor:
        return last and not first
    if first == last:
        raise ArgumentError(
            f"open_images: {name!r} has shape {shape}, in which the axis of the channels cannot be told. Give torch "
            "tensors (c, H, W), or arrays with 1, 3 or 4 channels on one end only."
        )
    return last
