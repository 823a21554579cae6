"""Finer-CAM."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.types import Trace

_WEIGHTINGS = ("mean", "probability")


@dataclass(frozen=True)
class FinerCAM:
    """What speaks for the class and not for the classes most like it.

    Instead of the logit ``y_c``, a gradient method explains ``y_c - alpha * mean_t(y_t)``, where ``t`` runs over the
    classes whose logits lie nearest to ``y_c``. Its gradient is a weighted sum of the gradients of single logits, for
    each of which the network runs once more.

    Attributes:
        alpha: How much of the similar classes is taken away; 0 leaves the method as it is. pytorch-grad-cam takes 1,
            torch-cam 0.6.
        references: How many similar classes, or all others if there are fewer.
        weighting: ``"mean"``: each counts the same. ``"probability"``: as in pytorch-grad-cam, each counts by its
            softmax probability among them, and that weight is differentiated as well.
        method: CAM method to draw the map with, by name or ready-made; one that uses nothing but activation and
            gradient, such as ``"gradcam"``, ``"gradcam_plusplus"`` or ``"layercam"``.

    Raises:
        ArgumentError: If a setting is impossible.

    Source:
        Zhang et al. 2025 (arXiv 2501.11309); the similar classes are chosen as in pytorch-grad-cam.

    Example:
        >>> FinerCAM()
        FinerCAM(alpha=1.0, references=3, weighting='mean', method='gradcam')
    """

    alpha: float = 1.0
    references: int = 3
    weighting: Literal["mean", "probability"] = "mean"
    method: Any = "gradcam"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ArgumentError(f"FinerCAM: `alpha` must be finite and 0 or above, got {self.alpha!r}.")
        if self.references < 1:
            raise ArgumentError(f"FinerCAM: `references` must be 1 or more, got {self.references!r}.")
        if self.weighting not in _WEIGHTINGS:
            raise ArgumentError(f"FinerCAM: `weighting` must be one of {_WEIGHTINGS}, got {self.weighting!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        similar = _similar_classes(trace, self.references)
        slopes = self._slopes(trace, similar).to(trace.gradient.dtype)
        gradient = _beside(slopes[:, 0], trace.gradient) * trace.gradient
        for position in range(similar.shape[1]):
            other = trace.again(trace.images, similar[:, position]).gradient
            gradient = gradient + _beside(slopes[:, position + 1], other) * other
        maps: Tensor = resolve_member("cams", self.method)(replace(trace, gradient=gradient))
        return maps

    def _slopes(self, trace: Trace, similar: Tensor) -> Tensor:
        """Differentiate what is explained by the logit of the class and of the similar ones, ``(b, 1 + t)``."""
        logits = trace.logits.double()
        wanted, others = logits.gather(1, trace.classes[:, None]), logits.gather(1, similar)
        # Softmax over the similar classes alone: what all classes share cancels.
        shares = others.softmax(dim=1) if self.weighting == "probability" else torch.full_like(others, 1)
        shares = shares / shares.sum(dim=1, keepdim=True)
        slopes = -self.alpha * shares
        if self.weighting == "probability":
            margins = wanted - self.alpha * others
            slopes = slopes + shares * (margins - (shares * margins).sum(dim=1, keepdim=True))
        return torch.cat([torch.ones_like(wanted), slopes], dim=1)


def _similar_classes(trace: Trace, count: int) -> Tensor:
    """List the classes with logits nearest to the explained one, nearest first, ``(b, t)``."""
    explained = trace.classes[:, None]
    distance = (trace.logits - trace.logits.gather(1, explained)).abs()
    # Behind all others, so that a class is never compared with itself.
    distance = distance.scatter(1, explained, torch.inf)
    return distance.argsort(dim=1, stable=True)[:, : min(count, trace.logits.shape[1] - 1)]


def _beside(values: Tensor, tensor: Tensor) -> Tensor:
    """Give ``(b,)`` the axes of channels and cells."""
    return values.reshape(-1, *[1] * (tensor.dim() - 1))


EXAMPLES = (FinerCAM(), FinerCAM(weighting="probability", method="layercam"))
