"""A fill of one's own."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Randomness


@dataclass(frozen=True, repr=False)
class Custom:
    """Fill with a colour, a picture, or what a function makes of the image.

    Attributes:
        fill: A colour ``(c,)`` or a picture ``(c, H, W)`` in [0, 1], as a tensor or as nested tuples, kept as tuples of
            floats so that two equal ones are equal. A colour for another number of channels gives its mean in every
            channel. Or a function from pixels ``(b, c, H, W)`` to pixels of the same shape, whose result is clipped;
            it should treat every image on its own and has to be importable by name if the baseline is to be pickled.

    Raises:
        ArgumentError: If the fill is of another shape or leaves [0, 1].

    Example:
        >>> Custom(torch.tensor([1.0, 0.0, 0.5]))
        Custom(fill=(1.0, 0.0, 0.5))
    """

    fill: Any

    def __post_init__(self) -> None:
        if not callable(self.fill):
            object.__setattr__(self, "fill", _as_tuples(_checked(self.fill).tolist()))

    def __repr__(self) -> str:
        if callable(self.fill):
            # A function's own repr shows its address, which is another one in the next process.
            module, name = getattr(self.fill, "__module__", ""), getattr(self.fill, "__qualname__", None)
            return f"Custom(fill={self.fill!r})" if name is None else f"Custom(fill={module}.{name})"
        if isinstance(self.fill[0], float):
            return f"Custom(fill={self.fill!r})"
        size = "x".join(map(str, _as_tensor(self.fill).shape))
        return f"Custom(fill=<picture {size}, crc32 {zlib.crc32(repr(self.fill).encode()):08x}>)"

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return the fill ``(b, c, H, W)`` in the dtype of ``pixels``."""
        if callable(self.fill):
            return _call(self.fill, pixels)
        picture = _as_tensor(self.fill)
        if picture.dim() == 1:
            fits = len(picture) == pixels.shape[1]
            picture = (picture if fits else picture.mean(dim=0, keepdim=True))[:, None, None]
        elif picture.shape != pixels.shape[1:]:
            raise ArgumentError(
                f"Custom: `fill` is a picture (c, H, W) = {tuple(picture.shape)}, but the images are "
                f"{tuple(pixels.shape[1:])}. Pass one of their size, or a colour (c,)."
            )
        return picture.to(pixels.device, pixels.dtype).expand(pixels.shape).clone()


def _call(function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    made = function(pixels.clone())
    if not isinstance(made, Tensor) or made.shape != pixels.shape or not bool(made.isfinite().all()):
        came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ArgumentError(
            f"Custom: the function `fill` must return finite pixels (b, c, H, W) = {tuple(pixels.shape)}, got {came}."
        )
    return made.to(pixels).clamp(0, 1)


def _checked(fill: Any) -> Tensor:
    try:
        picture = _as_tensor(fill)
    except (TypeError, ValueError):
        picture = torch.empty(0)
    if picture.dim() not in (1, 3) or not picture.numel() or not bool(((picture >= 0) & (picture <= 1)).all()):
        came = f"shape {tuple(fill.shape)}" if isinstance(fill, Tensor) else f"{fill!r:.80}"
        raise ArgumentError(
            "Custom: `fill` must be a colour (c,) or a picture (c, H, W) with values in [0, 1] (pixel units), or a "
            f"function from pixels to pixels; got {came}."
        )
    return picture


def _as_tensor(fill: Any) -> Tensor:
    if isinstance(fill, Tensor):
        return fill.detach().double().cpu()
    return torch.tensor(fill, dtype=torch.float64, device="cpu")


def _as_tuples(nested: Any) -> Any:
    return tuple(_as_tuples(each) for each in nested) if isinstance(nested, list) else float(nested)


def mirrored(pixels: Tensor) -> Tensor:
    """Turn pixels ``(b, c, H, W)`` left to right.

    Args:
        pixels: Any tensor ``(b, c, H, W)``.

    Returns:
        A turned copy.

    Example:
        >>> mirrored(torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[[[1., 0.]]]])
    """
    return pixels.flip(3)


EXAMPLES = (Custom((1.0, 0.0, 1.0)), Custom(mirrored))
