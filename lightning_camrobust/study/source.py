"""Open a user's images, whatever they lie in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pixels import PixelSpace, make_pixel_space
from lightning_camrobust.study.image import ImageSource, StudyBatch, StudyImage, collate
from lightning_camrobust.study.sources.datamodule import dataset_of_datamodule, dataset_of_loader, is_datamodule
from lightning_camrobust.study.sources.dataset import open_dataset
from lightning_camrobust.study.sources.folder import open_folder
from lightning_camrobust.study.sources.framing import Framing, Interpolation, make_framing
from lightning_camrobust.study.sources.npz import open_npz

__all__ = ["ImageSource", "StudyBatch", "StudyImage", "check_readable", "collate", "open_images"]
# How many unreadable images a message names.
_SHOWN = 5


def open_images(
    data: Any,
    *,
    size: int | tuple[int, int] | None = None,
    labels: str | Path | None = None,
    images: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    num_images: int | None = None,
    name: str | None = None,
    channels: int | None = None,
    interpolation: Interpolation = "bilinear",
    split: str | None = None,
) -> ImageSource:
    r"""Open images for a study.

    Args:
        data: A folder of pictures (searched with all folders below it), an .npz file, a map-style data set with items
            ``(image, label)`` or dicts, a data loader, or a LightningDataModule. Images are PIL pictures, uint8 or
            uint16 arrays, or floats in [0, 1].
        size: Side of the images in pixels: the shorter side is resized to it, with antialiasing, and the centre cut
            out. ``(resize, crop)`` such as ``(256, 224)`` resizes to the first and cuts out the second. None leaves
            images as they are; they must then be of one shape.
        labels: Where the true classes are. Of a folder: ``"folders"`` (the folders right below it, in sorted order, as
            torchvision's ImageFolder), a CSV file ``file,label``, or a regular expression with one group, such as
            ``r"^(\d+)_"``. Of an .npz file or items that are dicts: a key. ``"none"``: not known. None:
            found by itself.
        images: Key of the images in an .npz file, or in items that are dicts; None: found by itself.
        mean: What the data set's own Normalize subtracts, in pixel units; it is undone. None if it has none.
        std: What it divides by.
        num_images: Take so many images, evenly spaced; None takes all.
        name: Of the data set, in reports; None takes the name of the folder, file or class.
        channels: 1 for grey, 3 for colour; None: files are read in colour, arrays as they are.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        split: ``"test"``, ``"validate"`` or ``"predict"`` of a LightningDataModule; None takes the first it has.

    Returns:
        The images, in an order and with names that do not change.

    Raises:
        ArgumentError: If ``data`` is none of these, holds no images, or an argument does not fit it.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> images = open_images(TensorDataset(torch.rand(10, 3, 16, 24), torch.arange(10)), size=8, num_images=5)
        >>> len(images), images[1].pixels.shape, images[1].label, images[1].name
        (5, torch.Size([3, 8, 8]), 2, '2')
    """
    framing = make_framing(size, interpolation=interpolation, channels=channels)
    space = make_pixel_space(mean, std)
    if isinstance(data, (str, Path)):
        _leave_out(split=split)
        return _open_path(Path(data).expanduser(), framing, space, images, labels, num_images, name)
    dataset, label = _dataset(data, split)
    return open_dataset(
        dataset,
        framing=framing,
        space=space,
        images=images,
        labels=None if labels is None else str(labels),
        num_images=num_images,
        name=name or label,
    )


def check_readable(source: ImageSource) -> None:
    """Read every image once, so that a damaged one is found before hours of measuring and not after.

    Args:
        source: The images.

    Raises:
        ArgumentError: If some cannot be read, with the first of them.

    Example:
        >>> check_readable(open_images([(np.zeros((8, 8, 3), dtype=np.uint8), 0)]))
    """
    found: list[ArgumentError] = []
    for index in range(len(source)):
        try:
            _ = source[index]
        except ArgumentError as error:
            found.append(error)
    if found:
        lines = "\n".join(str(error) for error in found[:_SHOWN])
        more = f"\n... and {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
        raise ArgumentError(f"{len(found)} of {len(source)} images of {source.name!r} cannot be used:\n{lines}{more}")


def _open_path(
    path: Path,
    framing: Framing,
    space: PixelSpace | None,
    images: str | None,
    labels: str | Path | None,
    num_images: int | None,
    name: str | None,
) -> ImageSource:
    if path.is_dir():
        _leave_out(images=images, mean=space)
        return open_folder(path, framing=framing, labels=labels, num_images=num_images, name=name)
    if not path.exists():
        raise ArgumentError(
            f"open_images: `data` {str(path)!r} does not exist. Check the path; it starts at {Path.cwd()}."
        )
    if path.suffix.lower() != ".npz":
        raise ArgumentError(
            f"open_images: `data` {str(path)!r} must be a folder of images or an .npz file. For a single image, pass "
            "the folder it lies in."
        )
    return open_npz(path, framing=framing, space=space, images=images, labels=labels, num_images=num_images, name=name)


def _dataset(data: Any, split: str | None) -> tuple[Any, str | None]:
    """Return the data set behind what was given, and what to call it."""
    if isinstance(data, nn.Module):
        raise ArgumentError(
            f"open_images: `data` is the network {type(data).__name__}. Images belong here, the network to StudyModel."
        )
    if is_datamodule(data):
        return dataset_of_datamodule(data, split), type(data).__name__
    _leave_out(split=split)
    if isinstance(data, DataLoader):
        return dataset_of_loader(data), None
    if isinstance(data, (Tensor, np.ndarray)):
        raise ArgumentError(
            "open_images: `data` is an array. Pass images and labels together: "
            "torch.utils.data.TensorDataset(images, labels), images (n, c, H, W)."
        )
    return data, None


def _leave_out(**given: object) -> None:
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        reasons = {
            "split": "only a LightningDataModule has splits",
            "images": "a folder has no keys",
            "mean": "pictures in files are not normalised; mean and std of the network go to StudyModel",
        }
        raise ArgumentError(f"open_images: `{wrong[0]}` does not fit this `data`: {reasons[wrong[0]]}. Leave it out.")
