"""Eigen-Grad-CAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.principal import principal_map
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class EigenGradCAM:
    """First principal component of gradient times activation over the cells: Eigen-CAM that sees the class.

    The sign of a principal component is arbitrary. Here it is fixed: the map correlates positively with the sum of
    gradient times activation over channels, which is what HiResCAM shows. pytorch-grad-cam keeps whatever sign the
    decomposition gives.

    Source:
        pytorch-grad-cam, class ``EigenGradCAM``; after Muhammad and Yeasin 2020 (arXiv 2008.00299), equation 3.

    Example:
        >>> EigenGradCAM()
        EigenGradCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above; NaN for an image with a value that is not finite."""
        return principal_map(trace.gradient * trace.activation).relu().to(trace.activation.dtype)


EXAMPLES = (EigenGradCAM(),)
