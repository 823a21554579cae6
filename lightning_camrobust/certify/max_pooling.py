"""Max pooling as a step of a bounded network."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_camrobust.certify.operations import Box, PulledBack


@dataclass(frozen=True)
class MaxPooling:
    """``MaxPool2d``, with windows that may overlap, padding and dilation; without ``ceil_mode``."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __call__(self, *values: Tensor) -> Tensor:
        """Take the largest value of each window."""
        return functional.max_pool2d(values[0], self.kernel, self.stride, self.padding, self.dilation)

    def interval(self, *boxes: Box) -> Box:
        """Apply it to both ends."""
        return Box(self(boxes[0].lower), self(boxes[0].upper))

    def pull_back(self, coefficients: Tensor, *boxes: Box) -> PulledBack:
        """Bound by the cell with the largest lower end; above by a constant where that cell is not sure to win."""
        lower, upper = boxes[0]
        _, channels, height, width = lower.shape
        lows, highs = self._windows(lower), self._windows(upper)
        winner = lows.argmax(dim=2, keepdim=True)
        sure = lows.gather(2, winner) >= highs.scatter(2, winner, float("-inf")).amax(dim=2, keepdim=True)
        place = self._windows(_places(lower)).gather(2, winner).long()[:, :, 0]
        flat = coefficients.flatten(2)
        linear = (flat > 0) | sure[:, :, 0]
        pulled = flat.new_zeros(len(flat), channels, height * width)
        pulled.scatter_add_(2, place.expand(len(flat), -1, -1), torch.where(linear, flat, 0.0))
        constants = torch.where(linear, 0.0, flat * highs.amax(dim=2)).flatten(1).sum(dim=1)
        return (pulled.view(len(flat), channels, height, width),), constants

    def _windows(self, values: Tensor) -> Tensor:
        rows, columns = self.padding
        padded = functional.pad(values, (columns, columns, rows, rows), value=float("-inf"))
        windows = functional.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return windows.view(len(values), values.shape[1], self.kernel[0] * self.kernel[1], -1)


def _places(like: Tensor) -> Tensor:
    count = like.shape[2] * like.shape[3]
    return torch.arange(count, dtype=like.dtype, device=like.device).view(1, 1, *like.shape[2:]).expand_as(like)
