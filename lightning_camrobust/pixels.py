"""Between the model's input units and pixel space [0, 1]."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

# Channels for which ranges are measured; only so that all processes send messages of one size.
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class PixelSpace:
    """How pixels in [0, 1] became model inputs: ``input = (pixel - mean) / std``, channel by channel.

    Attributes:
        mean: One value a channel, or a single one for all channels.
        std: The same.

    Example:
        >>> space = PixelSpace(mean=(0.5,), std=(0.25,))
        >>> space.to_pixels(torch.full((1, 1, 1, 1), 2.0)).item()
        1.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Turn model inputs ``(b, c, H, W)`` into pixels in [0, 1], at least float32."""
        wide = inputs if inputs.dtype == torch.float64 else inputs.float()
        return (wide * self._column(self.std, wide)).add_(self._column(self.mean, wide)).clamp_(0, 1)

    def from_pixels(self, noisy: Tensor, *, pixels: Tensor, inputs: Tensor) -> Tensor:
        """Turn disturbed pixels into model inputs.

        Only the change is carried over, so that a disturbance of strength zero gives back ``inputs`` to the last bit.

        Args:
            noisy: Disturbed pixels, ``(b, c, H, W)``.
            pixels: The undisturbed ones, from :meth:`to_pixels`.
            inputs: What the undisturbed ones came from.

        Returns:
            ``(b, c, H, W)`` in the dtype of ``inputs``.
        """
        return torch.addcdiv(inputs, noisy - pixels, self._column(self.std, pixels)).to(inputs.dtype)

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        channels = like.shape[1]
        if len(values) not in (1, channels):
            raise ArgumentError(
                f"`mean` and `std` must hold one value, or one a channel ({channels} in these images), "
                f"got {len(values)}."
            )
        return _on_device(values, like.dtype, like.device)


@lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept, since sending numbers to an accelerator makes the host wait for it. Autograd refuses tensors made in
    # inference mode, and somebody may perturb images that ask for gradients.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


def make_pixel_space(mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> PixelSpace | None:
    """Check the user's normalisation constants.

    Args:
        mean: What was subtracted, in pixel units [0, 1], one value or one a channel; None if not said.
        std: What was divided by, the same way.

    Returns:
        The pixel space, or None if neither is given.

    Raises:
        ArgumentError: If only one is given, lengths differ, or a value is impossible.

    Example:
        >>> make_pixel_space(mean=0.5, std=0.5)
        PixelSpace(mean=(0.5,), std=(0.5,))
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        missing = "mean" if mean is None else "std"
        raise ArgumentError(
            f"`mean` and `std` belong together, `{missing}` is missing. Pass both, as given to Normalize."
        )
    means, stds = _as_tuple(mean), _as_tuple(std)
    if len(means) != len(stds) or not means:
        raise ArgumentError(f"`mean` and `std` must have the same length, got {len(means)} and {len(stds)}.")
    if not all(math.isfinite(value) for value in means):
        raise ArgumentError(f"`mean` must be finite in every channel, got {means}.")
    if not all(0 < value < math.inf for value in stds):
        raise ArgumentError(f"`std` must be above 0 in every channel, got {stds}.")
    return PixelSpace(means, stds)


def recognise_pixel_space(images: Tensor) -> PixelSpace:
    """Recognise the range of the inputs: [0, 1], [0, 255], or normalised by constants nobody told us.

    Unknown constants are estimated: the darkest value of a channel is taken for 0 and the brightest for 1. The noise is
    then as strong as it should be to the extent that the images use the whole range, and one warning says so.

    Args:
        images: The held-out images ``(b, c, H, W)``, in the model's input units.

    Returns:
        The pixel space, to be kept for the whole run.

    Example:
        >>> recognise_pixel_space(torch.rand(2, 3, 4, 4))
        PixelSpace(mean=(0.0,), std=(1.0,))
    """
    found = pixel_space_from_ranges(measure_range(list(images)))
    assert found is not None
    return found


def measure_range(images: list[Tensor]) -> Tensor:
    """Measure the darkest and brightest value of each channel, in a form that can be put below that of other processes.

    Args:
        images: Each ``(c, H, W)``; none at all is fine.

    Returns:
        ``(1, 2 + 2 * 64)`` float64: number of images, number of channels, lows, highs; zeros where there is nothing.

    Raises:
        ArgumentError: If images have more than 64 channels.

    Example:
        >>> measure_range([torch.tensor([[[0.5, 0.75]]])])[0, [0, 1, 2, 66]].tolist()
        [1.0, 1.0, 0.5, 0.75]
    """
    row = torch.zeros(1, 2 + 2 * _MOST_CHANNELS, dtype=torch.float64)
    if not images:
        return row
    channels = images[0].shape[0]
    if channels > _MOST_CHANNELS:
        raise ArgumentError(f"`mean` and `std` must be passed for images of {channels} channels; none were.")
    low = torch.stack([image.double().amin(dim=(1, 2)) for image in images]).amin(dim=0)
    high = torch.stack([image.double().amax(dim=(1, 2)) for image in images]).amax(dim=0)
    row[0, 0], row[0, 1] = len(images), channels
    row[0, 2 : 2 + channels] = low.cpu()
    row[0, 2 + _MOST_CHANNELS : 2 + _MOST_CHANNELS + channels] = high.cpu()
    return row


def pixel_space_from_ranges(ranges: Tensor) -> PixelSpace | None:
    """Recognise the range of the inputs from what all processes measured.

    Args:
        ranges: Rows of :func:`measure_range`, ``(processes, 130)``.

    Returns:
        The pixel space, or None if no process saw an image.

    Example:
        >>> pixel_space_from_ranges(measure_range([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255.0)])).std
        (0.00392156862745098,)
    """
    seen = ranges.cpu()[ranges.cpu()[:, 0] > 0]
    if not len(seen):
        return None
    channels = int(seen[0, 1])
    low = seen[:, 2 : 2 + channels].amin(dim=0)
    high = seen[:, 2 + _MOST_CHANNELS : 2 + _MOST_CHANNELS + channels].amax(dim=0)
    if low.min() >= 0 and high.max() <= 1:
        return PixelSpace((0.0,), (1.0,))
    if low.min() >= 0 and 16 < high.max() <= 255:
        return PixelSpace((0.0,), (1 / 255,))
    return _estimate(low, high, count=int(seen[:, 0].sum()))


def _estimate(low: Tensor, high: Tensor, *, count: int) -> PixelSpace:
    span = torch.where(high > low, high - low, torch.ones_like(low))
    std = [float(1 / value) for value in span]
    mean = [float(-value * scale) for value, scale in zip(low, std, strict=True)]
    shown = ", ".join(
        f"{name}={[round(each, 4) for each in values]}" for name, values in (("mean", mean), ("std", std))
    )
    warnings.warn(
        "CAM robustness: the images are neither in [0, 1] nor in [0, 255], so they were normalised by constants that "
        f"were not given. Estimated from the darkest and brightest values of {count} images and kept for this run: "
        f"{shown}. Noise strengths depend on them: pass the constants of your own Normalize transform, "
        "CAMRobustnessCallback(mean=..., std=...).",
        UserWarning,
        stacklevel=2,
    )
    return PixelSpace(tuple(mean), tuple(std))


def _as_tuple(values: float | Sequence[float]) -> tuple[float, ...]:
    return (float(values),) if isinstance(values, (int, float)) else tuple(float(value) for value in values)
