"""What each layer of a network's graph becomes in a bounded network."""

from torch import nn
from torch.nn import functional

from lightning_camrobust.certify.function_rules import (
    adaptive_average_pool,
    average_pool,
    flatten,
    max_pool,
    rectify,
    unchanged,
)
from lightning_camrobust.certify.operations import Convolution
from lightning_camrobust.certify.symbols import Builder, Rule, Symbol, body, pair, refuse


def convolution(builder: Builder, layer: nn.Conv2d, x: Symbol) -> Symbol:
    """Take the weights over."""
    body(x)
    if layer.padding_mode != "zeros":
        refuse(f"padding_mode={layer.padding_mode!r} is not supported, only 'zeros'")
    weight = layer.weight.detach().to(x.example)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(weight)
    stride, dilation = pair(layer.stride), pair(layer.dilation)
    return builder.add(Convolution(weight, bias, stride, _padding(layer), dilation, layer.groups), x)


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    if not isinstance(layer.padding, str):
        return pair(layer.padding)
    if layer.padding == "valid":
        return 0, 0
    total = [step * (size - 1) for size, step in zip(layer.kernel_size, layer.dilation, strict=True)]
    if any(each % 2 for each in total):
        refuse("padding='same' with a kernel of even size is not supported")
    return total[0] // 2, total[1] // 2


def batch_norm(builder: Builder, layer: nn.BatchNorm2d | nn.SyncBatchNorm, x: Symbol) -> Symbol:
    """Fold the running statistics."""
    body(x)
    if layer.running_mean is None or layer.running_var is None:
        refuse("batch norm without running statistics mixes the images of a batch")
    mean, variance = layer.running_mean.to(x.example), layer.running_var.to(x.example)
    scale = (variance + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight.detach().to(scale)
    shift = -mean * scale
    return builder.fold(x, scale, shift if layer.bias is None else shift + layer.bias.detach().to(shift))


def linear(builder: Builder, layer: nn.Linear, x: Symbol) -> Symbol:
    """Keep the head."""
    if x.stage != "pooled" or x.example.dim() != 2:
        refuse("a linear layer is supported only directly behind global average pooling (and flattening)")
    weight = layer.weight.detach().to(x.example)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(weight)
    return Symbol(x.number, functional.linear(x.example, weight, bias), "logits", (weight, bias))


def flatten_layer(builder: Builder, layer: nn.Flatten, x: Symbol) -> Symbol:
    """Do the same for a module."""
    return flatten(builder, x, layer.start_dim, layer.end_dim)


LAYERS: dict[type[nn.Module], Rule] = {
    nn.Conv2d: convolution,
    nn.BatchNorm2d: batch_norm,
    nn.SyncBatchNorm: batch_norm,
    nn.Linear: linear,
    nn.Flatten: flatten_layer,
    nn.ReLU: lambda builder, layer, x: rectify(builder, x),
    nn.MaxPool2d: lambda builder, layer, x: max_pool(
        builder, x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode,
        layer.return_indices,
    ),
    nn.AvgPool2d: lambda builder, layer, x: average_pool(
        builder, x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad,
        layer.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda builder, layer, x: adaptive_average_pool(builder, x, layer.output_size),
    nn.Dropout: lambda builder, layer, x: unchanged(builder, x),
    nn.Dropout2d: lambda builder, layer, x: unchanged(builder, x),
    nn.Identity: lambda builder, layer, x: unchanged(builder, x),
}  # fmt: skip
