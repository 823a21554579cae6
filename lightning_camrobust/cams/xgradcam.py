"""XGrad-CAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class XGradCAM:
    """Channels weighted by their gradient, averaged with the activation as weight.

    ``w_k = sum(dY/dA_k * A_k) / sum(A_k)``, map ``ReLU(sum_k w_k A_k)``.

    Attributes:
        epsilon: Added to ``sum(A_k)``, which is 0 for a silent channel; pytorch-grad-cam's value.

    Source:
        Fu et al. 2020 (arXiv 2008.02312), equation 8.

    Example:
        >>> XGradCAM()
        XGradCAM(epsilon=1e-07)
    """

    epsilon: float = 1e-7

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        spatial = tuple(range(2, trace.activation.dim()))
        total = trace.activation.sum(dim=spatial, keepdim=True) + self.epsilon
        weights = (trace.gradient * trace.activation / total).sum(dim=spatial, keepdim=True)
        return (weights * trace.activation).sum(dim=1).relu()


EXAMPLES = (XGradCAM(),)
