"""ONE pass of the network, from which every CAM method draws its map."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_camrobust.affine import AffineHead
from lightning_camrobust.errors import LayerNotReachedError, ModelError
from lightning_camrobust.head import HeadRunner
from lightning_camrobust.layers import layer_name
from lightning_camrobust.layout import Layout, find_layout
from lightning_camrobust.logits import as_logits, explained_classes
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.types import Trace

# float16 gradients below 6e-8 vanish and no GradScaler protects this backward; a power of two leaves no other mark.
_HALF_PRECISION_SCALE = 1024.0


def trace(
    model: nn.Module,
    images: Tensor,
    *,
    target_layer: nn.Module,
    classes: Tensor | Callable[[Tensor], Tensor] | None = None,
    runs: int | None = None,
    space: PixelSpace | None = None,
) -> Trace:
    """Run the network once and keep the target layer's activation and its gradient.

    The part of the network before the target layer runs without a graph. Its output becomes a fresh leaf, and only
    what follows is differentiated, so that a trace costs little more than an inference forward and ``.grad`` of no
    parameter is touched. If the layer runs several times, its last run is explained.

    Args:
        model: The network, in eval mode; what it returns is read by :func:`~lightning_camrobust.logits.as_logits`.
        images: ``(b, c, H, W)`` float, in the model's input units; ``(b, c, D, H, W)`` for networks on volumes.
        target_layer: A module of ``model`` with an output ``(b, channel, h, w)``, or patch tokens ``(b, n, channel)``.
        classes: ``(b,)`` int64 to explain, or a function of the logits; None explains the predicted class.
        runs: How often the layer runs in one forward, if known from an earlier trace: then no graph is made before its
            last run.
        space: How inputs relate to pixels, for CAM methods that change the image; None if unknown.

    Returns:
        The trace; activation, gradient and logits in float32, or float64 where the network computes in it.

    Raises:
        ModelError: If the output is not logits, or the layer's output is neither spatial nor tokens of a grid.
        LayerNotReachedError: If the layer does not run, or no gradient gets from the logits back to it.

    Source:
        Selvaraju et al. 2017 (Grad-CAM) for what is explained: the logit, before softmax.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> trace(net, torch.rand(2, 1, 8, 8), target_layer=net[0]).gradient.shape
        torch.Size([2, 4, 6, 6])
    """
    leaf, logits, runs = _forward_to_gradients(model, images, target_layer, runs)
    layout = _layout(leaf, images, target_layer)
    explained = explained_classes(classes, logits.detach())
    affine_head = AffineHead(logits, leaf)
    gradient = _gradient(logits, explained, leaf, target_layer, keep_graph=affine_head.possible)
    other = _OtherInputs(model, target_layer, device=images.device.type, runs=runs, space=space)
    head = HeadRunner(model, target_layer, images, logits.detach(), leaf.detach(), layout=layout, runs=runs)
    return Trace(
        images=images,
        logits=_at_least_float32(logits.detach()),
        classes=explained,
        activation=layout.to_map(_at_least_float32(leaf.detach())),
        gradient=layout.to_map(gradient),
        model=model,
        target_layer=target_layer,
        runs=runs,
        head=head,
        affine_head=affine_head.holds,
        layout=layout,
        forward=other.logits,
        again=other.trace,
        autocast=other.autocast,
        space=space,
    )


class _OtherInputs:
    """Runs other inputs at the precision of the trace: CAM methods compute with autocast switched off."""

    def __init__(self, model: nn.Module, layer: nn.Module, *, device: str, runs: int, space: PixelSpace | None) -> None:
        self._model, self._layer, self._runs, self._space = model, layer, runs, space
        self.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    def logits(self, inputs: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(*self.autocast):
            output = self._model(inputs)
        return _at_least_float32(as_logits(output, batch_size=len(inputs)))

    def trace(self, inputs: Tensor, classes: Tensor) -> Trace:
        with torch.autocast(*self.autocast):
            return trace(
                self._model, inputs, target_layer=self._layer, classes=classes, runs=self._runs, space=self._space
            )


def _forward_to_gradients(
    model: nn.Module, images: Tensor, layer: nn.Module, runs: int | None
) -> tuple[Tensor, Tensor, int]:
    leaf, logits, seen = _forward(model, images, layer, cut_at=runs, whole_graph=False)
    if logits.requires_grad:
        return leaf, logits, seen
    # A network that runs part of itself under its own no_grad switched the late graph off again.
    return _forward(model, images, layer, cut_at=None, whole_graph=True)


def _forward(
    model: nn.Module, images: Tensor, layer: nn.Module, *, cut_at: int | None, whole_graph: bool
) -> tuple[Tensor, Tensor, int]:
    leaves: list[Tensor] = []
    seen = 0

    def cut(_module: nn.Module, _args: object, output: object) -> Tensor | None:
        nonlocal seen
        seen += 1
        if cut_at is not None and seen < cut_at:
            return None
        leaves.append(_floating(output, layer).detach().clone().requires_grad_())
        # Lasts until the `with` below ends: what follows the layer is differentiated.
        torch.set_grad_enabled(True)
        # The clone is no leaf, so an in-place ReLU may write to it, and the leaf keeps the layer's own values.
        return leaves[-1].clone()

    handle = layer.register_forward_hook(cut)
    try:
        with torch.set_grad_enabled(whole_graph):
            output = model(images)
    finally:
        handle.remove()
    if seen and not leaves:
        # It ran less often than before: a network whose depth depends on the images.
        return _forward(model, images, layer, cut_at=None, whole_graph=whole_graph)
    if not leaves:
        raise LayerNotReachedError(
            f"The target layer {layer_name(model, layer)!r} did not run in the model's forward. "
            "Name a layer that every prediction passes through, or leave `target_layer` None."
        )
    return leaves[-1], as_logits(output, batch_size=len(images)), seen


def _floating(output: object, layer: nn.Module) -> Tensor:
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    raise _not_spatial(output, layer)


def _layout(leaf: Tensor, images: Tensor, layer: nn.Module) -> Layout:
    if len(leaf) != len(images):
        raise ModelError(
            f"The target layer ({type(layer).__name__}) gives out {len(leaf)} rows for {len(images)} images, such as "
            "one a window of attention or a tile. Name a layer with one row an image with `target_layer=`."
        )
    layout = find_layout(leaf, images)
    if layout is None:
        raise _not_spatial(leaf, layer)
    return layout


def _not_spatial(output: object, layer: nn.Module) -> ModelError:
    came = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    return ModelError(
        f"The target layer ({type(layer).__name__}) must return a spatial tensor (b, c, h, w), or patch tokens "
        f"(b, n, c) that fill a grid of the image's proportions; got {came}. "
        "Name a layer before pooling and flattening with `target_layer=`."
    )


def _gradient(logits: Tensor, classes: Tensor, leaf: Tensor, layer: nn.Module, *, keep_graph: bool) -> Tensor:
    scale = _HALF_PRECISION_SCALE if leaf.dtype == torch.float16 else 1.0
    try:
        score = logits.gather(1, classes[:, None]).sum() * scale
        (gradient,) = torch.autograd.grad(score, leaf, retain_graph=keep_graph)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise LayerNotReachedError(
            f"No gradient gets from the logits back to the target layer ({type(layer).__name__}). Likely causes: "
            "`.detach()` or `torch.no_grad()` behind the layer, reentrant activation checkpointing around it, "
            "or a layer whose output the logits do not depend on. Name another one with `target_layer=`."
        ) from error
    return _at_least_float32(gradient) / scale


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()
