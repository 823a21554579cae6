"""Certified radius by linear bounds (CROWN): seconds an image, and close to what attacks reach. For offline use."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lightning_camrobust.certify.attack import TopKAttack
from lightning_camrobust.certify.interval import IntervalBounds, IntervalCertifier
from lightning_camrobust.certify.linear_bounds import lower_bounds, tight_boxes, tighten
from lightning_camrobust.certify.network_bounds import BoundedNetwork, pixel_box
from lightning_camrobust.certify.operations import Box, Rectifier
from lightning_camrobust.certify.topk import check_search, largest_radius
from lightning_camrobust.errors import ArgumentError

_QUICK_ATTACK = TopKAttack(steps=20, step_share=0.2, objective="margin", halvings=8)


@dataclass(frozen=True)
class LinearBounds:
    """Bound the CAM by lines that are pulled back through the network.

    Bounds of hidden layers: interval arithmetic, then CROWN for each input of a ReLU that interval arithmetic leaves
    undecided. The search starts at the radius that interval arithmetic certifies, and what the box certifies counts as
    certified pairwise as well, so a tighter method never returns a smaller radius.

    Attributes:
        pairwise: Bound the difference of each top cell to each other cell, which is tight; else bound the last map cell
            by cell, as CORGI does, and mix these bounds.
        max_radius: Largest radius tried, in pixel units, above 0.
        halvings: Number of bisections, between what intervals certify and what a quick attack breaks.
        rows: How many quantities are pulled back at once; more is faster and takes more memory.

    Source:
        Zhang et al. 2018 (CROWN, arXiv 1811.00866) with the adaptive lower slope; Gu et al. 2020 (CORGI, arXiv
        2301.11324) for the box; the pairwise difference is not in that paper.
    """

    pairwise: bool = False
    max_radius: float = 0.005
    halvings: int = 10
    rows: int = 256

    def __post_init__(self) -> None:
        check_search(self.max_radius, self.halvings)
        if not isinstance(self.rows, int) or self.rows < 1:
            raise ArgumentError(f"`rows` must be a whole number of at least 1, got {self.rows!r}.")

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
        # An image that breaks the statement ends the search below it, at a thousandth of the price of a bound.
        broken = _QUICK_ATTACK.radius(network, pixels, classes, k=k, within=within).clamp(max=self.max_radius)
        start = IntervalBounds(self.max_radius).radius(network, pixels, classes, k=k, within=within)
        found = [start[:0]]
        with torch.no_grad():
            for one in torch.arange(len(pixels), device=pixels.device)[:, None]:
                problem = IntervalCertifier(network, pixels[one], classes[one], k=k, within=within)
                certified = partial(self.certifies, problem)
                found.append(largest_radius(certified, start[one], broken[one], halvings=self.halvings))
        return torch.cat(found)

    def certifies(self, problem: IntervalCertifier, radii: Tensor) -> Tensor:
        """Tell whether one image is certified at a radius ``(1,)``, as bool ``(1,)``."""
        boxes = tight_boxes(problem.network, pixel_box(problem.pixels, radii), rows=self.rows)
        if self.pairwise and self._pairs_hold(problem, boxes):
            return torch.ones_like(radii, dtype=torch.bool)
        return problem.decide(self._last_box(problem, boxes))

    def _last_box(self, problem: IntervalCertifier, boxes: list[Box]) -> Box:
        """Bound the last map cell by cell, where the comparison of cells depends on it."""
        network, steps = problem.network, problem.network.steps
        if not steps:
            return boxes[-1]
        below, above = _needed(problem, boxes[-1])
        if not isinstance(steps[-1].operation, Rectifier):
            return tighten(network, len(steps), boxes, below=below, above=above, rows=self.rows)
        # Bounds of what is rectified, rectified, are tighter than lines through the ReLU.
        (before,) = steps[-1].inputs
        alive = boxes[before].upper > 0
        tight = tighten(network, before, boxes, below=below & alive, above=above & alive, rows=self.rows)
        return steps[-1].operation.interval(tight)

    def _pairs_hold(self, problem: IntervalCertifier, boxes: list[Box]) -> bool:
        lower, upper = problem.network.cam_box(boxes[-1], problem.classes)
        top, others = problem.top[0].nonzero()[:, 0], (~problem.top[0]).nonzero()[:, 0]
        margins = lower[0, top, None] - upper[0, None, others]
        if int((margins <= problem.slack).sum(dim=1).max()) <= problem.rivals_allowed:
            return True
        # The nearest pairs first: if one of them fails, there is no need to look at the rest.
        undecided = margins.flatten().argsort()[: int((margins <= problem.slack).sum())]
        overtaken = torch.zeros(len(top), dtype=torch.int64, device=top.device)
        for some in torch.split(undecided, self.rows):
            first, second = some // len(others), some % len(others)
            difference = self._differences(problem, boxes, top[first], others[second])
            overtaken += torch.bincount(first[difference <= problem.slack], minlength=len(top))
            if int(overtaken.max()) > problem.rivals_allowed:
                return False
        return True

    def _differences(self, problem: IntervalCertifier, boxes: list[Box], top: Tensor, others: Tensor) -> Tensor:
        """Bound CAM_top - CAM_other from below, for lists of cells, ``(pairs,)``."""
        last, weight = boxes[-1].lower, problem.network.weight[problem.classes[0]]
        signs = weight.new_zeros(len(top), last.shape[2] * last.shape[3])
        signs.scatter_(1, top[:, None], 1).scatter_(1, others[:, None], -1)
        wanted = weight[None, :, None] * signs[:, None]
        return lower_bounds(problem.network, len(problem.network.steps), wanted.view(-1, *last.shape[1:]), boxes)


def _needed(problem: IntervalCertifier, last_map: Box) -> tuple[Tensor, Tensor]:
    """Mark which cells of the last map must be bounded from below, and which from above, ``(1, c, h, w)`` each."""
    lower, upper = problem.network.cam_box(last_map, problem.classes)
    top, slack = problem.top, problem.slack
    highest_rival = upper.masked_fill(top, float("-inf")).amax()
    lowest_top = lower.masked_fill(~top, float("inf")).amin()
    # A top cell above all rivals, or a rival below all top cells, is decided whatever becomes of the others.
    undecided = torch.where(top, lower - highest_rival <= slack, lowest_top - upper <= slack)
    direction = problem.network.weight[problem.classes].sign()[:, :, None] * torch.where(top, 1, -1)[:, None]
    direction = (direction * undecided[:, None]).view(last_map.lower.shape)
    return direction > 0, direction < 0
