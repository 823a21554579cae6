"""The pictures of the gallery, as part of the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_camrobust.study.findings import GalleryItem

if TYPE_CHECKING:
    from PIL.Image import Image

# All pictures together may take this many bytes before they are packed tighter for the page.
GENEROUS = 1_200_000
WIDEST = 1500
QUALITY = 65


@dataclass(frozen=True)
class Picture:
    """One picture of the page.

    Attributes:
        title: What it shows.
        alt: What is seen.
        file: Where the original lies, relative to the study's folder, with the folder's name where that is another.
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
        items: Pictures. A relative path is one below ``folder``, and treated as missing if it leads out of it; a whole
            path was checked by whoever found it, as pictures of a report on several studies lie in their own folders.
        folder: Of the page.
        generous: Bytes that all may take as they are. Beyond that each is packed, at most 1500 pixels wide.

    Returns:
        One picture an item; without a source where the file is missing or no picture.
    """
    read = [_read(folder, item.file) for item in items]
    items = [replace(item, file=_shown_path(folder, item.file)) for item in items]
    tight = sum(map(len, read)) > generous
    return tuple(_embed(item, content, tight=tight) for item, content in zip(items, read, strict=True))


def _read(folder: Path, file: str) -> bytes:
    path = (folder / file).resolve()
    allowed = Path(file).is_absolute() or path.is_relative_to(folder.resolve())
    return path.read_bytes() if allowed and path.is_file() else b""


def _shown_path(folder: Path, file: str) -> str:
    """Name a picture without saying where on this disk it lies: a page is passed on."""
    path = Path(file)
    if not path.is_absolute():
        return file
    if path.is_relative_to(folder.resolve()):
        return path.relative_to(folder.resolve()).as_posix()
    return f"{path.parent.name}/{path.name} of {path.parent.parent.name}"


def _embed(item: GalleryItem, content: bytes, *, tight: bool) -> Picture:
    from PIL import Image as images
    from PIL import UnidentifiedImageError

    try:
        with images.open(io.BytesIO(content)) as image:
            size, kind = image.size, str(image.format).lower()
            if tight:
                content, kind = _packed(image.convert("RGB"))
    except (UnidentifiedImageError, OSError):
        return Picture(item.title, item.alt, item.file, "", 0, 0)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(item.title, item.alt, item.file, source, *size)


def _packed(image: "Image") -> tuple[bytes, str]:
    from PIL import features

    kind = "webp" if features.check("webp") else "jpeg"
    image.thumbnail((WIDEST, WIDEST * 4))
    buffer = io.BytesIO()
    image.save(buffer, format=kind.upper(), quality=QUALITY)
    return buffer.getvalue(), kind
