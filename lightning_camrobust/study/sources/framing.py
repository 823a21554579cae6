"""Bring images to one size and one number of channels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["bilinear", "bicubic"]
# Weights of red, green and blue in grey: ITU-R BT.601, as in PIL.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Framing:
    """How images are resized and cut; build it with :func:`make_framing`.

    Attributes:
        resize: Length that the shorter side gets; None leaves images as they are.
        crop: Side of the square that is cut out of the centre.
        interpolation: Of the resizing, always with antialiasing.
        channels: 1 for grey, 3 for colour, None for what the source has.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation = "bilinear"
    channels: int | None = None

    def of_picture(self, picture: "Image") -> "Image":
        """Frame a PIL picture of 8 bits a channel."""
        from PIL import Image

        if self.resize is None or self.crop is None:
            return picture
        height, width = self._resized(picture.height, picture.width)
        if (width, height) != picture.size:
            method = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
            picture = picture.resize((width, height), method)
        top, left = _middle(height, self.crop), _middle(width, self.crop)
        return picture.crop((left, top, left + self.crop, top + self.crop))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Frame pixels ``(c, H, W)`` in [0, 1]."""
        if self.resize is None or self.crop is None:
            return pixels
        height, width = self._resized(*pixels.shape[1:])
        if (height, width) != tuple(pixels.shape[1:]):
            resized = interpolate(pixels[None], (height, width), mode=self.interpolation, antialias=True)[0]
            # Bicubic interpolation overshoots at edges.
            pixels = resized.clamp(0, 1)
        top, left = _middle(height, self.crop), _middle(width, self.crop)
        return pixels[:, top : top + self.crop, left : left + self.crop].contiguous()

    def of_channels(self, pixels: Tensor, *, name: str) -> Tensor:
        """Give pixels ``(c, H, W)`` the number of channels that was asked for; transparency becomes white."""
        have = pixels.shape[0]
        if self.channels is None or have == self.channels:
            return pixels
        if have == 4:
            colour, opaque = pixels[:3], pixels[3:]
            return self.of_channels(colour * opaque + (1 - opaque), name=name)
        if have == 1:
            return pixels.expand(3, -1, -1).contiguous()
        if have == 3:
            weights = torch.tensor(_LUMINANCE, dtype=pixels.dtype).view(3, 1, 1)
            return (pixels * weights).sum(dim=0, keepdim=True).clamp(0, 1)
        raise ArgumentError(
            f"open_images: {name!r} has {have} channels, which cannot be made into channels={self.channels}. Leave "
            "channels out to keep them."
        )

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        assert self.resize is not None
        short, long = sorted((height, width))
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)


def make_framing(
    size: int | tuple[int, int] | None, *, interpolation: Interpolation = "bilinear", channels: int | None = None
) -> Framing:
    """Check what the user said about size and channels.

    Args:
        size: Side of the images in pixels: the shorter side is resized to it and the centre cut out. Two numbers
            ``(resize, crop)``, such as ``(256, 224)``, cut out less than is resized. None leaves images as they are.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        channels: 1, 3 or None.

    Returns:
        The framing.

    Raises:
        ArgumentError: If a value is none of these.

    Example:
        >>> make_framing(8).of_pixels(torch.rand(3, 16, 32)).shape
        torch.Size([3, 8, 8])
    """
    if interpolation not in get_args(Interpolation):
        raise ArgumentError(f"open_images: `interpolation` must be 'bilinear' or 'bicubic', got {interpolation!r}.")
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise ArgumentError(
            f"open_images: `channels` must be 1 (grey), 3 (colour) or None (as the source has them), got {channels!r}."
        )
    if size is None:
        return Framing(None, None, interpolation, channels)
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if len(sides) != 2 or not whole or sides[1] > sides[0]:
        raise ArgumentError(
            "open_images: `size` must be a whole number of pixels above 0, or two of them (resize, crop) with crop not "
            f"above resize, such as (256, 224), or None; got {size!r}."
        )
    return Framing(sides[0], sides[1], interpolation, channels)


def _middle(length: int, part: int) -> int:
    # Rounded as torchvision's CenterCrop rounds it, half to even.
    return round((length - part) / 2)
