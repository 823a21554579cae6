"""A classifier as a list of bounded operations, ending in a map, global average pooling and one linear layer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_camrobust.certify.operations import Box, Operation
from lightning_camrobust.logits import as_logits

# Rounding a sum of many terms costs several units in the last place.
ROUNDING_UNITS = 16
# Running a network in another precision changes values by no more than this share; a misread graph by more. On CUDA
# convolutions may run in TF32, whose numbers have ten bits.
_AGREEMENT = {torch.float64: 1e-9}
_AGREEMENT_ELSE = 1e-4
_AGREEMENT_TF32 = 4 * 2**-10
_POOLING_NAMES = ("adaptive_avg_pool2d", "avg_pool2d", "mean")


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
        rounding: Allowance for rounding, relative to the largest sum of sizes that a CAM's cell is made of.
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

    def slack(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Say how far apart two cells' bounds must be for rounding to decide nothing, ``(b,)``.

        Rounding grows with the terms of the sum over channels, which may be far larger than the sum.
        """
        cells = self.last_map(pixels).flatten(2).abs()
        return torch.einsum("bc,bcn->bn", self.weight[classes].abs(), cells).amax(dim=1) * self.rounding


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


def agrees(model: nn.Module, network: BoundedNetwork, images: Tensor, pixels: Tensor) -> bool:
    """Tell whether a bounded network is the network it was read from, for each of some images.

    Args:
        model: The network.
        network: What was read.
        images: ``(b, c, H, W)`` in the model's input units.
        pixels: The same in [0, 1], in the dtype of the bounded network.

    Returns:
        Whether the model pools a map equal to the last map, cell by cell, and returns the same logits.
    """
    rounding = ROUNDING_UNITS * torch.finfo(images.dtype).eps
    tolerance = max(_AGREEMENT.get(images.dtype, _AGREEMENT_ELSE), rounding)
    if images.device.type == "cuda" and images.dtype == torch.float32:
        tolerance = max(tolerance, _AGREEMENT_TF32)
    maps = network.last_map(pixels)
    with _PooledMaps(maps, tolerance=tolerance) as watched:
        # The network may write into what it is given.
        logits = as_logits(model(images.clone()), batch_size=len(images)).to(maps)
    means = maps.flatten(2).mean(dim=2)
    if not watched.seen or logits.shape != (len(means), len(network.weight)):
        return False
    # Image by image and without the bias, but for its rounding: neither may hide a difference.
    difference = (logits - network.bias - means @ network.weight.T).abs().amax(dim=1)
    size = (means.abs() @ network.weight.abs().T).amax(dim=1)
    return bool((difference <= tolerance * size + rounding * network.bias.abs().max()).all())


class _PooledMaps(TorchFunctionMode):
    """Watches a forward pass for a pooled feature map that equals a given one."""

    def __init__(self, wanted: Tensor, *, tolerance: float) -> None:
        """Take the map ``(b, c, h, w)`` and how far a cell may be off, relative to the image's largest cell."""
        super().__init__()
        self._wanted, self._tolerance = wanted, tolerance
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what is pooled, and let it happen."""
        kwargs = kwargs or {}
        value = args[0] if args else kwargs.get("input")
        if getattr(func, "__name__", "") in _POOLING_NAMES and isinstance(value, Tensor):
            self.seen = self.seen or self._agrees(value)
        return func(*args, **kwargs)

    def _agrees(self, value: Tensor) -> bool:
        if value.shape != self._wanted.shape:
            return False
        # Per image: large cells of one must not hide a difference in another.
        difference = (value.to(self._wanted) - self._wanted).abs().flatten(1).amax(dim=1)
        size = self._wanted.abs().flatten(1).amax(dim=1)
        return bool((difference <= self._tolerance * size).all())
