"""The pictures of the gallery, as part of the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_camrobust.study.findings import GalleryItem

if TYPE_CHECKING:
    from PIL.Image import Image

# All pictures together may take this many bytes before they are packed tighter for the page.
GENEROUS = 1_200_000
WIDEST = 900
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One picture of the page.

    Attributes:
        title: What it shows.
        alt: What is seen.
        file: Where the original lies, relative to the study's folder.
        source: A ``data:`` address; empty if there is no such picture.
        width: In pixels; 0 if there is none.
        height: In pixels; 0 if there is none.
    """

    title: str
    alt: str
    file: str
    source: str
    width: int
    height: int


def embed_pictures(items: Sequence[GalleryItem], folder: Path, *, generous: int = GENEROUS) -> tuple[Picture, ...]:
    """Read the pictures of a gallery.

    Args:
        items: Pictures, by a path relative to ``folder``; one outside of it is treated as missing.
        folder: Of the study.
        generous: Bytes that all may take as they are. Beyond that each is made JPEG of at most 900 pixels width.

    Returns:
        One picture an item; without a source where the file is missing or no picture.
    """
    read = [_read(folder, item.file) for item in items]
    tight = sum(map(len, read)) > generous
    return tuple(_embed(item, content, tight=tight) for item, content in zip(items, read, strict=True))


def _read(folder: Path, file: str) -> bytes:
    path = (folder / file).resolve()
    return path.read_bytes() if path.is_relative_to(folder.resolve()) and path.is_file() else b""


def _embed(item: GalleryItem, content: bytes, *, tight: bool) -> Picture:
    from PIL import Image as images
    from PIL import UnidentifiedImageError

    try:
        with images.open(io.BytesIO(content)) as image:
            size, kind = image.size, str(image.format).lower()
            if tight:
                content, kind = _packed(image.convert("RGB")), "jpeg"
    except (UnidentifiedImageError, OSError):
        return Picture(item.title, item.alt, item.file, "", 0, 0)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(item.title, item.alt, item.file, source, *size)


def _packed(image: "Image") -> bytes:
    image.thumbnail((WIDEST, WIDEST * 4))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
