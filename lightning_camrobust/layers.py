"""Names of layers, and what the user said about the target layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.target_layer import find_target_layer, find_target_layers

# One layer or several, each a module or its dotted name; None leaves the choice to us.
LayerChoice = nn.Module | str | Sequence["nn.Module | str"] | None


def resolve_target_layers(model: nn.Module, target_layer: LayerChoice, images: Tensor) -> list[nn.Module]:
    """Turn what the user said about one target layer, or several, into modules of the network.

    Args:
        model: The network.
        target_layer: A module of it, its dotted name, a list of such, or None.
        images: As in :func:`resolve_target_layer`.

    Returns:
        The modules, one at least; for None one in each branch of the network.

    Raises:
        ArgumentError: If the list is empty or names a layer twice, and as in :func:`resolve_target_layer`.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> resolve_target_layers(net, ["0", "1"], torch.rand(1, 1, 8, 8))[1]
        ReLU()
    """
    if target_layer is None or isinstance(target_layer, (str, nn.Module)) or not isinstance(target_layer, Sequence):
        if target_layer is None:
            return find_target_layers(model, images)
        return [resolve_target_layer(model, target_layer, images)]
    chosen = [resolve_target_layer(model, each, images) for each in target_layer if each is not None]
    if len(chosen) != len(target_layer) or not chosen or len(set(chosen)) < len(chosen):
        raise ArgumentError(
            f"`target_layer` must be one layer, or a list of different ones, got {target_layer!r}. "
            "Pass for example target_layer=['layer3', 'layer4'], or None for the last one."
        )
    return chosen


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
