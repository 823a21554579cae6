"""Take pixels out of images in the order of a map and follow the network's answer: MoRF, LeRF, deletion, insertion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.critique.orders import removal_counts, removal_ranks
from lightning_camrobust.critique.replacing import replace_pixels
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.images import check_images
from lightning_camrobust.members import resolve_member
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.types import Baseline

Order = Literal["morf", "lerf", "deletion", "insertion"]
Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RemovalSettings:
    """How pixels are taken out.

    Attributes:
        baseline: What takes their place: the name of a baseline, or an instance.
        steps: Number of steps L from the whole image to the last pixel; step k removes the first ``k * H * W // L``.
        seed: Of a baseline that draws random numbers; the numbers of an image are the same at every step.
        chunk_size: Images in one forward pass.

    Example:
        >>> RemovalSettings(baseline="black")
        RemovalSettings(baseline='black', steps=20, seed=0, chunk_size=64)
    """

    baseline: str | Baseline = "grey"
    steps: int = 20
    seed: int = 0
    chunk_size: int = 64

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("chunk_size", self.chunk_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"RemovalSettings: `{name}` must be a whole number from 1, got {value!r}.")


@dataclass(frozen=True)
class RemovalCurves:
    """What the network says about each image while pixels are removed, or added.

    Attributes:
        share: Share of the pixels that were removed (inserted) at each step, ``(steps + 1,)`` float64, from 0 to 1.
        morf: Score f of the explained class while the most important pixels go first, ``(b, steps + 1)`` float64.
        lerf: The same while the least important go first.
        insertion: The same while the most important pixels are put into the baseline picture.
    """

    share: Tensor
    morf: Tensor
    lerf: Tensor
    insertion: Tensor

    @property
    def deletion(self) -> Tensor:
        """The MoRF curve under its other name."""
        return self.morf


_DEFAULTS = RemovalSettings()


def removal_curves(
    classify: Classify, pixels: Tensor, maps: Tensor, classes: Tensor, *, settings: RemovalSettings = _DEFAULTS
) -> RemovalCurves:
    """Measure all curves of some maps with the same steps and the same tie rule; see :func:`removal_curve`.

    Args:
        classify: Takes pixels ``(n, c, H, W)`` in [0, 1] to probabilities or logits ``(n, k)``.
        pixels: ``(b, c, H, W)`` in [0, 1].
        maps: Importance ``(b, h, w)``, any scale.
        classes: The explained class of each image, ``(b,)`` integers.
        settings: Baseline, steps, seed, chunk size.

    Returns:
        The curves.

    Raises:
        ArgumentError: If shapes, types or ranges do not fit.

    Example:
        >>> bright = lambda pixels: pixels.mean(dim=(2, 3))
        >>> image = torch.tensor([[[[1.0, 0.0]]]])
        >>> settings = RemovalSettings(baseline="black", steps=2)
        >>> curves = removal_curves(bright, image, image[:, 0], torch.tensor([0]), settings=settings)
        >>> curves.morf.tolist(), curves.lerf.tolist(), curves.insertion.tolist()
        ([[0.5, 0.0, 0.0]], [[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]])
    """
    morf = removal_curve(classify, pixels, maps, classes, order="morf", settings=settings)
    lerf = removal_curve(classify, pixels, maps, classes, order="lerf", settings=settings)
    insertion = removal_curve(classify, pixels, maps, classes, order="insertion", settings=settings)
    area = int(pixels.shape[2] * pixels.shape[3])
    return RemovalCurves(removal_counts(area, settings.steps).double().to(pixels.device) / area, morf, lerf, insertion)


def removal_curve(
    classify: Classify,
    pixels: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    order: Order,
    settings: RemovalSettings = _DEFAULTS,
) -> Tensor:
    """Measure one curve.

    Maps smaller than the image are upsampled bilinearly (``align_corners=False``). Values are rounded to whole
    millionths of the map's largest; equal ones are ties, and ties go row by row from the top left in every order, so
    that a flat map has the same MoRF and LeRF curve. The baseline is asked anew at each step, since its fill may depend
    on what is left.

    Args:
        classify: Takes pixels ``(n, c, H, W)`` in [0, 1] to probabilities or logits ``(n, k)``; called without a graph.
        pixels: ``(b, c, H, W)`` in [0, 1].
        maps: Importance ``(b, h, w)``, any scale.
        classes: The explained class of each image, ``(b,)`` integers.
        order: ``"morf"`` or ``"deletion"`` removes the most important pixels first, ``"lerf"`` the least important;
            ``"insertion"`` starts from the baseline picture and puts the most important pixels in first.
        settings: Baseline, steps, seed, chunk size.

    Returns:
        Score of the explained class, ``(b, steps + 1)`` float64; NaN for an image whose map is not finite.

    Raises:
        ArgumentError: If shapes, types or ranges do not fit.

    Source:
        Samek et al. 2017 (MoRF, LeRF); Petsiuk, Das and Saenko 2018 (deletion, insertion).

    Example:
        >>> bright = lambda pixels: pixels.mean(dim=(2, 3))
        >>> image = torch.tensor([[[[1.0, 0.0]]]])
        >>> settings = RemovalSettings(baseline="white", steps=2)
        >>> removal_curve(bright, image, image[:, 0], torch.tensor([0]), order="lerf", settings=settings)
        tensor([[0.5000, 1.0000, 1.0000]], dtype=torch.float64)
    """
    _check(pixels, maps, classes, order, settings)
    baseline: Baseline = resolve_member("baseline", settings.baseline)
    rank = removal_ranks(maps, size=(int(pixels.shape[2]), int(pixels.shape[3])), descending=order != "lerf")
    counts, keys = removal_counts(rank.shape[1], settings.steps).to(pixels.device), image_keys(pixels)
    scores = []
    for rows in torch.split(torch.arange(len(pixels) * len(counts), device=pixels.device), settings.chunk_size):
        which, step = rows // len(counts), rows % len(counts)
        gone = (rank[which] < counts[step][:, None]) ^ (order == "insertion")
        removed = gone.view(-1, 1, *pixels.shape[2:])
        filled = replace_pixels(pixels[which], removed, baseline, keys=keys[which], seed=settings.seed)
        scores.append(_scores(classify, filled, classes[which]))
    curve = torch.cat(scores).view(len(pixels), len(counts))
    finite = maps.isfinite().flatten(1).all(dim=1, keepdim=True)
    return torch.where(finite, curve, torch.full_like(curve, torch.nan))


def _scores(classify: Classify, pixels: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        output = classify(pixels)
    if output.dim() != 2 or len(output) != len(pixels):
        raise ArgumentError(
            f"`classify` must return probabilities or logits ({len(pixels)}, k), got shape {tuple(output.shape)}."
        )
    if int(classes.min()) < 0 or int(classes.max()) >= output.shape[1]:
        raise ArgumentError(
            f"`classes` must lie in 0..{output.shape[1] - 1}, as `classify` returns {output.shape[1]} columns; "
            f"got {int(classes.min())}..{int(classes.max())}."
        )
    return output.detach().double().gather(1, classes.long()[:, None])[:, 0]


def _check(pixels: Tensor, maps: Tensor, classes: Tensor, order: str, settings: RemovalSettings) -> None:
    check_images(pixels)
    if float(pixels.min()) < 0 or float(pixels.max()) > 1:
        raise ArgumentError(
            f"`pixels` must lie in [0, 1], got {float(pixels.min()):.3g}..{float(pixels.max()):.3g}. "
            "Pass the images before Normalize, and let `classify` normalise."
        )
    batch, _, height, width = pixels.shape
    if maps.dim() != 3 or len(maps) != batch or maps.shape[1] > height or maps.shape[2] > width:
        raise ArgumentError(
            f"`maps` must be ({batch}, h, w), at most as large as the images {(height, width)}, "
            f"got {tuple(maps.shape)}."
        )
    if classes.shape != (batch,) or classes.is_floating_point():
        raise ArgumentError(f"`classes` must be ({batch},) integers, got {classes.dtype} {tuple(classes.shape)}.")
    if order not in ("morf", "lerf", "deletion", "insertion"):
        raise ArgumentError(f"`order` must be 'morf', 'lerf', 'deletion' or 'insertion', got {order!r}.")
    if settings.steps > height * width:
        raise ArgumentError(
            f"`steps` must not exceed the number of pixels ({height * width}), got {settings.steps}. Take fewer steps."
        )
