"""Random CAM, a control."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.content import content_keys
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.randomness import ImageRandomness
from lightning_camrobust.types import Trace

_WEIGHTS = ("image", "fixed")


@dataclass(frozen=True)
class RandomCAM:
    """Channels weighted by chance, uniformly between -1 and 1: ``ReLU(sum_k w_k A_k)``. A control, no explanation.

    What a score of stability is worth shows in what this method gets. No random generator is involved: the weights
    are a hash, so that the same image gets the same map in every batch, epoch and process.

    Attributes:
        weights: ``"image"``: new weights for every image, keyed by its content, so that a clean image and its noisy
            copy have nothing to do with each other. ``"fixed"``: the same weights for all images, so that a map moves
            only as far as the activations do.
        seed: Another number gives other weights.

    Raises:
        ArgumentError: If ``weights`` is none of the two.

    Source:
        pytorch-grad-cam, class ``RandomCAM``, which draws from the global generator.

    Example:
        >>> RandomCAM()
        RandomCAM(weights='image', seed=0)
    """

    weights: Literal["image", "fixed"] = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.weights not in _WEIGHTS:
            raise ArgumentError(f"RandomCAM: `weights` must be one of {_WEIGHTS}, got {self.weights!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        keys = content_keys(trace.images)
        if self.weights == "fixed":
            keys = torch.zeros_like(keys)
        streams = ImageRandomness(keys, self.seed, "cams/randomcam", 0)
        activation = trace.activation
        weights = 2 * streams.uniform((activation.shape[1],)).to(activation) - 1
        return (weights.reshape(*weights.shape, *[1] * (activation.dim() - 2)) * activation).sum(dim=1).relu()


EXAMPLES = (RandomCAM(), RandomCAM(weights="fixed"))
