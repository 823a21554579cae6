"""An upper bound of the certified radius: an attack that moves the top cells and keeps the class."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_camrobust.certify.network_bounds import BoundedNetwork
from lightning_camrobust.certify.topk import check_search, top_cells
from lightning_camrobust.errors import ArgumentError

Objective = Literal["sum", "margin"]


@dataclass(frozen=True)
class TopKAttack:
    """Projected gradient descent on the CAM itself, at radii found by bisection.

    Attributes:
        steps: Steps at each radius.
        step_share: Length of a step, as a share of the radius.
        objective: What goes down: ``"margin"``, the lowest of the cells on top of the undisturbed map minus the other
            cell it has to stay above; or ``"sum"`` of the cells on top, as CORGI does, which needs larger radii.
        max_radius: Largest radius tried, in pixel units.
        halvings: Number of bisections.

    Source:
        Gu et al. 2020 (CORGI, arXiv 2301.11324): 100 steps of a thirtieth of the radius, [0, 0.05], 15 halvings;
        the margin is not in that paper.
    """

    steps: int = 100
    step_share: float = 1 / 30
    objective: Objective = "margin"
    max_radius: float = 0.05
    halvings: int = 15

    def __post_init__(self) -> None:
        check_search(self.max_radius, self.halvings)
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(f"`steps` must be a whole number of at least 1, got {self.steps!r}.")
        if not 0 < self.step_share <= 1:
            raise ArgumentError(f"`step_share` must lie in (0, 1], a share of the radius; got {self.step_share!r}.")
        if self.objective not in get_args(Objective):
            raise ArgumentError(f"`objective` must be one of {get_args(Objective)}, got {self.objective!r}.")

    def radius(self, network: BoundedNetwork, pixels: Tensor, classes: Tensor, *, k: int, within: int) -> Tensor:
        """Find the smallest L-infinity distance at which the attack succeeds.

        It succeeds when one of the top cells leaves the top ``within``, while the class stays the predicted one. The
        distance is that of the image found, which may lie inside the radius tried.

        Args:
            network: The network.
            pixels: ``(b, c, H, W)`` in [0, 1], in the network's dtype.
            classes: Whose CAM, ``(b,)`` int64.
            k: Number of top cells of the undisturbed CAM.
            within: They are to leave the top so many.

        Returns:
            ``(b,)``; infinite where the attack failed at all radii.
        """
        if not len(pixels):
            return pixels.new_zeros(0)
        with torch.no_grad():
            top = top_cells(network.explain(pixels, classes)[0], k)
        problem = _Problem(network, pixels, classes, top, within)
        low, high = pixels.new_zeros(len(pixels)), pixels.new_full((len(pixels),), self.max_radius)
        best = self._descend(problem, high)
        for _ in range(self.halvings):
            high = torch.minimum(high, best)
            middle = (low + high) / 2
            distance = self._descend(problem, middle)
            best, low = torch.minimum(best, distance), torch.where(distance.isinf(), middle, low)
        return best

    def _descend(self, problem: "_Problem", radii: Tensor) -> Tensor:
        reach, start = radii.view(-1, 1, 1, 1), problem.pixels
        found, current = torch.full_like(radii, float("inf")), start
        for _ in range(self.steps + 1):
            current = current.detach().requires_grad_()
            with torch.enable_grad():
                cams, logits = problem.network.explain(current, problem.classes)
                (gradient,) = torch.autograd.grad(self._height(cams, problem), current)
            distance = (current.detach() - start).abs().flatten(1).amax(dim=1)
            found = torch.where(problem.solved(cams.detach(), logits.detach()), torch.minimum(found, distance), found)
            if bool(found.isfinite().all()):
                break
            moved = current.detach() - self.step_share * reach * gradient.sign()
            current = torch.minimum(torch.maximum(moved, start - reach), start + reach).clamp(0, 1)
        return found

    def _height(self, cams: Tensor, problem: "_Problem") -> Tensor:
        if self.objective == "sum":
            return cams[problem.top].sum()
        lowest = cams.masked_fill(~problem.top, float("inf")).amin(dim=1)
        rivals = cams.masked_fill(problem.top, float("-inf")).topk(problem.rivals_needed, dim=1).values
        return (lowest - rivals[:, -1]).sum()


@dataclass(frozen=True, eq=False)
class _Problem:
    network: BoundedNetwork
    pixels: Tensor
    classes: Tensor
    top: Tensor
    within: int

    @property
    def rivals_needed(self) -> int:
        # With `within` all cells, nothing can succeed; then any rival will do.
        return self.within - int(self.top[0].sum()) + (self.within < self.top.shape[1])

    def solved(self, cams: Tensor, logits: Tensor) -> Tensor:
        left = (self.top & ~top_cells(cams, self.within)).any(dim=1)
        return left & (logits.argmax(dim=1) == self.classes)
