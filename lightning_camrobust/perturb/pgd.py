"""Projected gradient descent."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_camrobust.ascent import gradients_by, unit_rows
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.network import Network
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = {
    "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255),
    "l2": (0.25, 0.5, 1.0, 2.0, 4.0),
}


@dataclass(frozen=True)
class PGD:
    """Steps against the predicted class, each brought back into a ball around the image and into [0, 1].

    ``x <- project(clip(x + step * d))`` with ``d = sign(g)`` (linf) or ``g / |g|`` (l2), g the gradient of
    ``CE(f(x), class)``; the class is the one predicted on the clean image. The last iterate is returned.

    Attributes:
        norm: ``"linf"``: no pixel changes by more than the level; ``"l2"``: the change of the whole image, as one
            vector, is no longer than the level. Both in pixel units [0, 1].
        steps: Number of steps, at least 1.
        step_size: Length of a step; None for ``2.5 * level / steps``.
        random_start: Whether to begin at a random point of the ball instead of the clean image.
        levels: Own values for severity 1..5 instead of 1, 2, 4, 8, 16 (/255) for linf, 0.25, 0.5, 1, 2, 4 for l2.
        needs_network: It is called with ``network=``.

    Raises:
        ArgumentError: If a setting is unusable.

    Source:
        Madry et al. 2018 (arXiv 1706.06083), section 2.1.

    Example:
        >>> PGD(norm="l2")
        PGD(norm='l2', steps=10, step_size=None, random_start=True, levels=None)
    """

    norm: Literal["linf", "l2"] = "linf"
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    levels: tuple[float, float, float, float, float] | None = None
    needs_network: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.norm not in _LEVELS:
            raise ArgumentError(f"PGD: `norm` must be 'linf' or 'l2', got {self.norm!r}.")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(
                f"PGD: `steps` must be 1 or more (a whole number), got {self.steps!r}. For a single step see 'fgsm'."
            )
        if self.step_size is not None and not self.step_size > 0:
            raise ArgumentError(f"PGD: `step_size` must be above 0, got {self.step_size}. None is 2.5 level / steps.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it.

        Args:
            images: The clean pixels that ``network`` was built from.
            severity: 1 to 5.
            randomness: Draws the start.
            network: The classifier, in pixels.

        Returns:
            ``(b, c, H, W)``.

        Raises:
            ModelError: If no gradient gets from the logits to the pixels.
        """
        levels = _LEVELS[self.norm] if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)
        step = 2.5 * level / self.steps if self.step_size is None else self.step_size

        def loss(pixels: Tensor) -> Tensor:
            return cross_entropy(network.logits(pixels), network.classes, reduction="none")

        noisy = images.clone()
        if self.random_start:
            noisy = (images + self._start(images, level, randomness)).clamp_(0, 1)
        for _ in range(self.steps):
            (gradient,) = gradients_by([noisy], loss)
            direction = gradient.sign_() if self.norm == "linf" else unit_rows(gradient)
            noisy = self._project((noisy + step * direction).clamp_(0, 1), images, level)
        return noisy

    def _start(self, images: Tensor, level: float, randomness: Randomness) -> Tensor:
        """Draw a point of the ball, evenly."""
        shape = images.shape[1:]
        if self.norm == "linf":
            return randomness.uniform(tuple(shape)).to(images.dtype).mul_(2).sub_(1).mul_(level)
        direction = unit_rows(randomness.normal(tuple(shape)).to(images.dtype))
        radius = randomness.uniform((1, 1, 1)).to(images.dtype).pow_(1 / shape.numel())
        return direction * radius * level

    def _project(self, noisy: Tensor, images: Tensor, level: float) -> Tensor:
        """Bring images back into the ball. It holds the clean one, so they stay in [0, 1]."""
        change = noisy - images
        if self.norm == "linf":
            change = change.clamp_(-level, level)
        else:
            length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            change = change * torch.where(length > level, level / length, 1)
        return change.add_(images).clamp_(0, 1)


EXAMPLES = (PGD(), PGD(norm="l2"))
