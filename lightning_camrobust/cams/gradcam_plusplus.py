"""Grad-CAM++."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class GradCAMPlusPlus:
    """Channels weighted by their positive gradients, each cell with a weight from higher derivatives.

    ``a_kij = g^2 / (2 g^2 + sum(A_k) g^3)`` with ``g = dY/dA_kij``, ``w_k = sum_ij a_kij ReLU(g)``,
    map ``ReLU(sum_k w_k A_k)``.

    Attributes:
        epsilon: Added to the denominator. Gradients behind global average pooling are small (1e-3 and less), so that
            this value is NOT negligible and shapes the weights; the default is pytorch-grad-cam's.

    Source:
        Chattopadhyay et al. 2018, equations 10 and 19.

    Example:
        >>> GradCAMPlusPlus()
        GradCAMPlusPlus(epsilon=1e-06)
    """

    epsilon: float = 1e-6

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        spatial = tuple(range(2, trace.activation.dim()))
        gradient, activation = trace.gradient, trace.activation
        square = gradient.square()
        total = activation.sum(dim=spatial, keepdim=True)
        share = square / (2 * square + total * square * gradient + self.epsilon)
        if not self.epsilon:
            share = torch.where(gradient != 0, share, torch.zeros_like(share))
        weights = (gradient.relu() * share).sum(dim=spatial, keepdim=True)
        return (weights * activation).sum(dim=1).relu()


EXAMPLES = (GradCAMPlusPlus(),)
