"""Disturb images the way the callback does, for looking at them or for other experiments."""

from torch import Tensor

from lightning_camrobust.images import check_images
from lightning_camrobust.members import member_family, resolve_member
from lightning_camrobust.pixels import make_pixel_space, recognise_pixel_space
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
        >>> import torch
        >>> image = torch.rand(1, 3, 8, 8)
        >>> torch.equal(perturb_images(image, "shot_noise"), perturb_images(image, "shot_noise"))
        True
    """
    check_images(images)
    member: Perturbation = resolve_member("perturb", perturbation)
    space = make_pixel_space(mean, std) or recognise_pixel_space(images)
    pixels = space.to_pixels(images)
    randomness = ImageRandomness(image_keys(pixels), seed, member_family(member), check_severity(severity))
    noisy = member(pixels, severity=severity, randomness=randomness)
    return space.from_pixels(noisy, pixels=pixels, inputs=images)
