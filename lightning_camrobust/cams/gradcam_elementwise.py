"""Element-wise Grad-CAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class GradCAMElementWise:
    """Gradient times activation, cell by cell, negative products left out: ``sum_k ReLU(dY/dA_k * A_k)``.

    Unlike HiResCAM, a channel that speaks against the class cannot cancel one that speaks for it. On activations that
    are 0 or above it equals LayerCAM.

    Source:
        pytorch-grad-cam, class ``GradCAMElementWise``.

    Example:
        >>> GradCAMElementWise()
        GradCAMElementWise()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        return (trace.gradient * trace.activation).relu().sum(dim=1)


EXAMPLES = (GradCAMElementWise(),)
