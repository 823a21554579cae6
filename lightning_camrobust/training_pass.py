"""One forward of a network in training, whose class activation maps keep their graph."""

from collections.abc import Callable
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from lightning_camrobust.errors import ArgumentError, LayerNotReachedError, ModelError
from lightning_camrobust.layers import layer_name
from lightning_camrobust.layout import Layout, find_layout
from lightning_camrobust.logits import as_logits, explained_classes, find_logits
from lightning_camrobust.second_derivatives import eager_where_compiled, twice_differentiable_attention
from lightning_camrobust.types import CAMMethod, Trace

# No GradScaler protects the inner derivative; float16 loses it below 6e-8, and a power of two leaves no other mark.
_HALF_PRECISION_SCALE = 1024.0


class TrainingPass(NamedTuple):
    """A forward with its maps, all of it still part of the graph.

    Attributes:
        own_logits: As the network gave them: ``(b, k)``, or ``(b, 1)`` or ``(b,)`` from a head with a single logit.
        logits: ``(b, k)`` with k >= 2, see :func:`~lightning_camrobust.logits.as_logits`.
        classes: The explained class, ``(b,)`` int64.
        maps: ``(b, h, w)`` float32, or float64.
    """

    own_logits: Tensor
    logits: Tensor
    classes: Tensor
    maps: Tensor


def pass_with_maps(
    model: nn.Module,
    images: Tensor,
    *,
    layer: nn.Module,
    method: CAMMethod,
    classes: Tensor | Callable[[Tensor], Tensor] | None = None,
) -> TrainingPass:
    """Run the network in the mode it is in and draw maps that can be differentiated by its parameters.

    Unlike :func:`~lightning_camrobust.trace.trace` nothing is cut off or detached: the derivative by the layer's
    output is itself recorded (``create_graph``), so a later ``backward()`` goes through it a second time. If the layer
    runs several times, its last run is explained. ``.grad`` of no parameter is touched here.

    Args:
        model: The network.
        images: ``(b, c, H, W)`` float, in the model's input units.
        layer: A module of it with an output ``(b, c, h, w)``, or patch tokens.
        method: A CAM method that draws on activation and gradient only.
        classes: As in :func:`~lightning_camrobust.trace.trace`.

    Returns:
        Logits, classes and maps.

    Raises:
        LayerNotReachedError: If the layer does not run, or no gradient gets back to it.
        ModelError: If the output is not logits, the layer's output has no cells, or activation checkpointing would run
            something again in another way.

    Example:
        >>> from lightning_camrobust.cams.gradcam import GradCAM
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> made = pass_with_maps(net, torch.rand(2, 1, 8, 8), layer=net[0], method=GradCAM())
        >>> made.maps.shape, made.maps.requires_grad
        (torch.Size([2, 6, 6]), True)
    """
    with eager_where_compiled(model), twice_differentiable_attention():
        output, activation = _forward(model, images, layer)
        logits = as_logits(output, batch_size=len(images))
        layout = _layout(activation, images, layer)
        explained = explained_classes(classes, logits.detach())
        gradient = _gradient(logits, explained, activation, layer)
    # Under autocast the arithmetic of maps would be done in half precision.
    with torch.autocast(images.device.type, enabled=False):
        maps = method(
            derivative_only_trace(
                images=images,
                logits=_at_least_float32(logits),
                classes=explained,
                activation=layout.to_map(_at_least_float32(activation)),
                gradient=layout.to_map(gradient),
                model=model,
                layer=layer,
                layout=layout,
            )
        )
    return TrainingPass(find_logits(output), logits, explained, maps)


