"""Find the target layer: the module whose output a CAM is drawn on."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError, NoSpatialLayerError, UnknownNameError, nearest_names
from lightning_camrobust.logits import as_logits


@dataclass(frozen=True)
class _Call:
    name: str
    module: nn.Module
    output: Tensor
    version: int


def resolve_target_layer(model: nn.Module, target_layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """Turn what the user said about the target layer into a module of the network.

    Args:
        model: The network.
        target_layer: A module of it, its dotted name, or None for the last layer with a spatial output that feeds the
            prediction.
        images: A batch ``(b, c, H, W)``; its first image is used when the layer has to be found.

    Returns:
        The module.

    Raises:
        UnknownNameError: If no module has that name.
        ArgumentError: If the module is not part of ``model``, or is neither module, name nor None.
        NoSpatialLayerError: If None was given and no layer qualifies.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> resolve_target_layer(net, None, torch.rand(1, 1, 8, 8))
        ReLU()
    """
    if target_layer is None:
        return find_target_layer(model, images)
    if isinstance(target_layer, str):
        return layer_by_name(model, target_layer)
    if not isinstance(target_layer, nn.Module):
        raise ArgumentError(
            f"`target_layer` must be a module, its dotted name or None, got {target_layer!r}. "
            "Pass for example target_layer='features.7'."
        )
    if all(module is not target_layer for module in model.modules()):
        raise ArgumentError(
            f"`target_layer` {_short(target_layer)} is not part of {type(model).__name__}. "
            "Pass a module of this very network (a deep copy does not count), or its dotted name."
        )
    return target_layer


def layer_by_name(model: nn.Module, name: str, *, argument: str = "target_layer") -> nn.Module:
    """Look a layer up by its dotted name.

    Args:
        model: The network.
        name: For example ``"layer4.1"``.
        argument: What the name was passed as, for the message.

    Returns:
        The module.

    Raises:
        UnknownNameError: If there is none; the nearest names are shown.

    Example:
        >>> layer_by_name(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    names = [each for each in modules if each]
    raise UnknownNameError(
        f"`{argument}`: {type(model).__name__} has no layer named {name!r}. Nearest: {nearest_names(name, names)}. "
        "List all with: [name for name, _ in model.named_modules()]."
    )


def find_target_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """Find the last layer with a spatial output (more than one cell) that feeds the prediction.

    One image goes through the network once. Layers whose output the logits do not depend on, such as the decoder of
    an auxiliary task, are passed over. If several modules hand on the same tensor (a block and its last ReLU), the
    innermost one that runs only once is taken, so that its single output is the explained one.

    Args:
        model: The network, in eval mode.
        images: A batch ``(b, c, H, W)`` float; only the first image is used.

    Returns:
        The module.

    Raises:
        NoSpatialLayerError: If there is none.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> find_target_layer(net, torch.rand(1, 3, 8, 8)) is net[0]
        True
    """
    with torch.enable_grad():
        calls, output = _record_spatial_calls(model, images[:1].detach().clone().requires_grad_())
        chosen = _last_that_feeds(calls, as_logits(output, batch_size=1))
    if chosen is None:
        raise NoSpatialLayerError(
            f"{type(model).__name__}: no layer with a spatial output (b, c, h, w), h*w > 1, feeds the prediction, so "
            "there is nothing to draw a class activation map on. Use a network with convolutions, or name a layer with "
            "`target_layer=` if its output is spatial."
        )
    return chosen


def count_runs(model: nn.Module, layer: nn.Module, images: Tensor) -> int:
    """Count how often a layer runs in one forward; a shared activation function runs often.

    Args:
        model: The network, in eval mode.
        layer: A module of it.
        images: A batch ``(b, c, H, W)`` float; only the first image is used.

    Returns:
        The count, 0 if the layer does not run.

    Example:
        >>> relu = nn.ReLU()
        >>> count_runs(nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu), relu, torch.rand(1, 1, 8, 8))
        2
    """
    runs = 0

    def count(_module: nn.Module, _args: object, _output: object) -> None:
        nonlocal runs
        runs += 1

    handle = layer.register_forward_hook(count)
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        handle.remove()
    return runs


def _record_spatial_calls(model: nn.Module, image: Tensor) -> tuple[list[_Call], object]:
    calls: list[_Call] = []

    def listen(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _args: object, output: object) -> Tensor | None:
            if not isinstance(output, Tensor) or output.dim() != image.dim() or not output.is_floating_point():
                return None
            if output.shape[2:].numel() <= 1:
                return None
            if output.requires_grad:
                calls.append(_Call(name, module, output, output._version))
                return None
            # Computed under the user's own no_grad or detached: start a graph here, or nothing would seem to feed.
            leaf = output.detach().clone().requires_grad_()
            calls.append(_Call(name, module, leaf, leaf._version))
            with torch.enable_grad():
                return leaf.clone()

        return module.register_forward_hook(hook)

    handles = [listen(name, module) for name, module in model.named_modules() if name]
    try:
        output = model(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls, output


def _last_that_feeds(calls: list[_Call], logits: Tensor) -> nn.Module | None:
    if not logits.requires_grad or not calls:
        return None
    gradients = torch.autograd.grad(logits.sum(), [call.output for call in calls], allow_unused=True)
    feeding = [call for call, gradient in zip(calls, gradients, strict=True) if gradient is not None]
    if not feeding:
        return None
    last = feeding[-1]
    # An in-place ReLU hands on the very tensor it was given; the version tells the two states of it apart.
    same_tensor = [call for call in feeding if call.output is last.output and call.version == last.version]
    times_run = Counter(id(call.module) for call in calls)
    once = [call for call in same_tensor if times_run[id(call.module)] == 1]
    return (once or same_tensor)[0].module


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """Return the dotted name of a layer.

    Args:
        model: The network.
        layer: A module of it.

    Returns:
        The name, or the module's class if it is not part of the network.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> layer_name(net, net[0])
        '0'
    """
    return next((name for name, module in model.named_modules() if module is layer), type(layer).__name__)


def _short(module: nn.Module) -> str:
    text = repr(module).splitlines()[0]
    return text if len(text) <= 60 else f"{text[:57]}..."
