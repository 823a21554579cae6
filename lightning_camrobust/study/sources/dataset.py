"""Images that a map-style data set gives: torchvision's, Hugging Face's, or a user's own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.study.image import StudyImage, spread, unequal_shapes
from lightning_camrobust.study.sources.arrays import pixels_of_array
from lightning_camrobust.study.sources.framing import Framing
from lightning_camrobust.study.sources.labels import as_label
from lightning_camrobust.study.sources.pictures import pixels_of_picture

_IMAGE_KEYS = ("image", "images", "img", "pixel_values", "picture", "x", "input", "data")
_LABEL_KEYS = ("label", "labels", "target", "class", "y")
# How many items are read twice, to see whether they stay the same.
_READ_TWICE = 4


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """Items of a data set, an :class:`~lightning_camrobust.study.image.ImageSource`; made by :func:`open_dataset`.

    Attributes:
        dataset: Has a length and items.
        positions: Of the items; also the names of the images.
        images: Key of the image in items that are dicts, or None.
        labels: Key of the label, or None; ``"none"`` for no labels.
        framing: Size and channels.
        space: How tensors were normalised.
        name: Of the data set.
        shape: Of all images, ``(c, H, W)``; None until the first was read.
    """

    dataset: Any
    positions: tuple[int, ...]
    images: str | None
    labels: str | None
    framing: Framing
    space: PixelSpace | None
    name: str
    shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> StudyImage:
        index = range(len(self))[index]
        position = self.positions[index]
        name = str(position)
        image, label = self._parts(self._item(position), name)
        pixels = self._pixels(image, name)
        if self.shape is not None and pixels.shape != self.shape:
            raise unequal_shapes(str(self.positions[0]), self.shape, name, pixels.shape)
        return StudyImage(pixels, as_label(label, name=name), name, index)

    def fingerprint(self) -> str:
        """Return a SHA-256 over positions, labels and pixels; this reads every image once."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            image = self[index]
            digest.update(f"{image.name}\0{image.label}\0{tuple(image.pixels.shape)}\0".encode())
            digest.update(image.pixels.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _item(self, position: int) -> Any:
        try:
            return self.dataset[position]
        except Exception as error:
            raise ArgumentError(
                f"open_images: item {position} of {self.name!r} cannot be read ({type(error).__name__}: "
                f"{str(error)[:160]}). Repair it, or leave it out of the data set; nothing is left out silently."
            ) from error

    def _parts(self, item: Any, name: str) -> tuple[Any, Any]:
        fields = item._asdict() if hasattr(item, "_asdict") else item
        if isinstance(fields, Mapping):
            return self._named_parts(fields, name)
        if self.images is not None or self.labels not in (None, "none"):
            raise ArgumentError(
                f"open_images: `images` and `labels` name entries of items that are dicts, but item {name} of "
                f"{self.name!r} is a {type(item).__name__}. Leave them out: of a tuple, the first entry is the image "
                "and the second the label. labels='none' leaves labels out."
            )
        if isinstance(item, (tuple, list)) and item:
            known = len(item) > 1 and self.labels is None
            return item[0], item[1] if known else None
        return item, None

    def _named_parts(self, fields: Mapping[str, Any], name: str) -> tuple[Any, Any]:
        image = _find_key(fields, self.images, _IMAGE_KEYS, argument="images", name=name)
        if self.labels == "none" and "none" not in fields:
            return fields[image], None
        rest = {key: value for key, value in fields.items() if key != image}
        if self.labels is None and not any(_is_whole(value) for value in rest.values()):
            return fields[image], None
        return fields[image], fields[_find_key(rest, self.labels, _LABEL_KEYS, argument="labels", name=name)]

    def _pixels(self, image: Any, name: str) -> Tensor:
        if isinstance(image, (Tensor, np.ndarray)):
            pixels = pixels_of_array(image, space=self.space, name=name)
            return self.framing.of_channels(self.framing.of_pixels(pixels), name=name)
        if not (hasattr(image, "convert") and hasattr(image, "mode")):
            raise ArgumentError(
                f"open_images: the image of item {name} of {self.name!r} must be a PIL picture, an array or a tensor, "
                f"got a {type(image).__name__}. Give items (image, label), or dicts and say images='key', labels='key'."
            )
        if self.space is not None:
            raise ArgumentError(
                f"open_images: `mean` and `std` undo a normalisation, but item {name} of {self.name!r} is a picture, "
                "which is not normalised. Leave them out here; those of the network go to StudyModel."
            )
        return pixels_of_picture(image, self.framing, name=name)


def open_dataset(
    dataset: Any,
    *,
    framing: Framing,
    space: PixelSpace | None,
    images: str | None,
    labels: str | None,
    num_images: int | None,
    name: str | None,
) -> DatasetSource:
    """Take the images of a data set.

    Args:
        dataset: Has ``__len__`` and ``__getitem__``; items ``(image, label)``, dicts, or images alone. Images are PIL
            pictures, arrays or tensors.
        framing: Size and channels.
        space: How tensors were normalised.
        images: Key of the image in dicts; None to find it.
        labels: Key of the label in dicts; ``"none"`` for no labels; None to find it.
        num_images: Evenly spaced; None takes all.
        name: None takes the class of the data set.

    Returns:
        The images, in the order of the data set.

    Raises:
        ArgumentError: If it has no length, or items are not images, have other shapes, or change when read again.
    """
    label = name or type(dataset).__name__
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ArgumentError(
            f"open_images: {label!r} has no length and items (an iterable data set has none), so that its images "
            "cannot be read again for each network. Pass a map-style data set, or write the images to a folder."
        )
    if isinstance(dataset, Mapping):
        raise ArgumentError(
            f"open_images: {label!r} holds several data sets: {', '.join(map(repr, dataset))}. Pass one of them, such "
            f"as data[{next(iter(dataset), 'test')!r}]."
        )
    chosen = spread(len(dataset), num_images)
    source = DatasetSource(dataset, chosen, images, labels, framing, space, label)
    _check_repeatable(source)
    shape = tuple(source[0].pixels.shape)
    return DatasetSource(dataset, chosen, images, labels, framing, space, label, shape)


def _check_repeatable(source: DatasetSource) -> None:
    for index in spread(len(source), min(_READ_TWICE, len(source))):
        first, second = source[index], source[index]
        if first.label != second.label or not torch.equal(first.pixels, second.pixels):
            raise ArgumentError(
                f"open_images: item {first.name} of {source.name!r} is different each time it is read, so that "
                "networks would not be compared on the same images. Take random transforms (crop, flip, ...) out of it."
            )


def _find_key(fields: Mapping[str, Any], chosen: str | None, known: Sequence[str], *, argument: str, name: str) -> str:
    if chosen is not None and chosen in fields:
        return chosen
    found = [key for key in known if key in fields] if chosen is None else []
    if len(found) == 1:
        return found[0]
    wanted = f"has no entry {chosen!r}" if chosen is not None else f"has {len(found)} entries that may be it"
    raise ArgumentError(
        f"open_images: `{argument}`: item {name} {wanted}; it holds {', '.join(map(repr, fields))}. Say which one: "
        f"{argument}='key'{'' if argument == 'images' else ', or none of them: labels=' + repr('none')}."
    )


def _is_whole(value: Any) -> bool:
    """Whether a value may be a label, so that it must not be passed over."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.ndim <= 1
    return value is None or isinstance(value, (int, float, list))
