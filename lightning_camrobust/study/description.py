"""What determines the numbers, written as plain data: the same in every process, and other for other settings."""

import enum
import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_camrobust.members import member_family
from lightning_camrobust.study.model import fingerprint

# Enough hexadecimal digits that two of them never agree by chance.
_DIGITS = 16


def describe_member(member: Any) -> dict[str, Any]:
    """Write a member as plain data.

    Args:
        member: CAM method, perturbation, segmenter, similarity.

    Returns:
        ``name``, and its settings. Of arrays and networks there is a hash of what they hold, of functions the name, and
        the code where no module has them under that name.

    Example:
        >>> from lightning_camrobust.members import resolve_member
        >>> describe_member(resolve_member("segment", "grid"))
        {'name': 'grid', 'rows': 7, 'columns': 7}
    """
    described = _described(member, ())
    return described if isinstance(described, dict) else {"name": member_family(member), "function": described}


def describe_structure(network: nn.Module) -> str:
    """Identify what a network does with its weights, as far as that shows in its modules.

    Args:
        network: Any; its weights do not matter, see :func:`~lightning_camrobust.study.model.fingerprint` for those.

    Returns:
        A hash of the class, the representation and the plain attributes of every module: numbers, words, functions and
        lists of such. What the code of ``forward`` says does not show.

    Example:
        >>> describe_structure(nn.Conv2d(1, 2, 3)) == describe_structure(nn.Conv2d(1, 2, 3, stride=2))
        False
    """
    modules = [
        [name, _object(type(module), ()), {key: _plain(value, ()) for key, value in _plain_attributes(module)}]
        for name, module in network.named_modules(remove_duplicate=False)
    ]
    return _hash(json.dumps([modules, _stable(repr(network))], sort_keys=True))


def _plain_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    found = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "training"}
    return [(key, value) for key, value in found.items() if _is_plain(value)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    if isinstance(value, functools.partial):
        return _is_plain([value.func, *value.args, *value.keywords.values()])
    plain = (bool, int, float, complex, str, torch.dtype, enum.Enum, type, FunctionType, BuiltinFunctionType)
    return value is None or isinstance(value, plain)


def describe_setting(value: Any) -> Any:
    """Write any setting as plain data.

    Args:
        value: Any.

    Returns:
        What JSON can hold.

    Example:
        >>> describe_setting([0.5, {"sizes": (3, np.int64(5))}, torch.float64, math.inf, math.hypot])
        [0.5, {'sizes': [3, 5]}, 'float64', 'inf', 'math.hypot']
    """
    return _plain(value, ())


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # JSON has no such numbers, and NaN would differ from itself when a study is resumed.
        return value if math.isfinite(value) else repr(value)
    if id(value) in above:
        return "..."
    return _described(value, (*above, id(value)))


def _described(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each, above) for key, each in value.items()}
    if isinstance(value, Set):
        return sorted((_plain(each, above) for each in value), key=json.dumps)
    if isinstance(value, (list, tuple)):
        return [_plain(each, above) for each in value]
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value)
    if isinstance(value, nn.Module):
        return {"name": type(value).__name__, "layers": _hash(_stable(repr(value))), "weights": fingerprint(value)}
    if isinstance(value, functools.partial):
        return {
            "name": "partial",
            "function": _plain(value.func, above),
            "arguments": _plain(value.args, above),
            "keywords": _plain(value.keywords, above),
        }
    if isinstance(value, MethodType):
        return {"name": value.__qualname__, "of": _plain(value.__self__, above)}
    return _function(value, above) if isinstance(value, FunctionType) else _object(value, above)


def _array(value: "Tensor | np.ndarray[Any, Any]") -> Any:
    if isinstance(value, Tensor):
        # Bytes, and not numbers: NumPy has no bfloat16.
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    elif value.dtype == object:
        return _plain(value.tolist(), ())
    else:
        content = np.ascontiguousarray(value)
    return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": _hash(content.tobytes())}


def _function(function: FunctionType, above: tuple[int, ...]) -> Any:
    name = f"{function.__module__}.{function.__qualname__}"
    if _found_under_its_name(function):
        return name
    settings = {
        "values": [_plain(cell.cell_contents, above) for cell in function.__closure__ or ()],
        "defaults": _plain([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()], above),
    }
    return {"name": name, "code": _hash(_code(function.__code__)), **{key: own for key, own in settings.items() if own}}


def _found_under_its_name(function: FunctionType) -> bool:
    """Whether a module other than the script has it; a script and a notebook may say something else the next time."""
    found: Any = None if function.__module__ == "__main__" else sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _code(code: CodeType) -> str:
    constants = [_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _constant(value: object) -> str:
    # Sets have no order of their own.
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _object(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):
        return {"name": member_family(value), **{e.name: _plain(getattr(value, e.name), above) for e in fields(value)}}
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # it cannot be taken apart: a handle of the system, a lock
        return _stable(repr(value))
    if isinstance(reduced, str):
        return reduced
    # What pickle would keep: that is what tells two objects of one class apart.
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    settings = _state(state)
    parts = {
        "arguments": [each for each in arguments if each is not type(value)],
        "items": None if items is None else list(items),
        "pairs": None if pairs is None else list(pairs),
    }
    settings |= {key: part for key, part in parts.items() if part}
    return {"name": member_family(value), **{key: _plain(each, above) for key, each in settings.items()}}


def _state(state: Any) -> dict[str, Any]:
    parts: Iterable[Any] = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    found: dict[str, Any] = {}
    for part in parts:
        found |= part if isinstance(part, dict) else {} if part is None else {"state": part}
    return found


def _stable(text: str) -> str:
    """Leave out addresses in memory, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:_DIGITS]
