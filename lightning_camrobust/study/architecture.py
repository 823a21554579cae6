"""Make a network of what a user gave, and name its layers, so that a copy of it can be used."""

import copy
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from lightning_camrobust.batches import find_classifier
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.layers import LayerChoice, layer_name

NetworkChoice = nn.Module | Callable[[], nn.Module]


def new_network(network: NetworkChoice) -> nn.Module:
    """Build or copy a network.

    Args:
        network: An instance, which is copied, or a function without arguments.

    Returns:
        A network that may be changed.

    Raises:
        ModelError: If it cannot be copied, or the function fails or returns something else.

    Example:
        >>> new_network(nn.ReLU)
        ReLU()
    """
    if isinstance(network, nn.Module):
        try:
            return copy.deepcopy(network)
        except Exception as error:
            raise ModelError(
                f"StudyModel: {type(network).__name__} cannot be copied ({type(error).__name__}: {error}), and the "
                "network you hold must not be changed. Pass a function that builds it: network=lambda: build()."
            ) from error
    try:
        built = network()
    except Exception as error:
        raise ModelError(
            f"StudyModel: the function given as `network` failed: {type(error).__name__}: {error}. It is called "
            "without arguments; bind what it needs with functools.partial."
        ) from error
    if not isinstance(built, nn.Module):
        raise ModelError(
            f"StudyModel: the function given as `network` must return an nn.Module, got {type(built).__name__}."
        )
    return built


def name_layers(
    layers: Sequence[LayerChoice], network: NetworkChoice, classifier: str | None
) -> tuple[LayerChoice, ...]:
    """Turn layers given as modules into their names.

    Args:
        layers: Names, modules of ``network``, lists of such, or None.
        network: The network, or a function that builds it.
        classifier: Name of the part that names are relative to; None for the whole.

    Returns:
        The same, with names only.

    Raises:
        ArgumentError: If it is no list, is empty, or holds something else.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> name_layers([network[1], None], network, None)
        ('1', None)
    """
    if isinstance(layers, (str, nn.Module)) or not isinstance(layers, Sequence) or not layers:
        raise ArgumentError(
            f"StudyModel: `target_layers` must be a list with one entry or more, got {layers!r:.100}. Pass for example "
            "target_layers=['layer4'], or [None] for the last spatial layer."
        )
    owner = find_classifier(network, classifier) if isinstance(network, nn.Module) else None
    return tuple(_name_layer(layer, owner) for layer in layers)


def flat_names(layers: Iterable[LayerChoice]) -> list[str]:
    """List all names in what :func:`name_layers` returned.

    Args:
        layers: Names, lists of names, or None.

    Returns:
        The names.

    Example:
        >>> flat_names(["layer4", ["layer2", "layer3"], None])
        ['layer4', 'layer2', 'layer3']
    """
    found: list[str] = []
    for layer in layers:
        names = [] if layer is None else [layer] if isinstance(layer, (str, nn.Module)) else list(layer)
        found += [str(name) for name in names]
    return found


def _name_layer(layer: LayerChoice, owner: nn.Module | None) -> LayerChoice:
    if layer is None or isinstance(layer, str):
        return layer
    # nn.Sequential and nn.ModuleList are no Sequence.
    if isinstance(layer, Sequence) and layer and None not in layer:
        return [str(_name_layer(each, owner)) for each in layer]
    if owner is None or not isinstance(layer, nn.Module) or all(each is not layer for each in owner.modules()):
        raise ArgumentError(
            "StudyModel: an entry of `target_layers` must be the dotted name of a layer, a module of `network` itself, "
            f"a list of such, or None; got {layer!r:.100}. With a function as `network` only names can be used."
        )
    return layer_name(owner, layer)
