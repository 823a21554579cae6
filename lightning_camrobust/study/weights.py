"""Load weights into networks, wholly or not at all."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from lightning_camrobust.errors import ModelError
from lightning_camrobust.study.checkpoints import list_names

# Written into names by torch.compile, at any depth.
_COMPILED = "_orig_mod."


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, file: str, prefix: str | None = None) -> None:
    """Load a state dict into a network, in place; every name must fit.

    A prefix that all names carry (``model.``, ``module.``, ...) and marks of ``torch.compile`` are taken off.

    Args:
        network: Receives the weights.
        weights: As ``read_weights`` gave them.
        file: Where they come from, for messages.
        prefix: Take only the names that begin with this, and take it off; None takes all.

    Raises:
        ModelError: If names are missing or left over, shapes differ, or values are not finite. The network is then as
            it was.

    Example:
        >>> import torch
        >>> network = nn.Linear(1, 1)
        >>> found = {"model.weight": torch.ones(1, 1), "model.bias": torch.zeros(1)}
        >>> load_weights(network, found, file="last.ckpt")
        >>> network.weight.item()
        1.0
    """
    own, found = _match(network, weights, prefix)
    _check_names(own, found, file, type(network).__name__)
    _check_shapes(own, found, file, type(network).__name__)
    broken = [name for name, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelError(
            f"StudyModel: {file!r} holds NaN or infinity in {list_names(broken)}. Training diverged, or the file is "
            "damaged; take an earlier checkpoint."
        )
    network.load_state_dict(found, strict=False)


def names_fit(network: nn.Module, weights: Mapping[str, Tensor], *, prefix: str | None = None) -> bool:
    """Say whether all names of a state dict belong to a network, and none of its own is missing.

    Args:
        network: The network.
        weights: As ``read_weights`` gave them.
        prefix: As in :func:`load_weights`.

    Returns:
        Whether :func:`load_weights` would accept the names; shapes are not looked at.

    Example:
        >>> import torch
        >>> names_fit(nn.Linear(1, 1), {"bias": torch.zeros(1)})
        False
    """
    own, found = _match(network, weights, prefix)
    return _needed(own) == _needed(found)


def _match(
    network: nn.Module, weights: Mapping[str, Tensor], prefix: str | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the network's own state dict, and what was found under the same names as far as they agree."""
    own = network.state_dict()
    plain = {name.replace(_COMPILED, ""): name for name in own}
    fitted = _fit_names(plain, {name.replace(_COMPILED, ""): value for name, value in weights.items()}, prefix)
    return own, {plain.get(name, name): value for name, value in fitted.items()}


def _fit_names(own: Iterable[str], weights: Mapping[str, Tensor], prefix: str | None) -> dict[str, Tensor]:
    """Take the prefix off: the given one, or else the one that leaves the fewest names unmatched, if all carry it."""
    if prefix is not None:
        return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    names = _needed(own)
    if not names or names <= set(weights):
        return dict(weights)
    first = min(names)
    prefixes = [name[: -len(first)] for name in weights if name.endswith(f".{first}")]
    for candidate in prefixes:
        if all(name.startswith(candidate) for name in weights):
            return {name[len(candidate) :]: value for name, value in weights.items()}
    return dict(weights)


def _check_names(own: Mapping[str, Tensor], found: Mapping[str, Tensor], file: str, network: str) -> None:
    missing, unexpected = sorted(_needed(own) - set(found)), sorted(set(found) - set(own))
    if not missing and not unexpected:
        return
    complaints = [
        f"{len(names)} {what} ({list_names(names)})"
        for what, names in (("missing in the file", missing), ("not in the network", unexpected))
        if names
    ]
    raise ModelError(
        f"StudyModel: the weights in {file!r} do not fit {network}: {', and '.join(complaints)}. "
        f"Nothing is loaded in part. {_advice(own, found, missing)}"
    )


def _advice(own: Iterable[str], found: Mapping[str, Tensor], missing: list[str]) -> str:
    if not missing:
        return "Build the network that was trained, or save only its own part of the state dict."
    first = min(_needed(own), default="")
    carried = [name[: -len(first)] for name in found if first and name.endswith(f".{first}")]
    whole = [each for each in carried if _needed(own) <= {name[len(each) :] for name in found if name.startswith(each)}]
    if whole:
        choices = " or ".join(f"prefix={each!r}" for each in whole[:4])
        return f"If you want only the part of the file that fits, pass {choices}."
    return "Build the network that was trained (same architecture, same number of classes, same attribute names)."


def _check_shapes(own: Mapping[str, Tensor], found: Mapping[str, Tensor], file: str, network: str) -> None:
    wrong = [name for name, value in found.items() if name in own and value.shape != own[name].shape]
    if not wrong:
        return
    theirs, ours = found[wrong[0]].shape, own[wrong[0]].shape
    one_layer = len({name.rpartition(".")[0] for name in wrong}) == 1
    if one_layer and len(theirs) > 0 and len(ours) > 0 and theirs[1:] == ours[1:]:
        raise ModelError(
            f"StudyModel: class count mismatch: the checkpoint {file!r} has {theirs[0]} classes, the network "
            f"{ours[0]} ({list_names(wrong)}). Build the network with {theirs[0]} classes."
        )
    raise ModelError(
        f"StudyModel: {len(wrong)} shapes in {file!r} do not fit {network}: {wrong[0]} is "
        f"{tuple(theirs)} in the file and {tuple(ours)} in the network. Build the architecture that was trained."
    )


def _needed(names: Iterable[str]) -> set[str]:
    # Old checkpoints lack these counters, which nothing reads in eval mode.
    return {name for name in names if not name.endswith("num_batches_tracked")}
