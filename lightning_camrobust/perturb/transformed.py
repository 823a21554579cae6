"""Any transform of images, of this or another library, as a perturbation."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.severity import check_severity
from lightning_camrobust.types import Randomness

Transform = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Transformed:
    """Disturb images by a transform of kornia, of torchvision.transforms.v2, or one of your own.

    The transform gets one image at a time, ``(c, H, W)`` in [0, 1], and may draw from Python's ``random``, ``numpy``
    and torch: all of them are seeded from the image's own random numbers, and put back afterwards. So its noise
    depends on the image, seed and severity only, and no global generator moves.

    Attributes:
        transform: Takes and returns an image ``(c, H, W)``; a result ``(1, c, H, W)`` is fine, too. Used for every
            severity, which then only seeds it; None where ``build`` is given.
        build: Makes the transform of a severity 1..5; None where ``transform`` is given.
        geometric: Whether it moves the object, so that a map that follows it is right.

    Raises:
        ArgumentError: If both or neither of ``transform`` and ``build`` are given, or one is not callable.

    Example:
        >>> Transformed(build=random_gamma)
        Transformed(geometric=False)
        >>> Transformed(transform=torch.nn.Dropout(0.1))
        Transformed(geometric=False)
    """

    # A module's own text fills pages, and that of a function holds an address.
    transform: Transform | None = field(default=None, repr=False)
    build: Callable[[int], Transform] | None = field(default=None, repr=False)
    geometric: bool = False

    def __post_init__(self) -> None:
        if (self.transform is None) is (self.build is None):
            raise ArgumentError(
                "Transformed: pass either `transform`, one for all severities, or `build`, a function of the severity "
                f"that returns one; got {'neither' if self.transform is None else 'both'}."
            )
        if not callable(self.transform or self.build):
            raise ArgumentError(
                f"Transformed: `transform` and `build` must be callable, got {self.transform or self.build!r}."
            )

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it.

        Raises:
            ArgumentError: If the transform returns something else than a finite float image of the same shape.
        """
        check_severity(severity)
        transform = self.transform if self.build is None else self.build(severity)
        assert transform is not None
        words = randomness.uniform((2,)).double().mul(2**16).long().tolist()
        disturbed = torch.empty_like(images)
        with _random_streams_put_back(images.device), torch.no_grad():
            for row, (high, low) in enumerate(words):
                _seed_all(high * 2**16 + low, images.device)
                disturbed[row] = _checked(transform(images[row].clone()), images[row], transform)
        return disturbed.clamp_(0, 1)


def random_gamma(severity: int) -> Transform:
    """Build a transform that darkens or brightens an image by a random power, as an example of what to pass.

    Args:
        severity: 1 to 5; the power is ``e^(+-s)`` with s drawn from 0.1, 0.2, 0.35, 0.55 or 0.8 to a fifth more.

    Returns:
        The transform.

    Example:
        >>> random_gamma(5)(torch.rand(3, 8, 8)).shape
        torch.Size([3, 8, 8])
    """
    return partial(_gamma, strength=(0.1, 0.2, 0.35, 0.55, 0.8)[severity - 1])


def _gamma(image: Tensor, *, strength: float) -> Tensor:
    chance = torch.rand(2, device="cpu").tolist()
    sign = 1 if chance[0] < 0.5 else -1
    return image.pow(math.exp(sign * strength * (1 + 0.2 * chance[1])))


def _checked(output: object, image: Tensor, transform: Transform) -> Tensor:
    name = getattr(transform, "__name__", type(transform).__name__)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        came = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(
            f"Transformed: {name} must return a float tensor, got {came}. Let the transform end where the pixels are "
            "floats in [0, 1] again."
        )
    if output.dim() == image.dim() + 1 and len(output) == 1:
        output = output[0]
    if output.shape != image.shape:
        raise ArgumentError(
            f"Transformed: {name} must keep the shape {tuple(image.shape)}, got {tuple(output.shape)}. A transform "
            "that crops or resizes has to bring the image back to its size."
        )
    if not bool(output.isfinite().all()):
        raise ArgumentError(f"Transformed: {name} returned NaN or infinity for an image in [0, 1].")
    return output


def _seed_all(seed: int, device: torch.device) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        # Not `torch.manual_seed`, which would move the generators of other devices as well.
        backend = getattr(torch, device.type)
        with backend.device(device):
            backend.manual_seed(seed)


@contextmanager
def _random_streams_put_back(device: torch.device) -> Iterator[None]:
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    backend = getattr(torch, device.type)
    where = () if device.type == "mps" else (device,)
    own = None if device.type == "cpu" else backend.get_rng_state(*where)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if own is not None:
            backend.set_rng_state(own, *where)


EXAMPLES = (Transformed(build=random_gamma),)
