"""Put a baseline in the place of some pixels."""

import torch
from torch import Tensor

from lightning_camrobust.members import member_family
from lightning_camrobust.randomness import ImageRandomness
from lightning_camrobust.types import Baseline


def replace_pixels(pixels: Tensor, removed: Tensor, baseline: Baseline, *, keys: Tensor, seed: int) -> Tensor:
    """Put a baseline in the place of some pixels.

    Args:
        pixels: ``(b, c, H, W)`` in [0, 1].
        removed: Which pixels are replaced, ``(b, 1, H, W)`` bool.
        baseline: Ready-made.
        keys: ``(b, 2)`` int32 from :func:`~lightning_camrobust.randomness.image_keys`.
        seed: Of the baseline's random numbers.

    Returns:
        ``(b, c, H, W)`` in [0, 1], in the dtype of ``pixels``.

    Example:
        >>> from lightning_camrobust.baseline.white import White
        >>> from lightning_camrobust.randomness import image_keys
        >>> image, removed = torch.zeros(1, 1, 1, 2), torch.tensor([[[[True, False]]]])
        >>> replace_pixels(image, removed, White(), keys=image_keys(image), seed=0)
        tensor([[[[1., 0.]]]])
    """
    randomness = ImageRandomness(keys, seed, f"baseline {member_family(baseline)}", 1)
    return torch.where(removed, baseline(pixels, removed=removed, randomness=randomness).to(pixels.dtype), pixels)
