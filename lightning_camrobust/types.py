"""The nouns of the package: the records that travel from stage to stage, and what a member must look like.

Axes are always written in this order and with these letters:
b image in the batch, c channel, h w cell of a map, H W pixel of an image, s segment, k class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lightning_camrobust.layout import Layout
from lightning_camrobust.pixels import PixelSpace, recognise_pixel_space


@dataclass(frozen=True)
class Trace:
    """One pass of the network over a batch, with all that a CAM method may need of it.

    Attributes:
        images: What went in, ``(b, c, H, W)``, in the model's own input units.
        logits: What came out, ``(b, k)`` float.
        classes: The explained class of each image, ``(b,)`` int64.
        activation: Output of the target layer, ``(b, c, h, w)`` float, detached.
        gradient: Derivative of the explained logit by ``activation``, same shape, detached.
        model: The network, in eval mode while a CAM method looks at it.
        target_layer: The module that produced ``activation``.
        runs: How often the layer runs in one forward (a shared ReLU runs often); its last run is the explained one.
        head: Logits of one image for changed activations: ``head(i, (n, c, h, w)) -> (n, k)``.
        affine_head: Finds out whether each image's logits are one affine function of its own activation, so that
            zeroing a channel lowers the explained logit by exactly the sum of gradient x activation over its cells.
            False also where that cannot be found out, as for a lone image.
        layout: Where the cells of ``activation`` sit in the layer's own output.
        forward: Logits ``(n, k)`` of other inputs ``(n, c, H, W)``, in the model's input units, without a graph.
        again: A trace of other inputs ``(n, c, H, W)`` that explains given classes ``(n,)``, of the same layer.
        autocast: Device type, dtype and whether autocast was on, for methods that run the model with a graph.
        space: How inputs relate to pixels, if somebody said so; see :meth:`pixel_space`.
        clean_gradient: The gradient as the network gave it, where ``gradient`` was disturbed on purpose; else None.
    """

    images: Tensor
    logits: Tensor
    classes: Tensor
    activation: Tensor
    gradient: Tensor
    model: nn.Module
    target_layer: nn.Module
    runs: int
    head: Callable[[int, Tensor], Tensor]
    affine_head: Callable[[], bool]
    layout: Layout
    forward: Callable[[Tensor], Tensor]
    again: Callable[[Tensor, Tensor], "Trace"]
    autocast: tuple[str, torch.dtype, bool]
    space: PixelSpace | None = None
    clean_gradient: Tensor | None = None

    def pixel_space(self) -> PixelSpace:
        """Say how inputs relate to pixels; recognised from the images' range, with a warning, if nobody said so."""
        return recognise_pixel_space(self.images) if self.space is None else self.space

    @property
    def predictions(self) -> Tensor:
        """Class with the largest logit, ``(b,)`` int64, whatever class is explained."""
        return self.logits.argmax(dim=1)


class Randomness(Protocol):
    """Random numbers that belong to the images of one batch, each image having its own stream."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the open interval (0, 1), ``(b, *shape)``."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the standard normal distribution, ``(b, *shape)``."""


@runtime_checkable
class CAMMethod(Protocol):
    """A way to explain one pass of the network as a map."""

    def __call__(self, trace: Trace) -> Tensor:
        """Return the maps ``(b, h, w)``, ReLU applied, not normalised."""


@runtime_checkable
class Perturbation(Protocol):
    """A way to disturb an image."""

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1]; the input stays as it is."""


@runtime_checkable
class Baseline(Protocol):
    """A way to fill in pixels that are taken out of an image."""

    def __call__(self, pixels: Tensor, *, removed: Tensor, randomness: Randomness) -> Tensor:
        """Return whole images ``(b, c, H, W)`` in [0, 1], for use where ``removed`` ``(b, 1, H, W)`` bool is true."""


@runtime_checkable
class Segmenter(Protocol):
    """A way to cut an image into regions."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return labels ``(b, H, W)`` int64, 0..m-1 per image, for ``images`` ``(b, 3, H, W)`` on any device."""


@runtime_checkable
class Similarity(Protocol):
    """A way to compare the scores of two maps; higher is more alike."""

    def __call__(self, clean: Tensor, noisy: Tensor, *, present: Tensor) -> Tensor:
        """Return ``(b,)`` float64 for two score rows ``(b, s)`` and the mask of segments that exist."""


@runtime_checkable
class MapSimilarity(Protocol):
    """A way to compare two maps themselves, without segments; it says so by a class attribute ``of_maps = True``."""

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Return ``(b,)`` float64 for maps ``(b, h, w)``; higher is more alike."""


@dataclass(frozen=True)
class Comparison:
    """What one noise did to one batch, seen through one CAM method.

    Attributes:
        similarity: Similarity of the clean and the noisy ranking, ``(b,)`` float64; NaN where ``rankable`` is false.
        same_class: Whether the prediction survived the noise, ``(b,)`` bool.
        rankable: Whether both maps can be ranked (finite, not flat, two segments or more), ``(b,)`` bool.
    """

    similarity: Tensor
    same_class: Tensor
    rankable: Tensor

    def reshape(self, *shape: int) -> "Comparison":
        """Return the same comparison with fields of another shape."""
        return Comparison(self.similarity.reshape(shape), self.same_class.reshape(shape), self.rankable.reshape(shape))

    def first(self, count: int) -> "Comparison":
        """Return the comparison of the first images only."""
        return Comparison(self.similarity[:count], self.same_class[:count], self.rankable[:count])

    def as_rows(self, positions: Tensor) -> Tensor:
        """Write fields ``(b, cells)`` as one table on the host.

        Args:
            positions: Position of each image in the data, ``(b,)`` int64.

        Returns:
            ``(b, 1 + 3 * cells)`` float64: position, then similarity, same class and rankable for each cell.
        """
        fields = [self.similarity.double(), self.same_class.double(), self.rankable.double()]
        values = torch.stack(fields, dim=2).flatten(1).cpu()
        return torch.cat([positions.double()[:, None], values], dim=1)
