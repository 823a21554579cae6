"""Ablation-CAM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Trace

# On the CPU, memory blocks from 32 MiB up come from the system page by page, each time anew: 3 times slower in all.
_CPU_CHUNK_BYTES = 16 * 2**20
_ACCELERATOR_CHUNK_BYTES = 128 * 2**20


@dataclass(frozen=True)
class AblationCAM:
    """Channels weighted by how much the explained logit drops when the channel is set to zero.

    ``w_k = y - y_k``, map ``ReLU(sum_k w_k A_k)``. The paper divides by ``y``, one number an image, which no ranking
    and no scaled map can see while it is positive; for a negative logit it would turn the map inside out, so it is
    left out. pytorch-grad-cam divides, and where a layer's smallest output is not exactly 0 it ablates with that
    minimum less 1e7 instead of 0.

    Where the logits are an affine function of the layer's output (say, pooling and one linear layer follow), the drop
    is exactly the sum of gradient x activation over the channel's cells, and nothing is run at all. In half precision
    that is also closer to the truth: a logit of three digits has none left for the drop of one channel.

    Attributes:
        chunk_bytes: Memory for the ablated copies of one image at a time; more channels than fit go in several runs.
            None takes 16 MiB on the CPU and 128 MiB elsewhere.

    Source:
        Desai and Ramaswamy 2020 (WACV), equations 3 and 4.

    Example:
        >>> AblationCAM()
        AblationCAM(chunk_bytes=None)
    """

    chunk_bytes: int | None = None

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        weights = _affine_drops(trace) if trace.affine_head() else self._measured_drops(trace)
        return (_beside(weights, trace.activation) * trace.activation).sum(dim=1).relu()

    def _measured_drops(self, trace: Trace) -> Tensor:
        return torch.stack([self._drops(trace, index) for index in range(len(trace.images))])

    def _drops(self, trace: Trace, index: int) -> Tensor:
        activation = trace.activation[index]
        channels = torch.arange(len(activation), device=activation.device)
        per_copy = activation.numel() * activation.element_size()
        default = _CPU_CHUNK_BYTES if activation.device.type == "cpu" else _ACCELERATOR_CHUNK_BYTES
        chunk_bytes = default if self.chunk_bytes is None else self.chunk_bytes
        chunks = torch.split(channels, max(1, chunk_bytes // per_copy))
        return torch.cat([_ablated_drops(trace, index, chunk) for chunk in chunks])


def _affine_drops(trace: Trace) -> Tensor:
    # Noise on the gradient is none of the head's: run for real, it would not be felt.
    gradient = trace.gradient if trace.clean_gradient is None else trace.clean_gradient
    drops = (gradient * trace.activation).flatten(2).sum(dim=2)
    # Plus nothing, but NaN for an image whose logit is NaN or infinite, from which no drop can be told.
    return drops + 0 * _explained_logits(trace)[:, None].to(drops.dtype)


def _ablated_drops(trace: Trace, index: int, channels: Tensor) -> Tensor:
    ablated = channels[:, None] == torch.arange(trace.activation.shape[1], device=channels.device)
    # Filled, not multiplied: 0 times infinity would not be 0.
    copies = trace.activation[index].masked_fill(_beside(ablated, trace.activation), 0)
    logits = trace.head(index, copies).to(trace.activation.dtype)
    return _explained_logits(trace)[index].to(logits.dtype) - logits[:, trace.classes[index]]


def _explained_logits(trace: Trace) -> Tensor:
    return trace.logits.gather(1, trace.classes[:, None])[:, 0]


def _beside(values: Tensor, activation: Tensor) -> Tensor:
    """Give ``(n, c)`` the axes of the cells, so that it multiplies activations."""
    return values.reshape(*values.shape, *[1] * (activation.dim() - 2))


EXAMPLES = (AblationCAM(),)
