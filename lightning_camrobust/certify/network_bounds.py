"""A classifier as a list of bounded operations, ending in a map, global average pooling and one linear layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.certify.operations import Box, Operation


@dataclass(frozen=True, eq=False)
class Step:
    """One operation and what it works on.

    Attributes:
        operation: What is done.
        inputs: Numbers of the values it takes: 0 is the image in pixels, i + 1 the output of step i.
    """

    operation: Operation
    inputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BoundedNetwork:
    """A classifier that can be bounded, from pixels in [0, 1] to logits; made by :func:`.graph.read_network`.

    Attributes:
        steps: From the pixels to the last map A.
        weight: Weights of the linear head, ``(k, c)``.
        bias: Its biases, ``(k,)``.
        rounding: Allowance for rounding, relative to the largest size of a map's cells.
    """

    steps: tuple[Step, ...]
    weight: Tensor
    bias: Tensor
    rounding: float

    def last_map(self, pixels: Tensor) -> Tensor:
        """Compute the map that is pooled, ``(b, c, h, w)``, from pixels ``(b, c, H, W)``; differentiable."""
        values = [pixels]
        for step in self.steps:
            values.append(step.operation(*(values[each] for each in step.inputs)))
        return values[-1]

    def explain(self, pixels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute vanilla CAMs and logits.

        Args:
            pixels: ``(b, c, H, W)`` in the dtype of the weights.
            classes: ``(b,)`` int64.

        Returns:
            CAMs ``(b, n)``, the cells in reading order, without ReLU; logits ``(b, k)``.
        """
        cells = self.last_map(pixels).flatten(2)
        return torch.einsum("bc,bcn->bn", self.weight[classes], cells), cells.mean(dim=2) @ self.weight.T + self.bias

    def count_cells(self, pixels: Tensor) -> int:
        """Count the cells of the map of an image ``(1, c, H, W)``."""
        with torch.no_grad():
            return self.last_map(pixels)[0, 0].numel()

    def boxes(self, pixels: Box) -> list[Box]:
        """Bound every value by interval arithmetic (IBP).

        Args:
            pixels: Bounds of the image, ``(b, c, H, W)``.

        Returns:
            One box for the image and one for each step.
        """
        found = [pixels]
        for step in self.steps:
            found.append(step.operation.interval(*(found[each] for each in step.inputs)))
        return found

    def cam_box(self, last_map: Box, classes: Tensor) -> Box:
        """Bound the CAM's cells, given bounds of the last map: L = W+ l + W- u, U = W+ u + W- l, each ``(b, n)``."""
        positive, negative = self.weight[classes].clamp(min=0), self.weight[classes].clamp(max=0)
        lower, upper = last_map.lower.flatten(2), last_map.upper.flatten(2)

        def mix(of_positive: Tensor, of_negative: Tensor) -> Tensor:
            return torch.einsum("bc,bcn->bn", positive, of_positive) + torch.einsum("bc,bcn->bn", negative, of_negative)

        return Box(mix(lower, upper), mix(upper, lower))

    def slack(self, cams: Tensor) -> Tensor:
        """Say how far apart two cells' bounds must be for rounding to decide nothing, ``(b,)``."""
        return cams.abs().amax(dim=1) * self.rounding


def pixel_box(pixels: Tensor, radii: Tensor) -> Box:
    """Bound images whose pixels move by at most a radius and stay in [0, 1].

    Args:
        pixels: ``(b, c, H, W)`` in [0, 1].
        radii: ``(b,)``, in pixel units.

    Returns:
        Both ends, ``(b, c, H, W)``.

    Example:
        >>> box = pixel_box(torch.full((1, 1, 1, 1), 0.875), torch.tensor([0.25]))
        >>> box.lower.item(), box.upper.item()
        (0.625, 1.0)
    """
    reach = radii.view(-1, 1, 1, 1)
    return Box((pixels - reach).clamp(0, 1), (pixels + reach).clamp(0, 1))
