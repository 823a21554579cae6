"""What the rules for layers and functions share: values of the graph, who builds the network, what tracing hides."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lightning_camrobust.certify.operations import Operation

# Functions that hand out the storage of their input, and those that write into it.
_VIEWS = (operator.getitem, torch.flatten, functional.dropout, functional.dropout2d)
_VIEW_METHODS = ("contiguous", "flatten", "view", "reshape")
_VIEW_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
_WRITERS = (torch.relu_, operator.iadd, "relu_", "add_")


class NotBoundedError(Exception):
    """A layer or function cannot be bounded; says why, the reader of the graph says which."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A value that depends on the image.

    Attributes:
        number: Which value of the bounded network it is; for pooled ones and logits, the map before pooling.
        example: Its value for the example image, ``(1, ...)``.
        stage: Whether it lies in the body, behind global average pooling, or behind the linear head.
        head: Weights ``(k, c)`` and biases ``(k,)`` of the linear head it is the output of; else None.
    """

    number: int
    example: Tensor
    stage: Literal["body", "pooled", "logits"] = "body"
    head: tuple[Tensor, Tensor] | None = None


class Builder(Protocol):
    """What a rule may ask of the reader of the graph."""

    def add(self, operation: Operation, *inputs: Symbol) -> Symbol:
        """Append a step."""

    def fold(self, symbol: Symbol, scale: Tensor, shift: Tensor) -> Symbol:
        """Scale and shift the channels of a value, inside the convolution it came from where nobody else uses it."""


Rule = Callable[..., Any]


def body(x: Symbol) -> Symbol:
    """Insist on a feature map before pooling."""
    return x if x.stage == "body" and x.example.dim() == 4 else refuse("it comes behind global average pooling")


def refuse(reason: str) -> NoReturn:
    """Say why something cannot be bounded."""
    raise NotBoundedError(reason)


def pair(value: Any) -> tuple[int, int]:
    """Read one number or two, as layers take them."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def find_hidden_code(model: nn.Module) -> str | None:
    """Find a layer around which code runs that symbolic tracing passes over.

    Args:
        model: The network.

    Returns:
        The layer and what is the matter with it, or None if there is no such layer.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> handle = net[0].register_forward_hook(lambda layer, args, output: 2 * output)
        >>> find_hidden_code(net)
        "Layer '0' (ReLU) cannot be bounded: it has forward hooks, which the graph does not show"
    """
    for name, layer in model.named_modules():
        place = f"Layer {name!r} ({type(layer).__name__})" if name else f"The model {type(layer).__name__}"
        if layer._forward_hooks or layer._forward_pre_hooks:
            return f"{place} cannot be bounded: it has forward hooks, which the graph does not show"
        if "forward" in vars(layer):
            return f"{place} cannot be bounded: its forward was replaced, which the graph does not show"
    return None


def overwrites_a_used_value(node: fx.Node, layer: nn.Module | None) -> bool:
    """Tell whether a node writes in place into a value that is read again later, itself or through a view.

    Args:
        node: A node of a traced graph.
        layer: The layer it calls, if any.

    Returns:
        Whether a graph without writes would mean something else.

    Example:
        >>> class Twice(nn.Module):
        ...     def forward(self, x):
        ...         return torch.relu_(x) + x
        >>> [overwrites_a_used_value(node, None) for node in fx.symbolic_trace(Twice()).graph.nodes]
        [False, True, False, False]
    """
    if not _writes(node, layer):
        return False
    before: list[fx.Node] = []
    for each in node.graph.nodes:
        if each is node:
            break
        before.append(each)
    root, past = _storage(node), {*before, node}
    aliases = [each for each in before if _storage(each) is root]
    return any(user not in past and not _reads_shape(user) for alias in aliases for user in alias.users)


def _writes(node: fx.Node, layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.ReLU):
        return layer.inplace
    flag: Any = node.kwargs.get("inplace", node.target is functional.relu and len(node.args) > 1 and node.args[1])
    return node.target in _WRITERS or (node.op == "call_function" and bool(flag))


def _storage(node: fx.Node) -> fx.Node:
    """Find the node that made the storage a node's value lies in."""
    while node.all_input_nodes and _shares_storage(node):
        node = node.all_input_nodes[0]
    return node


def _shares_storage(node: fx.Node) -> bool:
    layer = _layer_of(node)
    viewed = isinstance(layer, _VIEW_LAYERS) or node.target in _VIEWS
    return viewed or (node.op == "call_method" and node.target in _VIEW_METHODS) or _writes(node, layer)


def _layer_of(node: fx.Node) -> nn.Module | None:
    if node.op != "call_module":
        return None
    owner = node.graph.owning_module
    return None if owner is None else owner.get_submodule(str(node.target))


def _reads_shape(node: fx.Node) -> bool:
    return node.target in ("size", getattr)
