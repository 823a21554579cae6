"""Ablation-CAM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class AblationCAM:
    """Channels weighted by how much the explained logit drops when the channel is set to zero.

    ``w_k = y - y_k``, map ``ReLU(sum_k w_k A_k)``. The paper divides by ``y``, one number an image, which no ranking
    and no scaled map can see while it is positive; for a negative logit it would turn the map inside out, so it is
    left out. pytorch-grad-cam divides, and where a layer's smallest output is not exactly 0 it ablates with that
    minimum less 1e7 instead of 0.

    Attributes:
        chunk_bytes: Memory for the ablated copies of one image at a time; more channels than fit go in several runs.

    Source:
        Desai and Ramaswamy 2020 (WACV), equations 3 and 4.

    Example:
        >>> AblationCAM()
        AblationCAM(chunk_bytes=134217728)
    """

    chunk_bytes: int = 128 * 2**20

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        weights = torch.stack([self._drops(trace, index) for index in range(len(trace.images))])
        return (_beside(weights, trace.activation) * trace.activation).sum(dim=1).relu()

    def _drops(self, trace: Trace, index: int) -> Tensor:
        activation, explained = trace.activation[index], trace.classes[index]
        channels = torch.arange(len(activation), device=activation.device)
        per_copy = activation.numel() * activation.element_size()
        chunks = torch.split(channels, max(1, self.chunk_bytes // per_copy))
        return torch.cat([_ablated_drops(trace, index, chunk, explained) for chunk in chunks])


def _ablated_drops(trace: Trace, index: int, channels: Tensor, explained: Tensor) -> Tensor:
    kept = channels[:, None] != torch.arange(trace.activation.shape[1], device=channels.device)
    copies = trace.activation[index] * _beside(kept, trace.activation)
    logits = trace.head(index, copies).to(trace.activation.dtype)
    return trace.logits[index].gather(0, explained[None]).to(logits.dtype) - logits.gather(
        1, explained.expand(len(logits), 1)
    ).squeeze(1)


def _beside(values: Tensor, activation: Tensor) -> Tensor:
    """Give ``(n, c)`` the axes of the cells, so that it multiplies activations."""
    return values.reshape(*values.shape, *[1] * (activation.dim() - 2))


EXAMPLES = (AblationCAM(),)
