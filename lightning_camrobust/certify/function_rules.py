"""What each function of a network's graph becomes in a bounded network."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_camrobust.certify.max_pooling import MaxPooling
from lightning_camrobust.certify.operations import PositiveLinear, Rectifier, Sum
from lightning_camrobust.certify.symbols import Builder, Rule, Symbol, body, pair, refuse


def rectify(builder: Builder, x: Symbol, inplace: bool = False) -> Symbol:
    """ReLU; whether it writes in place does not matter to bounds."""
    return builder.add(Rectifier(), body(x))


def add(builder: Builder, a: Any, b: Any, *, alpha: int = 1) -> Symbol:
    """Residual sum."""
    if not isinstance(a, Symbol) or not isinstance(b, Symbol) or a.example.shape != b.example.shape or alpha != 1:
        refuse("only two feature maps of one shape can be added")
    return builder.add(Sum(), body(a), body(b))


def max_pool(
    builder: Builder, x: Symbol, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Symbol:  # fmt: skip
    """Max pooling."""
    if ceil_mode or return_indices:
        refuse("max pooling with ceil_mode or return_indices is not supported")
    kernel = pair(kernel_size)
    return builder.add(MaxPooling(kernel, pair(stride or kernel), pair(padding), pair(dilation)), body(x))


def average_pool(
    builder: Builder, x: Symbol, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Symbol:  # fmt: skip
    """Average pooling, global where one window covers the map."""
    if divisor_override is not None and divisor_override <= 0:
        refuse("average pooling is supported only with a divisor above 0")
    arguments = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    whole = pair(kernel_size) == tuple(x.example.shape[2:]) and pair(padding) == (0, 0) and divisor_override is None
    return _pool(builder, x, lambda values: functional.avg_pool2d(values, *arguments), everywhere=whole)


def adaptive_average_pool(builder: Builder, x: Symbol, output_size: Any) -> Symbol:
    """Adaptive average pooling, global for an output of one cell."""
    whole = output_size in (1, (1, 1), [1, 1])
    return _pool(builder, x, lambda values: functional.adaptive_avg_pool2d(values, output_size), everywhere=whole)


def mean(builder: Builder, x: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    """Global average pooling, as ``x.mean((2, 3))``."""
    dims = sorted(each % 4 for each in dim) if isinstance(dim, (tuple, list)) else None
    if dims != [2, 3]:
        refuse("a mean is supported only over both spatial axes, (2, 3), of a feature map")
    return _pool(builder, x, lambda values: values.mean(dim=(2, 3), keepdim=keepdim), everywhere=True)


def _pool(builder: Builder, x: Symbol, function: Callable[[Tensor], Tensor], *, everywhere: bool) -> Symbol:
    body(x)
    if not everywhere:
        return builder.add(PositiveLinear(function), x)
    if x.example[0, 0].numel() == 1:
        refuse("the map that is pooled has a single cell, so it has no top cells")
    return Symbol(x.number, function(x.example), "pooled")


def flatten(builder: Builder, x: Symbol, start_dim: int = 0, end_dim: int = -1) -> Symbol:
    """Drop the two axes of length one behind global pooling."""
    if x.stage == "body" or start_dim != 1 or end_dim not in (-1, x.example.dim() - 1):
        refuse("flattening is supported only from axis 1, behind global average pooling")
    return replace(x, example=x.example.flatten(1))


def view(builder: Builder, x: Symbol, *shape: Any) -> Symbol:
    """Flatten, written as ``x.view(x.size(0), -1)``."""
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    if len(sizes) != 2 or sizes[0] not in (1, -1):
        refuse("reshaping is supported only to (batch, -1), behind global average pooling")
    return flatten(builder, x, 1)


def unchanged(builder: Builder, x: Symbol, *_: Any, **__: Any) -> Symbol:
    """Do nothing."""
    return x


def dropout(builder: Builder, x: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False) -> Symbol:
    """Dropout in eval mode does nothing."""
    return refuse("dropout is active: pass training=self.training") if training and p else x


def get_item(builder: Builder, x: Symbol, key: Any) -> Symbol:
    """Take every other row and column, or some channels."""
    body(x)
    if not isinstance(key, tuple) or key[0] != slice(None) or not all(isinstance(each, slice) for each in key):
        refuse("indexing is supported only by slices, with the whole batch")
    return builder.add(PositiveLinear(lambda values: values[key]), x)


def pad(builder: Builder, x: Symbol, pad: Any, mode: str = "constant", value: float | None = None) -> Symbol:
    """Pad with zeros."""
    body(x)
    if mode != "constant" or value not in (None, 0) or len(pad) > 6:
        refuse("padding is supported only with zeros, in space or channels")
    return builder.add(PositiveLinear(lambda values: functional.pad(values, tuple(pad))), x)


def size(builder: Builder, x: Symbol, dim: int | None = None) -> Any:
    """Read a size; the batch counts as one image."""
    return x.example.size() if dim is None else x.example.size(dim)


def attribute(builder: Builder, x: Symbol, name: str) -> Any:
    """Read ``x.shape``."""
    return x.example.shape if name == "shape" else refuse(f"the attribute {name!r} is not supported")


FUNCTIONS: dict[Any, Rule] = {
    torch.relu: rectify, torch.relu_: rectify, functional.relu: rectify, "relu": rectify, "relu_": rectify,
    operator.add: add, operator.iadd: add, torch.add: add, "add": add, "add_": add,
    functional.max_pool2d: max_pool, torch.max_pool2d: max_pool,
    functional.avg_pool2d: average_pool, functional.adaptive_avg_pool2d: adaptive_average_pool,
    torch.mean: mean, "mean": mean, torch.flatten: flatten, "flatten": flatten, "view": view, "reshape": view,
    functional.dropout: dropout, functional.dropout2d: dropout, functional.pad: pad, operator.getitem: get_item,
    "size": size, getattr: attribute, "contiguous": unchanged,
}  # fmt: skip
