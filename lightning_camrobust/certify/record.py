"""What is certified about a batch of images."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_camrobust.certify.crown import LinearBounds
from lightning_camrobust.certify.interval import IntervalBounds
from lightning_camrobust.certify.smoothing_method import Smoothing

Method = Smoothing | IntervalBounds | LinearBounds


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is certified about each image of a batch.

    Attributes:
        radius: Certified radius in pixel units, ``(b,)`` float64; NaN where ``covered`` is false.
        attack_radius: Distance at which an attack broke the statement, an upper bound, ``(b,)``; infinite where none
            did, None if no attack was asked for.
        classes: Whose CAM, ``(b,)`` int64.
        covered: Whether the class is the predicted one, ``(b,)`` bool; else nothing is said about the image.
        k: Number of top cells.
        within: The top k cells stay among this many; k itself for "the set does not change".
        method: What certified.
        mean_map: Smoothed map ``(b, h, w)`` for smoothing, else None.
    """

    radius: Tensor
    attack_radius: Tensor | None
    classes: Tensor
    covered: Tensor
    k: int
    within: int
    method: Method
    mean_map: Tensor | None = None

    @property
    def norm(self) -> Literal["l2", "linf"]:
        """Norm in which radii are measured."""
        return "l2" if isinstance(self.method, Smoothing) else "linf"

    def overlap_at(self, radius: float) -> Tensor:
        """Say which share of the top cells is certified to stay at a given radius.

        Args:
            radius: In pixel units.

        Returns:
            ``(b,)`` float64; for bounds 1 where the radius is certified and else 0; NaN where ``covered`` is false.
        """
        if isinstance(self.method, Smoothing) and self.mean_map is not None:
            found = self.method.overlaps(self.mean_map.flatten(1), k=self.k, radius=radius)
        else:
            found = (self.radius >= radius).double()
        return found.masked_fill(~self.covered, float("nan"))
