"""The operations a bounded network is made of: what each does to values, to boxes and to linear bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input


class Box(NamedTuple):
    """Bounds of a value, cell by cell: ``lower <= value <= upper``, both of the value's shape."""

    lower: Tensor
    upper: Tensor


# For each input its coefficients (s, ...), and the constants (s,).
PulledBack = tuple[tuple[Tensor, ...], Tensor]


class Operation(Protocol):
    """One step of a network, on values ``(b, c, h, w)``."""

    def __call__(self, *values: Tensor) -> Tensor:
        """Compute the output."""

    def interval(self, *boxes: Box) -> Box:
        """Bound the output, given bounds of the inputs."""

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Bound ``<coefficients, output>`` from below by a linear function of the inputs, valid inside their boxes.

        Args:
            coefficients: ``(s, c, h, w)``, one row for each bounded quantity.
            boxes: Bounds of each input, of one image ``(1, ...)``.
        """


@dataclass(frozen=True, eq=False)
class Convolution:
    """``Conv2d`` with zero padding; a folded batch norm and the scaling of pixels are convolutions too."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __call__(self, *values: Tensor) -> Tensor:
        """Convolve."""
        return self._convolve(values[0], self.weight, self.bias)

    def interval(self, *boxes: Box) -> Box:
        """Send the middle through the weights and the half width through their sizes; exact for one layer."""
        lower, upper = boxes[0]
        middle = self._convolve((upper + lower) / 2, self.weight, self.bias)
        half = self._convolve((upper - lower) / 2, self.weight.abs(), None)
        return Box(middle - half, middle + half)

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Transpose; no bound is lost."""
        shape = (len(coefficients), *boxes[0].lower.shape[1:])
        geometry = self.stride, self.padding, self.dilation, self.groups
        pulled = conv2d_input(shape, self.weight, coefficients, *geometry)  # type: ignore[no-untyped-call]
        return (pulled,), coefficients.sum(dim=(2, 3)) @ self.bias

    def scaled(self, scale: Tensor, shift: Tensor) -> "Convolution":
        """Fold ``output * scale + shift``, one number a channel, into weight and bias."""
        weight, bias = self.weight * scale.view(-1, 1, 1, 1), self.bias * scale + shift
        return Convolution(weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _convolve(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(values, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class PositiveLinear:
    """A linear function without negative weights: average pooling, slicing, padding with zeros."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, *values: Tensor) -> Tensor:
        """Apply it."""
        return self.function(values[0])

    def interval(self, *boxes: Box) -> Box:
        """Apply it to both ends, as it never falls where its input rises."""
        return Box(self.function(boxes[0].lower), self.function(boxes[0].upper))

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Transpose, by differentiating; no bound is lost."""
        shape = (len(coefficients), *boxes[0].lower.shape[1:])
        with torch.enable_grad():
            start = torch.zeros(shape, dtype=coefficients.dtype, device=coefficients.device, requires_grad=True)
            pulled = torch.autograd.grad(self.function(start), start, coefficients)
        return pulled, coefficients.new_zeros(len(coefficients))


@dataclass(frozen=True)
class Rectifier:
    """``max(x, 0)``."""

    def __call__(self, *values: Tensor) -> Tensor:
        """Cut off what is negative."""
        return values[0].relu()

    def interval(self, *boxes: Box) -> Box:
        """Apply it to both ends."""
        return Box(boxes[0].lower.relu(), boxes[0].upper.relu())

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Bound by lines (CROWN): the chord above; below slope 1 or 0, whichever leaves the smaller area."""
        lower, upper = boxes[0]
        off, on = upper <= 0, lower >= 0
        width = torch.where(on | off, 1.0, upper - lower)
        chord = torch.where(on, 1.0, torch.where(off, 0.0, upper / width))
        below = torch.where(on, 1.0, torch.where(off, 0.0, (upper >= -lower).to(upper.dtype)))
        lift = torch.where(on | off, 0.0, -chord * lower)
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        return (positive * below + negative * chord,), (negative * lift).flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Sum:
    """Two inputs of one shape added, as at the end of a residual block."""

    def __call__(self, *values: Tensor) -> Tensor:
        """Add."""
        return values[0] + values[1]

    def interval(self, *boxes: Box) -> Box:
        """Add the ends."""
        return Box(boxes[0].lower + boxes[1].lower, boxes[0].upper + boxes[1].upper)

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Hand the coefficients to both inputs; no bound is lost."""
        return (coefficients, coefficients), coefficients.new_zeros(len(coefficients))
