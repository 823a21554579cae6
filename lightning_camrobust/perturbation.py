"""Disturb images the way the callback does, for looking at them or for other experiments."""

import torch
from torch import Tensor

from lightning_camrobust.blocks import cache_blocks
from lightning_camrobust.images import check_images
from lightning_camrobust.members import member_family, resolve_member
from lightning_camrobust.pixels import PixelSpace, make_pixel_space, recognise_pixel_space
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.severity import check_severity
from lightning_camrobust.types import Perturbation


def perturb_images(
    images: Tensor,
    perturbation: str | Perturbation = "gaussian_noise",
    severity: int = 3,
    *,
    seed: int = 0,
    mean: float | tuple[float, ...] | None = None,
    std: float | tuple[float, ...] | None = None,
) -> Tensor:
    """Disturb a batch in pixel space; the noise depends on the image, the seed, the family and the severity only.

    Args:
        images: ``(b, c, H, W)`` float: pixels in [0, 1] or [0, 255], or normalised ones.
        perturbation: ``"gaussian_noise"``, ``"shot_noise"``, ``"impulse_noise"``, ``"speckle_noise"``, or an instance.
        severity: 1 (weak) to 5 (strong).
        seed: Another seed draws other noise.
        mean: What Normalize subtracted, in pixel units [0, 1]; None recognises the range.
        std: What Normalize divided by.

    Returns:
        Disturbed copies, same shape, dtype, device and units.

    Raises:
        ArgumentError: If an argument is unusable.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> torch.equal(perturb_images(image, "shot_noise"), perturb_images(image, "shot_noise"))
        True
    """
    check_images(images)
    member: Perturbation = resolve_member("perturb", perturbation)
    space = make_pixel_space(mean, std) or recognise_pixel_space(images)
    keys = image_keys(space.to_pixels(images))
    family = member_family(member)
    return disturb(images, member, check_severity(severity), keys=keys, family=family, seed=seed, space=space)


def disturb(
    images: Tensor,
    perturbation: Perturbation,
    severity: int,
    *,
    keys: Tensor,
    family: str,
    seed: int,
    space: PixelSpace,
) -> Tensor:
    """Disturb images that were checked before.

    On a CPU the images are taken a few at a time, so that their many intermediate results stay in the cache. The noise
    of an image does not depend on its neighbours, so the result is the same.

    Args:
        images: ``(b, c, H, W)`` float, in the model's input units.
        perturbation: Ready-made.
        severity: 1 to 5.
        keys: ``(b, 2)`` int32 from :func:`~lightning_camrobust.randomness.image_keys`.
        family: Part of the key of the random numbers.
        seed: Of the noise.
        space: How inputs relate to pixels.

    Returns:
        Disturbed copies, with the shape, dtype and memory format of ``images``.

    Example:
        >>> import torch
        >>> from lightning_camrobust.perturb.gaussian_noise import GaussianNoise
        >>> images, space = torch.rand(2, 3, 8, 8), PixelSpace((0.0,), (1.0,))
        >>> how = {"keys": image_keys(images), "family": "gaussian_noise", "seed": 0, "space": space}
        >>> disturb(images, GaussianNoise(), 3, **how).shape
        torch.Size([2, 3, 8, 8])
    """
    noisy = torch.empty_like(images)
    randomness = ImageRandomness(keys, seed, family, severity)
    for block in cache_blocks(images):
        pixels = space.to_pixels(images[block])
        disturbed = perturbation(pixels, severity=severity, randomness=randomness.of_images(block))
        noisy[block] = space.from_pixels(disturbed, pixels=pixels, inputs=images[block])
    return noisy
