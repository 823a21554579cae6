"""Disturb one batch in all the ways of a plan."""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lightning_camrobust.network import Network, network_in_pixels
from lightning_camrobust.perturbation import disturb, image_flow, needs_network
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import Noise
from lightning_camrobust.randomness import ImageRandomness
from lightning_camrobust.types import Randomness, Trace


class TracePerturbation(Protocol):
    """A way to disturb what a CAM method sees of a pass, and not the image."""

    def disturb_trace(self, trace: Trace, *, severity: int, randomness: Randomness) -> Trace:
        """Return a trace that differs, say, in its gradient."""


class ReferencePerturbation(Protocol):
    """A way to disturb an image whose result is to be compared with another image than the clean one."""

    def reference(self, images: Tensor) -> Tensor:
        """Return that image, in [0, 1], for clean ``images`` ``(b, c, H, W)``."""


class Disturber:
    """Disturbs the images of one batch.

    Args:
        model: The network, in eval mode.
        images: ``(b, c, H, W)``, in the model's input units.
        keys: Of the images, ``(b, 2)`` int32.
        seed: Of the noise.
        space: How inputs relate to pixels.
        target_layer: The layer whose map an attack moves.
        classes: Predicted on the clean images, ``(b,)`` int64.
        explained: The classes that are explained, if they are others.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> from lightning_camrobust.randomness import image_keys
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)).eval()
        >>> images, space = torch.rand(2, 1, 8, 8), PixelSpace((0.0,), (1.0,))
        >>> how = {"keys": image_keys(images), "seed": 0, "space": space, "target_layer": net[0]}
        >>> disturber = Disturber(net, images, **how, classes=net(images).argmax(dim=1))
        >>> disturber.copies(make_plan(perturbations=["shot_noise", "fgsm"], severities=3).noises).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        keys: Tensor,
        seed: int,
        space: PixelSpace,
        target_layer: nn.Module,
        classes: Tensor,
        explained: Tensor | None = None,
    ) -> None:
        self._model, self._images, self._keys = model, images, keys
        self._seed, self._space = seed, space
        self._layer, self._classes = target_layer, classes
        self._explained = explained
        self._network: Network | None = None

    def copies(self, noises: Sequence[Noise]) -> Tensor:
        """Return one copy of the batch for each noise, ``(noises * b, c, H, W)``, in the model's input units."""
        copies = [self._copy(noise) for noise in noises]
        return copies[0] if len(copies) == 1 else torch.cat(copies)

    def of_trace(self, noise: Noise) -> Callable[[Trace], Trace] | None:
        """Return what a noise does to a trace, None if it leaves traces alone."""
        if not noise.disturbs_trace:
            return None
        member = cast("TracePerturbation", noise.perturbation)
        # One stream for all target layers, so that each gets noise of its own.
        randomness = self._streams(noise)
        return lambda trace: member.disturb_trace(trace, severity=noise.severity, randomness=randomness)

    def flow(self, noise: Noise) -> Tensor:
        """Say how a geometric noise moves the picture, ``(b, H, W, 2)``."""
        return image_flow(self._images, noise.perturbation, randomness=self._streams(noise), space=self._space)

    def reference(self, noise: Noise) -> Tensor:
        """Return the images that a noise's copies are to be compared with, in the model's input units."""
        pixels = self._space.to_pixels(self._images)
        images = cast("ReferencePerturbation", noise.perturbation).reference(pixels)
        return self._space.from_pixels(images, pixels=pixels, inputs=self._images)

    def _copy(self, noise: Noise) -> Tensor:
        network = self._seen() if needs_network(noise.perturbation) else None
        randomness = self._streams(noise)
        return disturb(self._images, noise.perturbation, randomness=randomness, space=self._space, network=network)

    def _streams(self, noise: Noise) -> ImageRandomness:
        return ImageRandomness(self._keys, self._seed, noise.family, noise.severity)

    def _seen(self) -> Network:
        if self._network is None:
            self._network = network_in_pixels(
                self._model,
                self._images,
                target_layer=self._layer,
                space=self._space,
                classes=self._classes,
                explained=self._explained,
            )
        return self._network
