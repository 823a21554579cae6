"""The members that contract tests run on: every file of a stage folder, found by looking."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import lightning_camrobust


def member_modules(stage: str) -> list[ModuleType]:
    """Import every member file of a stage."""
    package = importlib.import_module(f"{lightning_camrobust.__name__}.{stage}")
    names = sorted(each.name for each in pkgutil.iter_modules(package.__path__) if not each.name.startswith("_"))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def specimens(stage: str) -> list[Any]:
    """Collect the ready-made instances of all member files of a stage."""
    return [each for module in member_modules(stage) for each in getattr(module, "EXAMPLES", ())]


def unfinished(stage: str) -> list[str]:
    """Name the member files that neither show examples nor adapt another library's classes by name."""
    return [
        module.__name__
        for module in member_modules(stage)
        if not getattr(module, "EXAMPLES", ()) and not hasattr(module, "from_name")
    ]
