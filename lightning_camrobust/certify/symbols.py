"""What the rules for layers and functions share: values of the graph, and who builds the bounded network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

from torch import Tensor

from lightning_camrobust.certify.operations import Operation


class NotBoundedError(Exception):
    """A layer or function cannot be bounded; says why, the reader of the graph says which."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A value that depends on the image.

    Attributes:
        number: Which value of the bounded network it is; for pooled ones and logits, the map before pooling.
        example: Its value for the example image, ``(1, ...)``.
        stage: Whether it lies in the body, behind global average pooling, or behind the linear head.
    """

    number: int
    example: Tensor
    stage: Literal["body", "pooled", "logits"] = "body"


class Builder(Protocol):
    """What a rule may ask of the reader of the graph."""

    def add(self, operation: Operation, *inputs: Symbol) -> Symbol:
        """Append a step."""

    def fold(self, symbol: Symbol, scale: Tensor, shift: Tensor) -> Symbol:
        """Scale and shift the channels of a value, inside the convolution it came from where nobody else uses it."""

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Keep the linear head."""


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
