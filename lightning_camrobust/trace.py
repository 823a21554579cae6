"""ONE pass of the network, from which every CAM method draws its map."""

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError, LayerNotReachedError, ModelError
from lightning_camrobust.head import HeadRunner
from lightning_camrobust.types import Trace


def trace(model: nn.Module, images: Tensor, *, target_layer: nn.Module, classes: Tensor | None = None) -> Trace:
    """Run the network once and keep the target layer's activation and its gradient.

    The part of the network before the target layer runs without a graph. Its output becomes a fresh leaf, and only
    what follows is differentiated, so that a trace costs little more than an inference forward and ``.grad`` of no
    parameter is touched. If the layer runs several times, its last run is explained.

    Args:
        model: The network, in eval mode, mapping ``(b, c, H, W)`` to logits ``(b, k)``. A single logit ``(b, 1)`` is
            read as the two classes of a binary head, with logits ``(-z, z)``.
        images: ``(b, c, H, W)`` float, in the model's input units.
        target_layer: A module of ``model`` with an output ``(b, channel, h, w)``.
        classes: ``(b,)`` int64 to explain; None explains the predicted class.

    Returns:
        The trace; activation, gradient and logits in float32, or float64 where the network computes in it.

    Raises:
        ModelError: If the output is not logits ``(b, k)``, or the layer's output is not spatial.
        LayerNotReachedError: If the layer does not run, or no gradient gets from the logits back to it.

    Source:
        Selvaraju et al. 2017 (Grad-CAM) for what is explained: the logit, before softmax.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> trace(net, torch.rand(2, 1, 8, 8), target_layer=net[0]).gradient.shape
        torch.Size([2, 4, 6, 6])
    """
    for whole_graph in (False, True):
        # Second try: a network that runs part of itself under its own no_grad switches our late graph off again.
        leaf, logits, runs = _forward(model, images, target_layer, whole_graph=whole_graph)
        if logits.requires_grad:
            break
    explained = logits.detach().argmax(dim=1) if classes is None else check_classes(classes, logits)
    gradient = _gradient(logits, explained, leaf, target_layer)
    activation = leaf.detach()
    head = HeadRunner(model, target_layer, images, logits.detach(), activation, runs=runs)
    return Trace(
        images=images,
        logits=_at_least_float32(logits.detach()),
        classes=explained,
        activation=_at_least_float32(activation),
        gradient=_at_least_float32(gradient),
        model=model,
        target_layer=target_layer,
        runs=runs,
        head=head,
    )


def as_logits(output: object, *, batch_size: int) -> Tensor:
    """Check that what a network returned is one row of logits per image.

    Args:
        output: What the network returned.
        batch_size: Number of images it was given.

    Returns:
        ``(b, k)`` with k >= 2; a single logit z becomes ``(-z, z)``.

    Raises:
        ModelError: If it is anything else.

    Example:
        >>> as_logits(torch.tensor([[2.0]]), batch_size=1)
        tensor([[-2.,  2.]])
    """
    if not isinstance(output, Tensor):
        raise ModelError(
            f"The model must return logits, one tensor (b, classes); got {type(output).__name__}. "
            "Wrap it in a module whose forward returns the logits alone."
        )
    if output.dim() != 2 or output.shape[0] != batch_size or not output.is_floating_point():
        raise ModelError(
            f"The model must return float logits (b, classes) with b={batch_size}; got shape {tuple(output.shape)}, "
            f"{output.dtype}. Pool spatial outputs and flatten, or pass a module whose forward does."
        )
    return torch.cat([-output, output], dim=1) if output.shape[1] == 1 else output


def check_classes(classes: Tensor, logits: Tensor) -> Tensor:
    """Check the classes that are to be explained.

    Args:
        classes: ``(b,)`` integers.
        logits: ``(b, k)``.

    Returns:
        ``classes`` as int64 on the logits' device.

    Raises:
        ArgumentError: If shape, type or range is wrong.

    Example:
        >>> check_classes(torch.tensor([1]), torch.zeros(1, 3))
        tensor([1])
    """
    batch_size, num_classes = logits.shape
    classes = torch.as_tensor(classes)
    if classes.shape != (batch_size,) or classes.is_floating_point() or classes.is_complex():
        raise ArgumentError(
            f"`classes` must be ({batch_size},) integers, one class an image; "
            f"got shape {tuple(classes.shape)}, {classes.dtype}. Leave it None to explain the predicted class."
        )
    classes = classes.to(logits.device, torch.int64)
    if bool(((classes < 0) | (classes >= num_classes)).any()):
        raise ArgumentError(
            f"`classes` must lie in 0..{num_classes - 1}, as the model has {num_classes} logits; "
            f"got {classes.min().item()}..{classes.max().item()}."
        )
    return classes


def _forward(model: nn.Module, images: Tensor, layer: nn.Module, *, whole_graph: bool) -> tuple[Tensor, Tensor, int]:
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _args: object, output: object) -> Tensor:
        leaves.append(_spatial(output, layer).detach().clone().requires_grad_())
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
    if not leaves:
        raise LayerNotReachedError(
            f"The target layer {layer_name(model, layer)} did not run in the model's forward. "
            "Name a layer that every prediction passes through, or leave `target_layer` None."
        )
    return leaves[-1], as_logits(output, batch_size=len(images)), len(leaves)


def _spatial(output: object, layer: nn.Module) -> Tensor:
    if isinstance(output, Tensor) and output.dim() == 4 and output.is_floating_point():
        return output
    came = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise ModelError(
        f"The target layer ({type(layer).__name__}) must return a spatial tensor (b, c, h, w); got {came}. "
        "Name a layer before pooling and flattening with `target_layer=`."
    )


def _gradient(logits: Tensor, classes: Tensor, leaf: Tensor, layer: nn.Module) -> Tensor:
    try:
        score = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, leaf)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise LayerNotReachedError(
            f"No gradient gets from the logits back to the target layer ({type(layer).__name__}). Likely causes: "
            "`.detach()` or `torch.no_grad()` behind the layer, reentrant activation checkpointing around it, "
            "or a layer whose output the logits do not depend on. Name another one with `target_layer=`."
        ) from error
    return gradient


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """Return the dotted name of a layer, quoted, for messages.

    Args:
        model: The network.
        layer: A module of it.

    Returns:
        The name, or the module's class if it is not part of the network.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> layer_name(net, net[0])
        "'0'"
    """
    return next((repr(name) for name, module in model.named_modules() if module is layer), type(layer).__name__)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()
