"""Read a classifier's graph as a bounded network."""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from lightning_camrobust.certify.function_rules import FUNCTIONS
from lightning_camrobust.certify.layer_rules import LAYERS
from lightning_camrobust.certify.network_bounds import BoundedNetwork, Step
from lightning_camrobust.certify.operations import Convolution, Operation
from lightning_camrobust.certify.symbols import NotBoundedError, Rule, Symbol
from lightning_camrobust.errors import ModelError
from lightning_camrobust.logits import as_logits
from lightning_camrobust.pixels import PixelSpace

# Rounding a sum of many terms costs several units in the last place.
_ROUNDING_UNITS = 16
# Reading a network in another precision may change the logits by this share; a misread graph changes them by more.
_AGREEMENT = 1e-3
_INSTEAD = "Use method='smoothing', which takes any network."


class UnsupportedLayerError(ModelError):
    """A layer or function of the network cannot be bounded."""


def read_network(model: nn.Module, images: Tensor, *, space: PixelSpace) -> BoundedNetwork:
    """Turn a network into bounded operations from pixels to the pooled map, and one linear head.

    The graph is read by symbolic tracing, computed in float64 (float32 where the device knows no other) and checked:
    its logits must be those of the network. Understood are Conv2d, BatchNorm2d (folded), ReLU, MaxPool2d, AvgPool2d,
    AdaptiveAvgPool2d, sums of two maps, slices, zero padding, Dropout in eval mode, Flatten, Identity and Linear as the
    head behind global average pooling, as modules or as functions.

    Args:
        model: A classifier in eval mode.
        images: ``(b, c, H, W)`` in the model's input units.
        space: How they relate to pixels.

    Returns:
        The network; its input is pixels in [0, 1].

    Raises:
        UnsupportedLayerError: If a layer cannot be bounded; the message names it.
        ModelError: If the network cannot be traced, or the graph says something else than the network.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> network = read_network(net.eval(), torch.rand(2, 1, 8, 8), space=PixelSpace((0.0,), (1.0,)))
        >>> network.last_map(torch.rand(5, 1, 8, 8).double()).shape
        torch.Size([5, 4, 6, 6])
    """
    dtype = torch.float32 if images.device.type == "mps" else torch.float64
    pixels = space.to_pixels(images).to(dtype)
    with torch.no_grad():
        network = _Reader(model, pixels[:1], space, rounding=_ROUNDING_UNITS * torch.finfo(images.dtype).eps).read()
        wanted = as_logits(model(images), batch_size=len(images)).to(dtype)
        _, found = network.explain(pixels, torch.zeros(len(images), dtype=torch.int64, device=images.device))
    tolerance = max(_AGREEMENT, _ROUNDING_UNITS * torch.finfo(images.dtype).eps) * float(wanted.abs().max())
    if found.shape != wanted.shape or not float((found - wanted).abs().max()) <= tolerance:
        raise ModelError(
            f"{type(model).__name__}: the graph read for bounds gives other logits than the network. Likely causes: "
            "an in-place operation whose input is used again, a hook that changes outputs, pixels outside [0, 1], or "
            f"wrong `mean` and `std`. {_INSTEAD}"
        )
    return network


