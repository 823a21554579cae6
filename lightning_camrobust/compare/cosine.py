"""Cosine of two maps."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_camrobust.overlap import check_maps


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle between two maps seen as vectors of cells, ``<a, b> / (|a| |b|)``. Scales drop out.

    Attributes:
        of_maps: It compares maps, not segment scores.
        lowest: The least value it can take, for maps that are nowhere negative.

    Example:
        >>> import torch
        >>> clean, noisy = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 4.0]]])
        >>> Cosine()(clean, noisy)
        tensor([0.6000], dtype=torch.float64)
    """

    of_maps: ClassVar[bool] = True
    lowest: ClassVar[float] = 0.0

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Compare maps ``(b, h, w)`` float, any scale.

        Returns:
            ``(b,)`` float64 in [0, 1] ([-1, 1] for maps with negative cells); NaN for a map that is all-zero or not
            finite.

        Raises:
            ArgumentError: If shapes or dtypes are wrong.
        """
        check_maps(clean, noisy)
        vectors = [maps.double().flatten(1) for maps in (clean, noisy)]
        # Scaled first, so that squares neither vanish nor overflow; 0/0 and inf/inf make the undefined ones NaN.
        first, second = (vector / vector.abs().amax(dim=1, keepdim=True) for vector in vectors)
        norms = first.square().sum(dim=1) * second.square().sum(dim=1)
        return ((first * second).sum(dim=1) / norms.sqrt()).clamp(-1, 1)


EXAMPLES = (Cosine(),)
