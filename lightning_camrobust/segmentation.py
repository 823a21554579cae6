"""Segment images, and remember the result: held-out images come back every epoch, and segmenting them is slow."""

from collections.abc import Hashable

import torch
from torch import Tensor

from lightning_camrobust.cache import SegmentCache
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.images import check_images
from lightning_camrobust.members import resolve_member
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.types import Segmenter

# An image's content as :func:`~lightning_camrobust.randomness.image_keys` hashes it, on the host.
ContentKey = tuple[int, int]
_CACHE = SegmentCache()


def segment_images(
    images: Tensor, method: str | Segmenter = "quickshift", *, cache: SegmentCache | None = None
) -> Tensor:
    """Cut images into segments.

    Args:
        images: ``(b, c, H, W)`` float in [0, 1] with 1 or 3 channels (other counts are averaged to grey).
        method: ``"quickshift"``, ``"slic"``, ``"grid"``, or a ready-made segmenter.
        cache: Where to look first; None is one cache of 256 MiB shared by the whole process.

    Returns:
        Labels ``(b, H, W)`` int64 on the images' device, 0..m-1 in each image, each label used.

    Raises:
        ArgumentError: If shape, range or method is wrong, or the segmenter returns labels of another size.

    Example:
        >>> segment_images(torch.rand(2, 3, 8, 8), "grid").shape
        torch.Size([2, 8, 8])
    """
    _check_range(images)
    return segment_pixels(
        images.detach(), resolve_member("segment", method), host_keys(image_keys(images)), cache=cache
    )


def host_keys(keys: Tensor) -> list[ContentKey]:
    """Bring the hashes of images to the host.

    Args:
        keys: ``(b, 2)`` int32 from :func:`~lightning_camrobust.randomness.image_keys`.

    Returns:
        One pair of numbers an image.

    Example:
        >>> image = torch.rand(1, 3, 4, 4)
        >>> host_keys(image_keys(image)) == host_keys(image_keys(image.double()))
        True
    """
    return [(first, second) for first, second in keys.tolist()]


def segment_pixels(
    pixels: Tensor, segmenter: Segmenter, keys: list[ContentKey], *, cache: SegmentCache | None = None
) -> Tensor:
    """Cut images that were checked before, looking each up by its content.

    Args:
        pixels: ``(b, c, H, W)`` float in [0, 1].
        segmenter: Ready-made.
        keys: From :func:`host_keys`.
        cache: As in :func:`segment_images`.

    Returns:
        Labels as in :func:`segment_images`.

    Example:
        >>> from lightning_camrobust.segment.grid import Grid
        >>> pixels = torch.rand(2, 3, 8, 8)
        >>> segment_pixels(pixels, Grid(), host_keys(image_keys(pixels))).dtype
        torch.int64
    """
    store = _CACHE if cache is None else cache
    # Kept under the segmenter itself and not its name: settings may be functions or tensors, whose text says little.
    known = segmenter if isinstance(segmenter, Hashable) else object()
    found = [store.get((key, known)) for key in keys]
    missing = [index for index, labels in enumerate(found) if labels is None]
    if missing:
        for index, labels in zip(missing, _run(segmenter, _three_channels(pixels[missing]).float()), strict=True):
            found[index] = labels
            store.put((keys[index], known), labels)
    return torch.stack([labels for labels in found if labels is not None]).to(pixels.device)


def _run(segmenter: Segmenter, images: Tensor) -> Tensor:
    labels = segmenter(images).cpu()
    if labels.shape != (len(images), *images.shape[2:]):
        raise ArgumentError(
            f"Segmenter {segmenter!r} must return labels (b, H, W) = {(len(images), *images.shape[2:])}, "
            f"got {tuple(labels.shape)}. Labels must have the size of the images."
        )
    # Enlarged images lose a sliver of a segment now and then; ranks are over the segments that exist.
    return torch.stack([torch.unique(each, return_inverse=True)[1] for each in labels])


def _check_range(images: Tensor) -> None:
    check_images(images)
    low, high = (float(bound) for bound in images.detach().aminmax())
    if low < -1e-6 or high > 1 + 1e-6:
        raise ArgumentError(
            f"`images` must lie in [0, 1], got values from {low:.4g} to {high:.4g}. "
            "Undo the normalisation, or divide by 255, before segmenting."
        )


def _three_channels(images: Tensor) -> Tensor:
    if images.shape[1] == 3:
        return images
    return images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
