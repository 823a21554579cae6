"""Turn pictures of PIL, of any mode, into pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.sources.framing import Framing

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262
_WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
# JPEGs of telephones hold previews behind the picture; in these formats each frame is a picture of its own.
_SEVERAL_PICTURES = {"TIFF", "WEBP", "PNG", "GIF"}


def read_picture(path: Path, framing: Framing, *, name: str) -> Tensor:
    """Read an image file.

    Args:
        path: Where it lies.
        framing: Size and channels; three channels if it does not say.
        name: For messages.

    Returns:
        ``(c, H, W)`` float32 in [0, 1].

    Raises:
        ArgumentError: If it cannot be read to its end.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return pixels_of_picture(picture, framing, name=name)
    except ArgumentError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def picture_shape(path: Path, *, name: str) -> tuple[int, int]:
    """Read height and width, as shown, from the head of an image file.

    Args:
        path: Where it lies.
        name: For messages.

    Returns:
        ``(H, W)`` after the turn that EXIF asks for.

    Raises:
        ArgumentError: If the file is no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            # PIL turns a TIFF by itself.
            turned = picture.format != "TIFF" and picture.getexif().get(_ORIENTATION) in {5, 6, 7, 8}
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except Exception as error:
        raise _unreadable(name, error) from error


def pixels_of_picture(picture: "Image", framing: Framing, *, name: str) -> Tensor:
    """Turn a PIL picture into pixels.

    The turn that EXIF asks for is made. Transparency becomes white. More than 8 bits are scaled by what they can hold.

    Args:
        picture: Of any mode.
        framing: Size and channels; three channels if it does not say.
        name: For messages.

    Returns:
        ``(c, H, W)`` float32 in [0, 1].

    Raises:
        ArgumentError: If it holds several pictures, its values have no known range, or its file is damaged.

    Example:
        >>> from PIL import Image
        >>> pixels_of_picture(Image.new("L", (4, 2), 51), Framing(), name="a.png")[:, 0, 0]
        tensor([0.2000, 0.2000, 0.2000])
    """
    try:
        return _convert(picture, framing, name)
    except ArgumentError:
        raise
    except Exception as error:
        # PIL reads a file only when its pixels are asked for.
        raise _unreadable(name, error) from error


def _convert(picture: "Image", framing: Framing, name: str) -> Tensor:
    from PIL import Image, ImageOps

    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format in _SEVERAL_PICTURES:
        raise ArgumentError(
            f"open_images: {name!r} holds {frames} pictures (pages or frames). Save the one to be measured by itself."
        )
    if picture.mode.startswith("I") or picture.mode == "F":
        turned = ImageOps.exif_transpose(picture)
        grey = torch.from_numpy(np.array(turned).astype(np.float64) / _brightest(picture, name=name)).float()[None]
        colour = Framing(channels=framing.channels or 3)
        return framing.of_pixels(colour.of_channels(_in_range(grey, name), name=name))
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _WITH_ALPHA or "transparency" in upright.info:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    framed = framing.of_picture(upright.convert("L" if framing.channels == 1 else "RGB"))
    bytes_ = torch.from_numpy(np.array(framed))
    return (bytes_[None] if bytes_.dim() == 2 else bytes_.permute(2, 0, 1)).contiguous().float() / 255


def _brightest(picture: "Image", *, name: str) -> float:
    """Return the value that stands for white in a picture of more than 8 bits."""
    if picture.mode == "F":
        return 1.0
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        raise ArgumentError(
            f"open_images: {name!r} is a TIFF of more than 8 bits in which 0 means white, which is read differently "
            "by different libraries. Save it with 0 as black."
        )
    bits = tags.get(_BITS, (16,))[0]
    if bits > 16:
        raise ArgumentError(
            f"open_images: {name!r} holds whole numbers of {bits} bits, and nothing says which one is white. Save it "
            "as uint8 or uint16 over the whole range, or as float32 in [0, 1]."
        )
    return float(2**bits - 1)


def _in_range(pixels: Tensor, name: str) -> Tensor:
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise ArgumentError(
            f"open_images: {name!r} must lie in [0, 1], but its values go from {pixels.min().item():.4g} to "
            f"{pixels.max().item():.4g}. Save it as uint8 or uint16 over the whole range, or as float32 in [0, 1]."
        )
    return pixels


def _unreadable(name: str, error: Exception) -> ArgumentError:
    return ArgumentError(
        f"open_images: {name!r} cannot be read as an image ({type(error).__name__}: {str(error)[:160]}). It may be "
        "damaged or cut short. Repair it, or move it out of the data; nothing is left out silently."
    )
