"""Certified radius by interval arithmetic: milliseconds an image, and the loosest of the bounds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.certify.network_bounds import BoundedNetwork, pixel_box
from lightning_camrobust.certify.operations import Box
from lightning_camrobust.certify.topk import check_search, largest_radius, stays_on_top, top_cells


@dataclass(frozen=True)
class IntervalBounds:
    """Bound each cell of the CAM by boxes that are sent through the network (IBP).

    Attributes:
        max_radius: Largest radius tried, in pixel units, above 0.
        halvings: Number of bisections.

    Source:
        Gowal et al. 2018 (arXiv 1810.12715) for the boxes; Gu et al. 2020 (CORGI, arXiv 2301.11324) for the top-k rule,
        the search range and its 15 halvings.
    """

    max_radius: float = 0.005
    halvings: int = 15

    def __post_init__(self) -> None:
        check_search(self.max_radius, self.halvings)

    def radius(self, network: BoundedNetwork, pixels: Tensor, classes: Tensor, *, k: int, within: int) -> Tensor:
        """Find the largest radius (L-infinity, in pixel units) at which the top cells provably stay.

        Args:
            network: The network.
            pixels: ``(b, c, H, W)`` in [0, 1], in the network's dtype.
            classes: Whose CAM, ``(b,)`` int64.
            k: Number of top cells of the undisturbed CAM.
            within: They stay among this many; ``k`` for "the set does not change".

        Returns:
            ``(b,)``, below ``max_radius``; 0 where nothing could be certified.
        """
        with torch.no_grad():
            certifier = IntervalCertifier(network, pixels, classes, k=k, within=within)
            zeros = pixels.new_zeros(len(pixels))
            return largest_radius(certifier, zeros, self.max_radius, halvings=self.halvings)


class IntervalCertifier:
    """Tells for radii ``(b,)`` which images' top cells are sure to stay, ``(b,)`` bool."""

    def __init__(self, network: BoundedNetwork, pixels: Tensor, classes: Tensor, *, k: int, within: int) -> None:
        """Explain the undisturbed images; arguments as in :meth:`IntervalBounds.radius`."""
        cams, _ = network.explain(pixels, classes)
        slack = network.slack(pixels, classes)
        self.network, self.pixels, self.classes = network, pixels, classes
        self.top, self.slack, self.rivals_allowed = top_cells(cams, k), slack, within - k

    def __call__(self, radii: Tensor) -> Tensor:
        """Bound and compare."""
        return self.decide(self.network.boxes(pixel_box(self.pixels, radii))[-1])

    def decide(self, last_map: Box) -> Tensor:
        """Compare, given bounds of the last map ``(b, c, h, w)``."""
        lower, upper = self.network.cam_box(last_map, self.classes)
        return stays_on_top(lower, upper, self.top, rivals_allowed=self.rivals_allowed, slack=self.slack)
