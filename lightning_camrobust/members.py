"""Find a member (CAM method, perturbation, segmenter, similarity, baseline) by the name of its file.

There is no registry: the file is the entry. Each member file ends with ``EXAMPLES``, ready-made instances, and the
first one is what the bare name stands for.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names

_STAGES = {
    "cams": "CAM method",
    "perturb": "perturbation",
    "segment": "segmenter",
    "compare": "similarity",
    "baseline": "baseline",
}


def member_names(stage: str) -> list[str]:
    """List the names of all members of a stage.

    Args:
        stage: ``"cams"``, ``"perturb"``, ``"segment"``, ``"compare"`` or ``"baseline"``.

    Returns:
        Names in alphabetical order.

    Example:
        >>> member_names("segment")
        ['grid', 'quickshift', 'quickshift_skimage', 'slic']
    """
    return sorted(name for name in _file_names(stage) if hasattr(_module(stage, name), "EXAMPLES"))


def resolve_member(stage: str, member: Any) -> Any:
    """Turn a name into a member; a member that is given ready-made passes through.

    Args:
        stage: ``"cams"``, ``"perturb"``, ``"segment"``, ``"compare"`` or ``"baseline"``.
        member: The name of a member file, the dotted path of a class (called without arguments), function or instance,
            as in a configuration file, or anything callable.

    Returns:
        The member.

    Raises:
        UnknownNameError: If no file of that name lies in the stage's folder, or nothing lies at the dotted path.
        ArgumentError: If it is neither a name nor callable.

    Example:
        >>> resolve_member("segment", "grid") == resolve_member("segment", "lightning_camrobust.segment.grid.Grid")
        True
    """
    kind = _STAGES[stage]
    if not isinstance(member, str):
        if not callable(member) or isinstance(member, type):
            # Hydra hands over its own containers, which wrap even a ready-made dataclass among their entries.
            wrapped = type(member).__module__.startswith("omegaconf.")
            remedy = " From Hydra: add `_convert_: all` beside `_target_`." if wrapped else ""
            raise ArgumentError(
                f"{kind}: expected a name or a ready-made instance, got {member!r}. "
                f"Pass one of {', '.join(map(repr, member_names(stage)))}, or an instance.{remedy}"
            )
        return member
    if ":" in member:
        return _resolve_adapter(stage, member)
    if "." in member:
        return _resolve_path(stage, member)
    if member not in member_names(stage):
        raise UnknownNameError(
            f"{kind}: no {kind} is called {member!r}. Nearest: {nearest_names(member, member_names(stage))}. "
            f"A new one is one new file in lightning_camrobust/{stage}/, or an instance passed directly."
        )
    return _module(stage, member).EXAMPLES[0]


def label_members(members: Iterable[Any]) -> list[str]:
    """Name members for log keys and reports: the file's name, numbered from the second of a kind on.

    Args:
        members: Ready-made members.

    Returns:
        One label a member, all different.

    Example:
        >>> grid = resolve_member("segment", "grid")
        >>> label_members([grid, grid])
        ['grid', 'grid_2']
    """
    labels: list[str] = []
    for member in members:
        label = stem = member_family(member)
        number = 1
        while label in labels:
            number += 1
            label = f"{stem}_{number}"
        labels.append(label)
    return labels


def member_family(member: Any) -> str:
    """Name a member: by its own ``name``, else a function's name, else its file, else its class.

    Args:
        member: A ready-made member.

    Returns:
        The name; members of one file with other settings share it.

    Example:
        >>> member_family(resolve_member("segment", "grid"))
        'grid'
    """
    own = getattr(member, "name", None)
    if isinstance(own, str) and own:
        return own
    if hasattr(member, "__name__"):
        return str(member.__name__)
    module = type(member).__module__
    return module.rsplit(".", 1)[-1] if module.startswith(__package__ + ".") else type(member).__name__


def _resolve_adapter(stage: str, member: str) -> Any:
    adapter, _, detail = member.partition(":")
    build = getattr(_module(stage, adapter), "from_name", None) if adapter in _file_names(stage) else None
    if build is None:
        raise UnknownNameError(
            f"{_STAGES[stage]}: {member!r} names no known library before the colon. "
            f"Nearest: {nearest_names(adapter, _file_names(stage))}."
        )
    return build(detail)


def _resolve_path(stage: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(
            f"{_STAGES[stage]}: nothing can be imported as {path!r}: {error}. Give the dotted path of a class, "
            f"function or instance, or one of {', '.join(map(repr, member_names(stage)))}."
        ) from error
    return resolve_member(stage, found() if isinstance(found, type) else found)


def _file_names(stage: str) -> list[str]:
    package = importlib.import_module(f"{__package__}.{stage}")
    return [each.name for each in pkgutil.iter_modules(package.__path__) if not each.name.startswith("_")]


def _module(stage: str, name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{stage}.{name}")
