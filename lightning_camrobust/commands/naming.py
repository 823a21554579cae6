"""Objects that are named on the command line or in YAML: imported and built when a command runs, never earlier."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names

_KEYS = {"class_path", "init_args"}


class Named:
    """A name, or an import path with the arguments that the object is made from.

    No dataclass: jsonargparse would ask for its fields one by one.

    Args:
        path: A member's name, a file or folder, or an import path.
        arguments: Of the class or function.
        is_object: Whether it was written as ``{class_path: ..., init_args: ...}``.

    Example:
        >>> Named("gradcam")
        Named('gradcam', {})
    """

    def __init__(self, path: str, arguments: Mapping[str, Any] | None = None, *, is_object: bool = False) -> None:
        self.path = path
        self.arguments = dict(arguments or {})
        self.is_object = is_object

    def __repr__(self) -> str:
        return f"Named({self.path!r}, {self.arguments!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def read_named(value: Any) -> Named:
    """Read what stands in YAML or behind a flag.

    Args:
        value: A string, or ``{class_path: ..., init_args: {...}}``.

    Returns:
        The name.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> read_named({"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}).arguments
        {'in_features': 2}
    """
    if isinstance(value, Named):
        return value
    # What opens with a bracket was meant as YAML or JSON and is broken.
    if isinstance(value, str) and value.strip() and not value.lstrip().startswith(("{", "[")):
        return Named(value)
    if isinstance(value, dict) and "class_path" in value and set(value) <= _KEYS:
        path, arguments = value["class_path"], value.get("init_args") or {}
        if isinstance(path, str) and isinstance(arguments, dict):
            return Named(path, arguments, is_object=True)
    raise ValueError(
        f"Expected a name, or {{class_path: package.module.Class, init_args: {{name: value}}}}, got {value!r}."
    )


def write_named(named: Named) -> Any:
    """Turn a name back into what stands in YAML.

    Example:
        >>> write_named(Named("gradcam"))
        'gradcam'
    """
    if not named.is_object:
        return named.path
    return {"class_path": named.path, "init_args": named.arguments}


def build(named: Named, *, role: str) -> Any:
    """Import a class or function and call it; a ready-made object, such as a module's variable, is taken as it is.

    Args:
        named: Import path and arguments. Among the arguments, further ``{class_path: ...}`` are built first.
        role: What it is for, to begin a message with, such as ``"model 'lite0', `network`"``.

    Returns:
        What the class or function returned.

    Raises:
        ArgumentError: If it cannot be imported, does not take these arguments, or raises.

    Example:
        >>> build(Named("fractions.Fraction", {"numerator": 1, "denominator": 2}), role="example")
        Fraction(1, 2)
    """
    found = find_object(named.path, role=role)
    if not callable(found) or (not inspect.isroutine(found) and not isinstance(found, type)):
        if named.arguments:
            raise ArgumentError(f"{role}: {named.path} is a ready-made {type(found).__name__}; drop its init_args.")
        return found
    _check_arguments(found, named, role=role)
    arguments = {key: _built(value, role=role) for key, value in named.arguments.items()}
    if is_dataclass(found):
        # YAML knows lists only, and the settings of a frozen dataclass are tuples.
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return found(**arguments)
    except ArgumentError:
        raise
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ArgumentError(
            f"{role}: {named.path}({shown}) raised {type(error).__name__}: {error}. "
            "Check its init_args; --debug shows where it happened."
        ) from error


def resolve_named(stage: str, named: Named, *, role: str) -> Any:
    """Turn what was said of a CAM method, perturbation, segmenter or similarity into a member.

    Args:
        stage: Folder of the members, such as ``"cams"``.
        named: A member's name, with or without arguments, or an import path.
        role: What it is for, to begin a message with.

    Returns:
        The name itself if it came without arguments, to be resolved with all others; else a ready-made member.

    Raises:
        ArgumentError: If the name is unknown, or the arguments do not fit.

    Example:
        >>> resolve_named("segment", Named("grid", {"rows": 3}, is_object=True), role="segmenter")
        Grid(rows=3, columns=7)
    """
    if not named.is_object and ("." not in named.path or ":" in named.path):
        return named.path
    if "." in named.path:
        return build(named, role=role)
    from lightning_camrobust.members import resolve_member

    kind = type(resolve_member(stage, named.path))
    return build(Named(f"{kind.__module__}.{kind.__qualname__}", named.arguments), role=role)


def find_object(path: str, *, role: str) -> Any:
    """Import what an import path names.

    Args:
        path: ``"package.module.Class"``, ``"package.module.Class.method"`` or ``"file.py:Class"``. Modules are looked
            for among the installed packages, then in the current folder.
        role: What it is for, to begin a message with.

    Returns:
        The object.

    Raises:
        ArgumentError: If it does not exist, or importing it raises.

    Example:
        >>> find_object("collections.OrderedDict.fromkeys", role="example").__name__
        'fromkeys'
    """
    if ".py:" in path:
        file, _, rest = path.rpartition(":")
        return _attribute(_module_of_file(Path(file), role=role), rest.split("."), path=path, role=role)
    if os.getcwd() not in sys.path and "" not in sys.path:
        # Last, so that a file here hides no installed package.
        sys.path.append(os.getcwd())
    parts = path.replace(":", ".").split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ArgumentError(
            f"{role}: {path!r} is no import path. Write package.module.Class, or file.py:Class for one in a script."
        )
    for length in range(len(parts) - 1, 0, -1):
        module = _import(".".join(parts[:length]), path=path, role=role)
        if module is not None:
            return _attribute(module, parts[length:], path=path, role=role)
    raise UnknownNameError(
        f"{role}: {path!r} cannot be imported, as there is no module {parts[0]!r}. Install its package, or run the "
        f"command in the folder that holds {parts[0]}.py (it is {os.getcwd()} now), or write file.py:{parts[-1]}."
    )


def _import(name: str, *, path: str, role: str) -> ModuleType | None:
    """Import a module; None if there is none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but misses one of its own is another matter.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise _failed(path, error, role=role) from error
    except Exception as error:
        raise _failed(path, error, role=role) from error


def _failed(path: str, error: Exception, *, role: str) -> ArgumentError:
    return ArgumentError(
        f"{role}: importing {path!r} raised {type(error).__name__}: {error}. "
        "Import it in Python first and mend what it says; --debug shows where it happened."
    )


def _module_of_file(file: Path, *, role: str) -> ModuleType:
    if not file.is_file():
        raise ArgumentError(f"{role}: there is no file {str(file)!r} (looked for in {os.getcwd()}).")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        # By its own name and from its own folder, so that other processes can import it as well.
        sys.path.append(folder)
    module = _import(file.stem, path=str(file), role=role)
    if module is None or Path(str(module.__file__)).resolve() != file.resolve():
        raise ArgumentError(
            f"{role}: {str(file)!r} has the name of another module, {getattr(module, '__file__', None)}. Rename it."
        )
    return module


def _attribute(module: ModuleType, names: list[str], *, path: str, role: str) -> Any:
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            known = [each for each in dir(found) if not each.startswith("_")]
            where = getattr(found, "__name__", str(found))
            raise UnknownNameError(
                f"{role}: {path!r} cannot be imported, as {where} has no {name!r}. "
                f"Nearest: {nearest_names(name, known)}."
            )
        found = getattr(found, name)
    return found


def _check_arguments(found: Any, named: Named, *, role: str) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # classes written in C need not have one
        return
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    unknown = [key for key in named.arguments if key not in signature.parameters]
    if unknown and not takes_all:
        raise UnknownNameError(
            f"{role}: {named.path} takes no init_args {unknown[0]!r}. "
            f"Nearest: {nearest_names(unknown[0], signature.parameters)}."
        )
    required = [key for key, each in signature.parameters.items() if _is_required(each)]
    missing = [key for key in required if key not in named.arguments]
    if missing:
        raise ArgumentError(
            f"{role}: {named.path} needs {', '.join(map(repr, missing))}. Give it as "
            f"{{class_path: {named.path}, init_args: {{{missing[0]}: ...}}}}."
        )


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )


def _built(value: Any, *, role: str) -> Any:
    if isinstance(value, Mapping):
        if "class_path" in value and set(value) <= _KEYS:
            return build(read_named(dict(value)), role=role)
        return {key: _built(each, role=role) for key, each in value.items()}
    if isinstance(value, list):
        return [_built(each, role=role) for each in value]
    return value