class _Reader:
    """Walks the graph with an example image, so that shapes are known; the builder that the rules speak to."""

    def __init__(self, model: nn.Module, pixels: Tensor, space: PixelSpace, *, rounding: float) -> None:
        self._model, self._rounding = model, rounding
        self._graph = _graph_of(model)
        self._node = next(iter(self._graph.nodes))
        self._steps: list[Step] = []
        self._makers: list[fx.Node] = []
        self._head: tuple[Tensor, Tensor] | None = None
        self._inputs = iter([self._scale_pixels(pixels, space)])

    def read(self) -> BoundedNetwork:
        values: dict[fx.Node, Any] = {}
        for node in self._graph.nodes:
            self._node = node
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
            if node.op == "output":
                return self._finish(args[0])
            symbolic = any(isinstance(values[each], Symbol) for each in node.all_input_nodes)
            values[node] = self._rule(node, symbolic=symbolic)(*args, **kwargs)
        raise self._unsupported("the forward returns nothing")

    def add(self, operation: Operation, *inputs: Symbol) -> Symbol:
        example = operation(*(each.example for each in inputs))
        self._steps.append(Step(operation, tuple(each.number for each in inputs)))
        self._makers.append(self._node)
        return Symbol(len(self._steps), example)

    def fold(self, symbol: Symbol, scale: Tensor, shift: Tensor) -> Symbol:
        step = self._steps[symbol.number - 1] if symbol.number else None
        if step is None or not isinstance(step.operation, Convolution) or not self._is_only_user(symbol):
            return self.add(Convolution(scale.view(-1, 1, 1, 1), shift, groups=len(scale)), symbol)
        self._steps[symbol.number - 1] = Step(step.operation.scaled(scale, shift), step.inputs)
        return Symbol(symbol.number, symbol.example * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1))

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        self._head = weight, bias

    def _scale_pixels(self, pixels: Tensor, space: PixelSpace) -> Symbol:
        if set(space.mean) == {0.0} and set(space.std) == {1.0}:
            return Symbol(0, pixels)
        channels = pixels.shape[1]
        scale = 1 / pixels.new_tensor(space.std).expand(channels)
        return self.fold(Symbol(0, pixels), scale, -pixels.new_tensor(space.mean).expand(channels) * scale)

    def _is_only_user(self, symbol: Symbol) -> bool:
        (before,) = self._node.all_input_nodes
        # A layer that hands its input on unchanged carries the same symbol, which others may use as well.
        return self._makers[symbol.number - 1] is before and len(before.users) == 1

    def _rule(self, node: fx.Node, *, symbolic: bool) -> Rule:
        if node.op == "placeholder":
            return self._next_input
        if node.op == "call_function" and not symbolic:
            return self._named(cast(Rule, node.target))
        found = LAYERS.get(_kind(self._layer())) if node.op == "call_module" else FUNCTIONS.get(node.target)
        if found is None:
            raise self._unsupported("no bounds are known for it")
        rule = partial(found, self, self._layer()) if node.op == "call_module" else partial(found, self)
        return self._named(rule)

    def _named(self, rule: Rule) -> Rule:
        def apply(*args: Any, **kwargs: Any) -> Any:
            try:
                return rule(*args, **kwargs)
            except NotBoundedError as reason:
                raise self._unsupported(str(reason)) from None
            except (TypeError, ValueError, AttributeError, AssertionError) as error:
                raise self._unsupported(f"it is called in an unknown way, or fails ({error})") from error

        return apply

    def _next_input(self, *default: Any) -> Any:
        return next(self._inputs, *default)

    def _finish(self, output: Any) -> BoundedNetwork:
        if not isinstance(output, Symbol) or output.stage != "logits" or self._head is None:
            raise UnsupportedLayerError(
                f"{type(self._model).__name__} must return the output of one linear layer behind global average "
                f"pooling to be bounded. {_INSTEAD}"
            )
        weight, bias = self._head
        if len(weight) == 1:
            weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
        # What comes behind the pooled map, such as a branch that ends blind, is left out.
        return BoundedNetwork(tuple(self._steps[: output.number]), weight, bias, self._rounding)

    def _layer(self) -> nn.Module:
        return self._model.get_submodule(str(self._node.target))

    def _unsupported(self, reason: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"{self._place()} cannot be bounded: {reason}. {_INSTEAD}")

    def _place(self) -> str:
        if self._node.op == "call_module":
            return f"Layer {self._node.target!r} ({type(self._layer()).__name__})"
        caller = list(self._node.meta.get("nn_module_stack", {"": None}))[-1]
        name = getattr(self._node.target, "__name__", str(self._node.target))
        return f"Function {name!r}, called in " + (f"layer {caller!r}," if caller else "the model's own forward,")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A user's subclass of a known layer is one layer too, not the functions it is made of.
        return isinstance(m, tuple(LAYERS)) or super().is_leaf_module(m, module_qualified_name)


def _kind(layer: nn.Module) -> type[nn.Module]:
    """Find what a layer computes: its type, or the parent whose forward it inherits."""
    kinds = (kind for kind in type(layer).__mro__ if kind in LAYERS and type(layer).forward is kind.forward)
    return next(kinds, nn.Module)


def _graph_of(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception as error:
        raise UnsupportedLayerError(
            f"{type(model).__name__} cannot be bounded: torch.fx could not read its graph ({error}). {_INSTEAD}"
        ) from error
