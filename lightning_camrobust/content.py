"""Keys for what goes into a network, whatever unit it is in."""

import torch
from torch import Tensor

from lightning_camrobust.randomness import image_keys


def content_keys(inputs: Tensor) -> Tensor:
    """Hash the content of each input, to the last bit of float32.

    Where :func:`~lightning_camrobust.randomness.image_keys` looks at pixels, rounded to 8 bits, this takes model
    inputs in any unit. The key of an input does not depend on the batch it comes in.

    Args:
        inputs: ``(b, c, H, W)`` or ``(b, c, D, H, W)`` float, any values; float64 is rounded to float32, and every NaN
            counts as the same value, as do 0 and -0.

    Returns:
        ``(b, 2)`` int32, for :class:`~lightning_camrobust.randomness.ImageRandomness`.

    Example:
        >>> inputs = torch.tensor([1.5, -700.0, float("nan")]).reshape(3, 1, 1, 1)
        >>> keys = content_keys(inputs)
        >>> torch.equal(keys[1:], content_keys(inputs[1:].double())), len(set(keys[:, 0].tolist()))
        (True, 3)
    """
    # Plus 0: -0 becomes 0.
    values = inputs.detach().float() + 0.0
    values = torch.where(values.isnan(), torch.full_like(values, torch.nan), values)
    # Each value is handed on as four bytes, and a byte over 255 is a pixel that keeps its 8 bits.
    return image_keys(values.contiguous().view(torch.uint8).float() / 255)
