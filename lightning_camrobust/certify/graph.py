"""Read a classifier's graph as a bounded network."""

import operator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from lightning_camrobust.certify.function_rules import FUNCTIONS
from lightning_camrobust.certify.layer_rules import LAYERS
from lightning_camrobust.certify.network_bounds import ROUNDING_UNITS, BoundedNetwork, Step, agrees
from lightning_camrobust.certify.operations import Convolution, Operation
from lightning_camrobust.certify.symbols import NotBoundedError, Rule, Symbol, find_hidden_code, overwrites_a_used_value
from lightning_camrobust.errors import ModelError
from lightning_camrobust.pixels import PixelSpace

_INSTEAD = "Use method='smoothing', which takes any network."


class UnsupportedLayerError(ModelError):
    """A layer or function of the network cannot be bounded."""


def read_network(model: nn.Module, images: Tensor, *, space: PixelSpace) -> BoundedNetwork:
    """Turn a network into bounded operations from pixels to the pooled map, and one linear head.

    The graph is read by symbolic tracing with the forward's defaults, computed in float64 (float32 where the device
    knows no other) and checked image by image: its last map must be one that the network pools, and its logits must be
    the network's. What tracing cannot see is refused: hooks, and writes in place into values used again. Understood are
    Conv2d, BatchNorm2d (folded), ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, sums of two maps, slices, zero padding,
    Dropout in eval mode, Flatten, Identity and Linear as the head behind global average pooling, as modules or as
    functions.

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
    pixels = space.to_pixels(images.to(dtype))
    hidden = find_hidden_code(model)
    if hidden is not None:
        raise UnsupportedLayerError(f"{hidden}. {_INSTEAD}")
    with torch.no_grad():
        network = _Reader(model, pixels[:1], space, rounding=ROUNDING_UNITS * torch.finfo(images.dtype).eps).read()
        if not agrees(model, network, images, pixels):
            raise ModelError(
                f"{type(model).__name__}: the graph read for bounds gives another map or other logits than the "
                "network. Likely causes: code that tracing does not see, pixels outside [0, 1], or wrong `mean` and "
                f"`std`. {_INSTEAD}"
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
        self._inputs = iter([self._scale_pixels(pixels, space)])

    def read(self) -> BoundedNetwork:
        values: dict[fx.Node, Any] = {}
        for node in self._graph.nodes:
            self._node = node
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
            if node.op == "output":
                return self._finish(args[0])
            self._refuse_hidden_writes(values)
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

    def _refuse_hidden_writes(self, values: dict[fx.Node, Any]) -> None:
        node = self._node
        layer = self._layer() if node.op == "call_module" else None
        inputs = node.all_input_nodes
        if inputs and isinstance(values[inputs[0]], Symbol) and overwrites_a_used_value(node, layer):
            raise self._unsupported("it writes in place into a value that is used again")

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

    def _next_input(self, *_: Any) -> Any:
        return next(self._inputs)

    def _finish(self, output: Any) -> BoundedNetwork:
        if not isinstance(output, Symbol) or output.head is None:
            raise UnsupportedLayerError(
                f"{type(self._model).__name__} must return the output of one linear layer behind global average "
                f"pooling to be bounded. {_INSTEAD}"
            )
        weight, bias = output.head
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


class _Proxy(fx.Proxy):
    # Without it Python takes `a += b` for `a = a + b`, and that it writes into `a` is lost.
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A user's subclass of a known layer is one layer too, not the functions it is made of.
        return isinstance(m, tuple(LAYERS)) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        # The network is called with images alone: other arguments have their defaults, not symbols for them.
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]


def _kind(layer: nn.Module) -> type[nn.Module]:
    """Find what a layer computes: its type, or the parent whose forward it inherits."""
    kinds = (kind for kind in type(layer).__mro__ if kind in LAYERS and type(layer).forward is kind.forward)
    return next(kinds, nn.Module)


def _graph_of(model: nn.Module) -> fx.Graph:
    try:
        graph = _Tracer().trace(model)
        graph.owning_module = model  # type: ignore[assignment]
        return graph
    except Exception as error:
        raise UnsupportedLayerError(
            f"{type(model).__name__} cannot be bounded: torch.fx could not read its graph ({error}). {_INSTEAD}"
        ) from error
