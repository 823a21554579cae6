"""HiResCAM."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class HiResCAM:
    """Gradient times activation, cell by cell: ``ReLU(sum_k dY/dA_k * A_k)``.

    With global average pooling and one linear layer behind the target layer it equals Grad-CAM.

    Source:
        Draelos and Carin 2020 (arXiv 2011.08891), equation 6.

    Example:
        >>> HiResCAM()
        HiResCAM()
    """

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above."""
        return (trace.gradient * trace.activation).sum(dim=1).relu()


EXAMPLES = (HiResCAM(),)
