"""Eigen-CAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.principal import principal_map
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class EigenCAM:
    """First principal component of the activations over the cells; no class and no gradient enter.

    The sign of a principal component is arbitrary, and a flipped map would count as instability. Here it is fixed:
    the map correlates positively with the mean activation over channels.

    Source:
        Muhammad and Yeasin 2020 (arXiv 2008.00299), equation 3; channels centred over the cells, as in
        pytorch-grad-cam.

    Example:
        >>> EigenCAM()
        EigenCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        return principal_map(trace.activation).relu().to(trace.activation.dtype)


EXAMPLES = (EigenCAM(),)
