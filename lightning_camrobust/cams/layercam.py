"""LayerCAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class LayerCAM:
    """Activation weighted by its positive gradient, cell by cell: ``ReLU(sum_k ReLU(dY/dA_k) * A_k)``.

    Source:
        Jiang et al. 2021 (IEEE TIP 30), equations 7 and 8.

    Example:
        >>> LayerCAM()
        LayerCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        return (trace.gradient.relu() * trace.activation).sum(dim=1).relu()


EXAMPLES = (LayerCAM(),)
