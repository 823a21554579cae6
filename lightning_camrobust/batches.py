"""Find the images in a user's batch, and the classifier in a user's module."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError, BatchFormatError
from lightning_camrobust.layers import layer_by_name

_IMAGE_KEYS = ("image", "images", "pixel_values", "img", "imgs", "x", "input", "inputs", "data")


def find_images(batch: Any, prepare_batch: Callable[[Any], Any] | None = None) -> Tensor:
    """Find the image tensor in a batch.

    Args:
        batch: What the data loader gave: a tensor, or a tuple, list, dict, named tuple or dataclass holding it, nested
            or not. Keys such as ``image`` and ``pixel_values`` come first, in a tuple or list then the first candidate.
        prepare_batch: The user's own way to it, ``batch -> (b, c, H, W)``.

    Returns:
        ``(b, c, H, W)``.

    Raises:
        BatchFormatError: If there is none, if a dict or dataclass holds several under names that tell nothing, such as
            a scan and its mask, or if ``prepare_batch`` returned something else.

    Example:
        >>> import torch
        >>> find_images({"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 8)}).shape
        torch.Size([2, 3, 8, 8])
    """
    if prepare_batch is not None:
        try:
            images = prepare_batch(batch)
        except StopIteration as error:
            # Lightning would take it for the end of the data and stop early without a word.
            raise BatchFormatError(
                "CAMRobustnessCallback: `prepare_batch` ended in StopIteration, from a `next()` that found nothing; "
                f"the batch is {_describe(batch)}. Return the images, one float tensor (b, c, H, W)."
            ) from error
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BatchFormatError(
                f"CAMRobustnessCallback: `prepare_batch` failed with {type(error).__name__}: {error}; the batch is "
                f"{_describe(batch)}. Return the images, one float tensor (b, c, H, W)."
            ) from error
        if not _are_images(images):
            raise BatchFormatError(
                "CAMRobustnessCallback: `prepare_batch` must return the images, one float tensor (b, c, H, W); "
                f"got {_describe(images)}."
            )
        return images  # type: ignore[no-any-return]
    found = _search(batch)
    if found is None:
        raise BatchFormatError(
            "CAMRobustnessCallback: no images, that is no float tensor (b, c, H, W), were found in the validation "
            f"batch; it is {_describe(batch)}. Tell where they are: "
            "CAMRobustnessCallback(prepare_batch=lambda batch: batch['scan'])."
        )
    return found.images


class Classifier(nn.Module):
    """Part of a module, or a function of it, in the shape of a network from images to logits.

    Args:
        owner: The user's module.
        forward: ``(owner, images) -> logits``.

    Example:
        >>> import torch
        >>> net = Classifier(nn.Flatten(), lambda owner, images: owner(images)[:, :2])
        >>> net(torch.zeros(1, 1, 2, 2)).shape
        torch.Size([1, 2])
    """

    def __init__(self, owner: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.owner = owner
        self._function = forward

    def forward(self, images: Tensor) -> Any:
        """Return what the function makes of the images ``(b, c, H, W)``."""
        return self._function(self.owner, images)


def find_classifier(owner: nn.Module, classifier: str | Callable[[Any, Tensor], Any] | None) -> nn.Module:
    """Find the network to explain in a module.

    Args:
        owner: The user's module.
        classifier: None if calling the module gives logits; the dotted name of a submodule; or a function
            ``(owner, images) -> logits``.

    Returns:
        A network from images to logits.

    Raises:
        UnknownNameError: If no submodule has that name.
        ArgumentError: If it is something else.

    Example:
        >>> find_classifier(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    if classifier is None:
        return owner
    if isinstance(classifier, str):
        return layer_by_name(owner, classifier, argument="classifier")
    if callable(classifier):
        return Classifier(owner, classifier)
    raise ArgumentError(
        "CAMRobustnessCallback: `classifier` must be the name of a submodule or a function (module, images) -> logits, "
        f"got {classifier!r}."
    )


class _Found(NamedTuple):
    images: Tensor
    path: str  # from the batch to the images, as in Python
    known: bool  # by a key that says so


def _search(batch: Any, path: str = "batch") -> _Found | None:
    if _are_images(batch):
        return _Found(batch, path, known=False)
    if isinstance(batch, Mapping):
        return _among({f"{path}[{key!r}]": each for key, each in batch.items()}, list(batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in dataclasses.fields(batch)]
        return _among({f"{path}.{name}": getattr(batch, name) for name in names}, names)
    if isinstance(batch, (tuple, list)):
        named = [key for key in _IMAGE_KEYS if key in getattr(batch, "_fields", ())]
        parts = [(f"{path}.{key}", getattr(batch, key)) for key in named]
        parts += [(f"{path}[{index}]", each) for index, each in enumerate(batch)]
        return next((found for place, each in parts if (found := _search(each, place)) is not None), None)
    return None


def _among(parts: Mapping[str, Any], keys: list[Any]) -> _Found | None:
    """Find the images by their key, or else the only tensor that may be some: the first of several may be a mask."""
    places = dict(zip(keys, parts.items(), strict=True))
    for key in _IMAGE_KEYS:
        found = _search(places[key][1], places[key][0]) if key in places else None
        if found is not None:
            return found._replace(known=True)
    all_found = [found for place, each in parts.items() if (found := _search(each, place)) is not None]
    by_key = [found for found in all_found if found.known]
    if len(all_found) > 1 and len(by_key) != 1:
        raise BatchFormatError(_several(all_found))
    return next(iter(by_key or all_found), None)


def _several(found: list[_Found]) -> str:
    # Masks and heat maps have fewer channels than pictures, as a rule; it is only an example.
    likely = max(found, key=lambda each: min(each.images.shape[1], 3))
    candidates = ", ".join(f"{each.path}: {_describe(each.images)}" for each in found)
    return (
        f"CAMRobustnessCallback: several tensors of the validation batch could be the images, {candidates}, and no key "
        "such as 'image' or 'pixel_values' tells which. Tell it, for example: "
        f"CAMRobustnessCallback(prepare_batch=lambda batch: {likely.path})."
    )


def _are_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "a dict {" + ", ".join(f"{key!r}: {_describe(each)}" for key, each in list(value.items())[:6]) + "}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of (" + ", ".join(_describe(each) for each in value[:6]) + ")"
    return f"a {type(value).__name__}"
