"""Images that lie as files in a folder."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.image import StudyImage, spread, unequal_shapes
from lightning_camrobust.study.sources.framing import Framing
from lightning_camrobust.study.sources.labels import (
    UNKNOWN,
    check_folder_names,
    labels_from_expression,
    labels_from_folders,
)
from lightning_camrobust.study.sources.pictures import picture_shape, read_picture
from lightning_camrobust.study.sources.tables import labels_from_table

_READ = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# Images too, so leaving them out would be a silent loss.
_NOT_READ = {".gif", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".dcm"}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FolderSource:
    """Files of a folder, an :class:`~lightning_camrobust.study.image.ImageSource`; made by :func:`open_folder`.

    Attributes:
        root: The folder.
        files: Paths relative to it, with slashes; also the names of the images.
        labels: One a file.
        framing: Size and channels.
        name: Of the data set.
    """

    root: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    framing: Framing
    name: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> StudyImage:
        index = range(len(self))[index]
        file = self.files[index]
        name = _readable(file)
        return StudyImage(read_picture(self.root / file, self.framing, name=name), self.labels[index], name, index)

    def known_labels(self) -> tuple[int, ...]:
        """Return the label of every image."""
        return self.labels

    def fingerprint(self) -> str:
        """Return a SHA-256 over names, labels, contents of the files and framing."""
        digest = hashlib.sha256(f"{self.framing!r}\0".encode())
        for file, label in zip(self.files, self.labels, strict=True):
            # Names of files are bytes, and need not be UTF-8.
            digest.update(f"{file}\0{label}\0".encode(errors="surrogateescape"))
            digest.update(_digest(self.root / file, _readable(file)))
        return digest.hexdigest()


def open_folder(
    root: Path, *, framing: Framing, labels: str | Path | None, num_images: int | None, name: str | None
) -> FolderSource:
    """Find the images of a folder.

    Args:
        root: The folder, searched with all folders below it; what is hidden (a leading dot) is not looked at.
        framing: Size and channels.
        labels: None or ``"folders"``: the folders right below are the classes, in sorted order; no such folders, no
            labels. ``"none"``: no labels. Else a CSV file, or a regular expression with one group.
        num_images: Evenly spaced over the sorted names; None takes all.
        name: None takes the folder's.

    Returns:
        The images, sorted by name.

    Raises:
        ArgumentError: If there are none, labels do not fit, or shapes differ and no size was given.
    """
    files = _find_files(root)
    found = _labels(files, root, labels)
    chosen = spread(len(files), num_images)
    source = FolderSource(
        root,
        tuple(files[position] for position in chosen),
        tuple(found[position] for position in chosen),
        framing,
        name or root.resolve().name,
    )
    if framing.resize is None:
        _check_shapes(source)
    return source


def _find_files(root: Path) -> list[str]:
    visible = sorted(_visible_files(root))
    foreign = [file for file in visible if Path(file).suffix.lower() in _NOT_READ]
    if foreign:
        raise ArgumentError(
            f"open_images: {str(root)!r} holds {len(foreign)} images of a kind that is not read ({foreign[0]!r} is the "
            "first). Convert them to PNG, or move them away; nothing is left out silently."
        )
    files = [file for file in visible if Path(file).suffix.lower() in _READ]
    if not files:
        held = f"{len(visible)} other files, such as {visible[0]!r}" if visible else "nothing"
        raise ArgumentError(
            f"open_images: the folder {str(root)!r} holds no images ({', '.join(sorted(_READ))}), but {held}. Check "
            "the path."
        )
    return files


def _visible_files(root: Path) -> Iterator[str]:
    """List all files below a folder, links to folders followed, as torchvision's ImageFolder follows them."""

    def refuse(error: OSError) -> None:
        raise ArgumentError(f"open_images: a folder of `data` cannot be read: {error}. Check its rights.") from error

    for place, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(place)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        around = here.resolve()
        for folder in folders:
            if (here / folder).is_symlink() and around.is_relative_to((here / folder).resolve()):
                raise ArgumentError(
                    f"open_images: the link {str(here / folder)!r} leads back to a folder that it lies in. Remove it."
                )
        yield from ((here / file).relative_to(root).as_posix() for file in files if not file.startswith("."))


def _labels(files: list[str], root: Path, labels: str | Path | None) -> list[int]:
    folders = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if labels is None and any("/" in file for file in files):
        found = labels_from_folders(files, folders, root=root)
        check_folder_names(folders, root=root)
        return found
    if labels is None or labels == "none":
        return [UNKNOWN] * len(files)
    if labels == "folders":
        return labels_from_folders(files, folders, root=root)
    table = next((path for path in (Path(labels).expanduser(), root / labels) if path.is_file()), None)
    if table is not None:
        return labels_from_table(files, table)
    if isinstance(labels, Path) or labels.lower().endswith(".csv"):
        raise ArgumentError(f"open_images: `labels` {str(labels)!r} does not exist. Check the path of the CSV file.")
    return labels_from_expression(files, labels)


def _check_shapes(source: FolderSource) -> None:
    first = source.files[0]
    shape = picture_shape(source.root / first, name=first)
    for file in source.files[1:]:
        other = picture_shape(source.root / file, name=file)
        if other != shape:
            raise unequal_shapes(first, shape, file, other)


def _readable(file: str) -> str:
    """Write a file's name as text that can be stored and printed; bytes that are not UTF-8 get backslashes."""
    return file.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _digest(path: Path, name: str) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ArgumentError(
            f"open_images: {name!r} cannot be read any more: {error}. Has it been moved since the study was started?"
        ) from error
    return digest.digest()
