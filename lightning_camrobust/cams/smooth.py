"""Any CAM method, averaged over changed copies of the image."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.types import Trace

_AUGMENTS = ("noise", "tta")
# Test-time augmentation of pytorch-grad-cam's `aug_smooth`.
_FLIPS = (False, True)
_FACTORS = (0.9, 1.0, 1.1)


@dataclass(frozen=True)
class SmoothCAM:
    """The mean of a method's maps over changed copies of the image, the same class explained in all of them.

    Maps are averaged as they are. pytorch-grad-cam scales each to [0, 1] before, so that a copy with a faint map
    counts as much as one with a strong map.

    Attributes:
        method: CAM method to average, by name or ready-made.
        copies: Number of noisy copies; unused with ``augment="tta"``.
        sigma: Standard deviation of the noise, as a share of the image's own range, largest less smallest value;
            unused with ``augment="tta"``.
        seed: Another number gives other noise. The pattern is the same for every image, so that the maps of an image
            and of its disturbed copy do not differ by the luck of their draws; unused with ``augment="tta"``.
        augment: ``"noise"`` adds gaussian noise. ``"tta"`` takes six copies: the inputs times 0.9, 1 and 1.1, each as
            it is and flipped from left to right, the map being flipped back.

    Raises:
        ArgumentError: If a setting is impossible.

    Source:
        Smilkov et al. 2017 (arXiv 1706.03825) for the noise, applied to maps instead of input gradients;
        pytorch-grad-cam, ``aug_smooth``, for the augmentation.

    Example:
        >>> SmoothCAM()
        SmoothCAM(method='gradcam', copies=4, sigma=0.1, seed=0, augment='noise')
    """

    method: Any = "gradcam"
    copies: int = 4
    sigma: float = 0.1
    seed: int = 0
    augment: Literal["noise", "tta"] = "noise"

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ArgumentError(f"SmoothCAM: `copies` must be 1 or more, got {self.copies!r}.")
        if not 0 <= self.sigma < math.inf:
            raise ArgumentError(
                f"SmoothCAM: `sigma` must be finite and 0 or above (share of the image's range), got {self.sigma!r}."
            )
        if self.augment not in _AUGMENTS:
            raise ArgumentError(f"SmoothCAM: `augment` must be one of {_AUGMENTS}, got {self.augment!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        method = resolve_member("cams", self.method)
        total, count = torch.zeros_like(trace.activation[:, 0]), 0
        for inputs, flipped in _augmented(trace.images) if self.augment == "tta" else self._noisy(trace.images):
            maps = method(_as_disturbed(trace.again(inputs, trace.classes), trace))
            total, count = total + (maps.flip(-1) if flipped else maps), count + 1
        return total / count

    def _noisy(self, images: Tensor) -> Iterator[tuple[Tensor, bool]]:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        axes = tuple(range(1, images.dim()))
        # Measured in float32 at least, where the range of half precision would round the noise.
        wide = images if images.dtype == torch.float64 else images.float()
        scale = self.sigma * (wide.amax(dim=axes, keepdim=True) - wide.amin(dim=axes, keepdim=True))
        for _ in range(self.copies):
            noise = torch.randn(images.shape[1:], generator=generator, device="cpu", dtype=torch.float32).to(wide)
            yield (wide + scale * noise).to(images.dtype), False


def _as_disturbed(copy: Trace, trace: Trace) -> Trace:
    """Disturb a copy's gradient as the traced one was disturbed."""
    if trace.clean_gradient is None:
        return copy
    gradient = copy.gradient + (trace.gradient - trace.clean_gradient)
    return dataclasses.replace(copy, gradient=gradient, clean_gradient=copy.gradient)


def _augmented(images: Tensor) -> Iterator[tuple[Tensor, bool]]:
    for flipped in _FLIPS:
        for factor in _FACTORS:
            yield (images.flip(-1) if flipped else images) * factor, flipped


EXAMPLES = (SmoothCAM(), SmoothCAM(method="layercam", augment="tta"))
