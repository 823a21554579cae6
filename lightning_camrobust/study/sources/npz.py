"""Images that lie as arrays in an .npz file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.study.image import StudyImage, spread
from lightning_camrobust.study.sources.arrays import pixels_of_array
from lightning_camrobust.study.sources.framing import Framing
from lightning_camrobust.study.sources.labels import UNKNOWN, as_label

# Test data before validation data before data that are not split. Training data are taken only if named.
_TIERS = (
    (("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y")),
    (("x_val", "y_val"), ("X_val", "y_val"), ("val_images", "val_labels"), ("val_x", "val_y")),
    (("images", "labels"), ("image", "label"), ("x", "y"), ("X", "y"), ("data", "labels"), ("data", "target")),
)
_TRAINING = (("x_train", "y_train"), ("X_train", "y_train"), ("train_images", "train_labels"), ("train_x", "train_y"))


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of arrays, an :class:`~lightning_camrobust.study.image.ImageSource`; made by :func:`open_npz`.

    Attributes:
        pixels: One image a row.
        labels: One a row.
        rows: Position of each row in the file; also the names of the images.
        framing: Size and channels.
        space: How floats were normalised.
        name: Of the data set.
    """

    pixels: NDArray[np.generic]
    labels: tuple[int, ...]
    rows: tuple[int, ...]
    framing: Framing
    space: PixelSpace | None
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> StudyImage:
        index = range(len(self))[index]
        name = str(self.rows[index])
        pixels = pixels_of_array(self.pixels[index], space=self.space, name=name)
        framed = self.framing.of_channels(self.framing.of_pixels(pixels), name=name)
        return StudyImage(framed, self.labels[index], name, index)

    def known_labels(self) -> tuple[int, ...]:
        """Return the label of every image."""
        return self.labels

    def fingerprint(self) -> str:
        """Return a SHA-256 over positions, labels, bytes of the array and framing."""
        settings = self.framing, self.space, self.rows, self.labels, self.pixels.dtype.str, self.pixels.shape
        digest = hashlib.sha256(repr(settings).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()


def open_npz(
    file: Path,
    *,
    framing: Framing,
    space: PixelSpace | None,
    images: str | None,
    labels: str | Path | None,
    num_images: int | None,
    name: str | None,
) -> ArraySource:
    """Find images and labels in an .npz file.

    Args:
        file: The file.
        framing: Size and channels.
        space: How floats were normalised.
        images: Key of the images, ``(n, H, W)``, ``(n, H, W, c)`` or ``(n, c, H, W)``; None to find it.
        labels: Key of the labels, ``(n,)`` integers; ``"none"`` for no labels; None to find it.
        num_images: Evenly spaced; None takes all.
        name: None takes the file's.

    Returns:
        The images, in the order of the file.

    Raises:
        ArgumentError: If they cannot be found, or do not belong together.
    """
    with _opened(file) as arrays:
        images_key, labels_key = _choose(arrays.files, file, images, None if labels is None else str(labels))
        pixels = _read(arrays, images_key, file)
        found = None if labels_key is None else _read(arrays, labels_key, file)
    _check_images(pixels, images_key, file)
    chosen = spread(len(pixels), num_images)
    known = _labels(found, len(pixels), file)
    rows = pixels if len(chosen) == len(pixels) else pixels[list(chosen)]
    source = ArraySource(rows, tuple(known[row] for row in chosen), chosen, framing, space, name or file.stem)
    _ = source[0]
    return source


def _opened(file: Path) -> Any:
    opened: Any
    try:
        opened = np.load(file, allow_pickle=False)
    except Exception as error:
        raise ArgumentError(
            f"open_images: {str(file)!r} cannot be read as an .npz file ({type(error).__name__}: {str(error)[:120]}). "
            "Write it with np.savez(file, images=..., labels=...)."
        ) from error
    if not hasattr(opened, "files"):
        raise ArgumentError(
            f"open_images: {str(file)!r} holds a single array. Write images and labels into one file: "
            "np.savez(file, images=..., labels=...)."
        )
    return opened


def _read(arrays: Any, key: str, file: Path) -> NDArray[np.generic]:
    try:
        return np.asarray(arrays[key])
    except Exception as error:
        raise ArgumentError(
            f"open_images: array {key!r} of {str(file)!r} cannot be read ({type(error).__name__}: {str(error)[:120]}). "
            "The file may be damaged, or hold Python objects; write plain number arrays with np.savez."
        ) from error


def _choose(keys: Sequence[str], file: Path, images: str | None, labels: str | None) -> tuple[str, str | None]:
    images = _find_images(keys, file) if images is None else _known(images, "images", keys, file)
    if labels == "none" and labels not in keys:
        return images, None
    return images, _find_labels(keys, file, images) if labels is None else _known(labels, "labels", keys, file)


def _known(key: str, argument: str, keys: Sequence[str], file: Path) -> str:
    if key not in keys:
        raise UnknownNameError(
            f"open_images: `{argument}`: {str(file)!r} has no array named {key!r}; it holds {_listed(keys)}."
        )
    return key


def _find_images(keys: Sequence[str], file: Path) -> str:
    for tier in _TIERS:
        found = list(dict.fromkeys(images for images, _ in tier if images in keys))
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise ArgumentError(
        f"open_images: it cannot be told which array of {str(file)!r} holds the images; it holds {_listed(keys)}. Say "
        "so: images='x_train', labels='y_train'."
    )


def _find_labels(keys: Sequence[str], file: Path, images: str) -> str | None:
    pairs = [pair for tier in (*_TIERS, _TRAINING) for pair in tier]
    found = [labels for each, labels in pairs if each == images and labels in keys]
    if len(found) == 1:
        return found[0]
    if len(keys) == 1:
        return None
    raise ArgumentError(
        f"open_images: it cannot be told which array of {str(file)!r} holds the labels of {images!r}; it holds "
        f"{_listed(keys)}. Say so: labels='y', or labels='none' if the classes are not known."
    )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys) or "nothing"


def _labels(found: NDArray[np.generic] | None, count: int, file: Path) -> list[int]:
    if found is None:
        return [UNKNOWN] * count
    if found.ndim == 0 or len(found) != count:
        have = "one number" if found.ndim == 0 else f"{len(found)} labels"
        raise ArgumentError(
            f"open_images: {str(file)!r} holds {count} images, but {have}. Name arrays that belong together with "
            "images= and labels=."
        )
    return [as_label(value, name=f"{row} in {file.name}") for row, value in enumerate(found)]


def _check_images(pixels: NDArray[np.generic], key: str, file: Path) -> None:
    single = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.ndim not in (3, 4) or single:
        raise ArgumentError(
            f"open_images: array {key!r} of {str(file)!r} must be (n, H, W), (n, H, W, c) or (n, c, H, W), got shape "
            f"{pixels.shape}. {'It looks like one image: add an axis with images[None].' if single else 'Reshape it.'}"
        )
