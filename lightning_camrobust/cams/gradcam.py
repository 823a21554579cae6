"""Grad-CAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class GradCAM:
    """Channels weighted by their mean gradient: ``ReLU(sum_k mean(dY/dA_k) A_k)``.

    Source:
        Selvaraju et al. 2017, equations 1 and 2.

    Example:
        >>> GradCAM()
        GradCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        spatial = tuple(range(2, trace.activation.dim()))
        weights = trace.gradient.mean(dim=spatial, keepdim=True)
        return (weights * trace.activation).sum(dim=1).relu()


EXAMPLES = (GradCAM(),)
