"""Noise on the gradient that a map is made of, instead of on the image."""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness, Trace

_LEVELS = (0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class GradientNoise:
    """Add normal noise to the derivative of the explained logit by the activation, before it is pooled.

    ``G + level * std(G) * N(0, 1)``, the standard deviation taken over all channels and cells of one image, so that a
    level means the same for networks whose gradients differ by orders of magnitude. The image and the activation stay
    as they are. Maps that use no gradient do not change, nor do those that use gradients of other
    places (``fullgrad``, ``attention_rollout``); those that pool it change less the more cells there are.

    Attributes:
        levels: Own values for severity 1..5 instead of 0.1, 0.25, 0.5, 1, 2, relative to each image's own gradient.

    Source:
        He, Pan and Yao 2025 (CF-CAM, arXiv 2504.00060), who add noise of fixed sizes to the gradients of the maps that
        they compare with.

    Example:
        >>> GradientNoise()
        GradientNoise(levels=None)
    """

    levels: tuple[float, float, float, float, float] | None = None

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return copies of ``images`` that are the same to the last bit."""
        self._level(severity, images)
        return images.clone()

    def disturb_trace(self, trace: Trace, *, severity: int, randomness: Randomness) -> Trace:
        """Disturb the gradient of a trace.

        Args:
            trace: A trace of as many images as ``randomness`` has streams; it stays as it is.
            severity: 1 to 5.
            randomness: Draws the noise.

        Returns:
            A trace with the noisy ``gradient``, and the one from before as ``clean_gradient``.

        Raises:
            ArgumentError: If the severity is unknown.
        """
        clean = trace.gradient
        level = self._level(severity, trace.images)
        own_spread = clean.flatten(1).std(dim=1, correction=0).view(-1, *[1] * (clean.dim() - 1))
        noise = randomness.normal(tuple(clean.shape[1:])).to(clean.dtype)
        return dataclasses.replace(trace, gradient=clean + level * own_spread * noise, clean_gradient=clean)

    def _level(self, severity: int, images: Tensor) -> float:
        levels = _LEVELS if self.levels is None else self.levels
        return SeverityTable(levels, levels).value(severity, images=images)


EXAMPLES = (GradientNoise(),)