def derivative_only_trace(
    *,
    images: Tensor,
    logits: Tensor,
    classes: Tensor,
    activation: Tensor,
    gradient: Tensor,
    model: nn.Module,
    layer: nn.Module,
    layout: Layout,
) -> Trace:
    """Make a trace for CAM methods that need nothing but activation and gradient; it refuses to run the network.

    Args:
        images: As in :class:`~lightning_camrobust.types.Trace`, and so are the others.
        logits: ``(b, k)``.
        classes: ``(b,)`` int64.
        activation: ``(b, c, h, w)``.
        gradient: Same shape.
        model: The network.
        layer: The target layer.
        layout: Of the layer's own output.

    Returns:
        The trace, with its graph.

    Example:
        >>> values = torch.ones(1, 2, 3, 3)
        >>> rest = {"model": nn.ReLU(), "layer": nn.ReLU(), "layout": Layout()}
        >>> made = derivative_only_trace(images=values, logits=torch.ones(1, 2), classes=torch.tensor([0]),
        ...     activation=values, gradient=values, **rest)
        >>> made.forward(values)
        Traceback (most recent call last):
        lightning_camrobust.errors.ArgumentError: it runs the network again, of which a training step sees one pass only
    """

    def refuse(*_given: object) -> NoReturn:
        raise ArgumentError("it runs the network again, of which a training step sees one pass only")

    return Trace(
        images=images,
        logits=logits,
        classes=classes,
        activation=activation,
        gradient=gradient,
        model=model,
        target_layer=layer,
        runs=1,
        head=refuse,
        affine_head=refuse,
        layout=layout,
        forward=refuse,
        again=refuse,
        autocast=(images.device.type, torch.float32, False),
    )


def _forward(model: nn.Module, images: Tensor, layer: nn.Module) -> tuple[object, Tensor]:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise _not_spatial(output, layer)
        # A frozen layer has no graph; what comes behind it can still learn.
        seen[:] = [output if output.requires_grad else output.detach().requires_grad_()]
        with torch.enable_grad():
            # What follows gets a copy: an in-place ReLU or addition would write into the explained activation.
            return seen[0].clone()

    handle = layer.register_forward_hook(keep)
    try:
        output = model(images)
    finally:
        handle.remove()
    if not seen:
        raise LayerNotReachedError(
            f"CAMConsistencyLoss: the target layer {layer_name(model, layer)!r} did not run in the model's forward. "
            "Name a layer that every prediction passes through, or leave `target_layer` None."
        )
    return output, seen[0]


def _layout(activation: Tensor, images: Tensor, layer: nn.Module) -> Layout:
    layout = find_layout(activation, images) if len(activation) == len(images) else None
    if layout is None:
        raise _not_spatial(activation, layer)
    return layout


def _gradient(logits: Tensor, classes: Tensor, activation: Tensor, layer: nn.Module) -> Tensor:
    # Under autocast some layers, such as layer norm, return float32, and what follows is in half precision yet.
    scale = _HALF_PRECISION_SCALE if torch.float16 in (activation.dtype, logits.dtype) else 1.0
    try:
        score = logits.gather(1, classes[:, None]).sum() * scale
        (gradient,) = torch.autograd.grad(score, activation, create_graph=True)
    except CheckpointError as error:
        raise LayerNotReachedError(
            "CAMConsistencyLoss: activation checkpointing ran a part of the network again and got other tensors than "
            f"before ({str(error).splitlines()[0]}). The usual cause is a frozen target layer inside of it, here "
            f"{type(layer).__name__}. Name a layer that is trained, let the layer learn, or leave it out of the "
            "checkpointing, which saves little where nothing is trained."
        ) from error
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise LayerNotReachedError(
            "CAMConsistencyLoss: no gradient gets from the logits back to the target layer "
            f"({type(layer).__name__}): {error} Likely causes: `.detach()` or `torch.no_grad()` behind the layer, or "
            "reentrant activation checkpointing around it (use_reentrant=False works). Name another layer with "
            "`target_layer=`."
        ) from error
    return _at_least_float32(gradient) / scale


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()


def _not_spatial(output: object, layer: nn.Module) -> ModelError:
    came = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    return ModelError(
        f"CAMConsistencyLoss: the target layer ({type(layer).__name__}) must return one spatial tensor (b, c, h, w) or "
        f"patch tokens (b, n, c) a batch, one row an image; got {came}. Name a layer before pooling and flattening "
        "with `target_layer=`."
    )
