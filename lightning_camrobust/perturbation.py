"""Disturb images the way the callback does, for looking at them or for other experiments."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from lightning_camrobust.blocks import cache_blocks
from lightning_camrobust.errors import ArgumentError, NoSpatialLayerError
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import resolve_target_layer
from lightning_camrobust.logits import as_logits
from lightning_camrobust.members import member_family, resolve_member
from lightning_camrobust.network import Network, network_in_pixels
from lightning_camrobust.pixels import PixelSpace, make_pixel_space, recognise_pixel_space
from lightning_camrobust.precision import float32_by_default
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.severity import check_severity
from lightning_camrobust.types import Perturbation, Randomness


class NetworkPerturbation(Protocol):
    """A way to disturb an image that looks at the network, such as an attack."""

    needs_network: ClassVar[bool]

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1]."""


class GeometricPerturbation(Protocol):
    """A way to disturb an image that moves the object."""

    geometric: ClassVar[bool]

    def flow(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return ``(b, H, W, 2)``: where in the clean image each pixel comes from, ``(x, y)`` in [-1, 1]."""


def perturb_images(
    images: Tensor,
    perturbation: str | Perturbation = "gaussian_noise",
    severity: int = 3,
    *,
    seed: int = 0,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    model: nn.Module | None = None,
    target_layer: nn.Module | str | None = None,
) -> Tensor:
    """Disturb a batch in pixel space; the noise depends on the image, the seed, the family and the severity only.

    Args:
        images: ``(b, c, H, W)`` float: pixels in [0, 1] or [0, 255], or normalised ones.
        perturbation: Name of a file in ``lightning_camrobust/perturb/`` (docs/perturbations.md lists them), or an
            instance.
        severity: 1 (weak) to 5 (strong).
        seed: Another seed draws other noise.
        mean: What Normalize subtracted, in pixel units [0, 1]; None recognises the range.
        std: What Normalize divided by.
        model: The classifier, for perturbations that look at it, such as ``"pgd"``; it is left as it was.
        target_layer: The layer whose map an attack moves, a module or its dotted name; None finds it.

    Returns:
        Disturbed copies, same shape, dtype, device and units.

    Raises:
        ArgumentError: If an argument is unusable, or the perturbation needs the model and there is none.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> torch.equal(perturb_images(image, "shot_noise"), perturb_images(image, "shot_noise"))
        True
    """
    check_images(images)
    member: Perturbation = resolve_member("perturb", perturbation)
    space = make_pixel_space(mean, std) or recognise_pixel_space(images)
    family = member_family(member)
    randomness = ImageRandomness(image_keys(space.to_pixels(images)), seed, family, check_severity(severity))
    if not needs_network(member):
        return disturb(images, member, randomness=randomness, space=space)
    if model is None:
        raise ArgumentError(
            f"perturb_images: {family!r} looks at the network while it disturbs an image, and `model` is None. "
            "Pass the classifier: perturb_images(images, ..., model=model)."
        )
    with observe_only(model):
        layer = _layer_for_attacks(model, target_layer, images)
        with torch.no_grad():
            classes = as_logits(model(images), batch_size=len(images)).argmax(dim=1)
        network = network_in_pixels(model, images, target_layer=layer, space=space, classes=classes)
        return disturb(images, member, randomness=randomness, space=space, network=network)


def _layer_for_attacks(model: nn.Module, target_layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    try:
        return resolve_target_layer(model, target_layer, images)
    except NoSpatialLayerError:
        # Most attacks look at logits only; one that moves a map will say that the model's own output has no cells.
        return model


def needs_network(perturbation: Perturbation) -> bool:
    """Tell whether a perturbation looks at the network.

    Example:
        >>> needs_network(resolve_member("perturb", "gaussian_noise"))
        False
    """
    return bool(getattr(perturbation, "needs_network", False))


def image_flow(images: Tensor, perturbation: Perturbation, *, randomness: ImageRandomness, space: PixelSpace) -> Tensor:
    """Say how a geometric perturbation moves what :func:`disturb` makes of the same arguments.

    Args:
        images: ``(b, c, H, W)`` float, in the model's input units.
        perturbation: A geometric one.
        randomness: Fresh streams for these images.
        space: How inputs relate to pixels.

    Returns:
        ``(b, H, W, 2)`` float, see :func:`~lightning_camrobust.warping.warp_maps`.

    Example:
        >>> images, space = torch.rand(2, 3, 16, 16), PixelSpace((0.0,), (1.0,))
        >>> randomness = ImageRandomness(image_keys(images), 0, "elastic", 3)
        >>> image_flow(images, resolve_member("perturb", "elastic"), randomness=randomness, space=space).shape
        torch.Size([2, 16, 16, 2])
    """
    moving = cast("GeometricPerturbation", perturbation)
    with float32_by_default():
        return moving.flow(space.to_pixels(images), severity=randomness.severity, randomness=randomness)


def disturb(
    images: Tensor,
    perturbation: Perturbation,
    *,
    randomness: ImageRandomness,
    space: PixelSpace,
    network: Network | None = None,
) -> Tensor:
    """Disturb images that were checked before.

    On a CPU the images are taken a few at a time, so that their many intermediate results stay in the cache. The noise
    of an image does not depend on its neighbours, so the result is the same.

    Args:
        images: ``(b, c, H, W)`` float, in the model's input units.
        perturbation: Ready-made.
        randomness: Fresh streams for these images; they say the severity as well.
        space: How inputs relate to pixels.
        network: The classifier, for perturbations that look at it.

    Returns:
        Disturbed copies, with the shape, dtype and memory format of ``images``.

    Example:
        >>> from lightning_camrobust.perturb.gaussian_noise import GaussianNoise
        >>> images, space = torch.rand(2, 3, 8, 8), PixelSpace((0.0,), (1.0,))
        >>> randomness = ImageRandomness(image_keys(images), 0, "gaussian_noise", 3)
        >>> disturb(images, GaussianNoise(), randomness=randomness, space=space).shape
        torch.Size([2, 3, 8, 8])
    """
    noisy, severity = torch.empty_like(images), randomness.severity
    for block in cache_blocks(images):
        pixels, drawn = space.to_pixels(images[block]), randomness.of_images(block)
        if network is not None and needs_network(perturbation):
            attack = cast("NetworkPerturbation", perturbation)
            disturbed = attack(pixels, severity=severity, randomness=drawn, network=network.of_images(block))
        else:
            with float32_by_default():
                disturbed = perturbation(pixels, severity=severity, randomness=drawn)
        noisy[block] = space.from_pixels(disturbed, pixels=pixels, inputs=images[block])
    return noisy
