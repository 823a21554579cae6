"""What the package imports is what the wheel declares, and in the extra that the importing file belongs to."""

import ast
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.checkout import ROOT
from tests.packaging.lending import declared, installed_here, required

PACKAGE = ROOT / "lightning_camrobust"
# Files that only whoever installed an extra comes to; all others have to do with what everybody gets.
EXTRAS = {
    "cli.py": "cli", "commands": "cli", "study": "study", "report/wandb.py": "wandb", "report/mlflow.py": "mlflow",
}  # fmt: skip
# Names that only a declared distribution gives meaning to, and so come with it.
BROUGHT_ALONG = {"fsspec": "lightning", "markupsafe": "jinja2", "docstring_parser": "jsonargparse[signatures]"}
# Not imported by the package, and why they are declared all the same.
NOT_IMPORTED = {"tensorboard": "Lightning's TensorBoardLogger needs it, and torch.utils.tensorboard"}


class Import(NamedTuple):
    name: str  # of the outermost package
    place: str
    may_fail: bool  # what follows when it is missing is written beside it


def imports_of(source, place="x.py"):
    """All imports in a source that are neither Python's own nor the package's; those within functions as well."""
    found = set()
    _collect(ast.parse(source), place, False, found)
    return {each for each in found if each.name not in {*sys.stdlib_module_names, "lightning_camrobust"}}


def _collect(node, place, may_fail, found):
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module]
    found.update(Import(name.partition(".")[0], place, may_fail) for name in names)
    for field, value in ast.iter_fields(node):
        caught = isinstance(node, ast.Try) and field == "body" and any(map(_catches_a_missing_one, node.handlers))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                _collect(child, place, may_fail or caught, found)


def _catches_a_missing_one(handler):
    named = {each.id for each in ast.walk(handler.type or handler) if isinstance(each, ast.Name)}
    return bool(named & {"ImportError", "ModuleNotFoundError"})


def extra_of(place):
    return next((extra for part, extra in EXTRAS.items() if place == part or place.startswith(f"{part}/")), "")


@functools.lru_cache(maxsize=1)
def imports():
    files = {path: path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    return {each for path, place in files.items() for each in imports_of(path.read_text(encoding="utf-8"), place)}


def names_declared(metadata, extra=""):
    return {canonicalize_name(each.name) for each in declared(metadata, extra)}


def undeclared(found, metadata, *, gone=""):
    """Imports that nothing declared accounts for, were ``gone`` not declared."""
    names = {extra: names_declared(metadata, extra) - {gone} for extra in {"", *EXTRAS.values()}}
    needed = [each for each in found if not each.may_fail]
    return sorted(f"{each.place}: {each.name}" for each in needed if not providers(each) & names[extra_of(each.place)])


def providers(found):
    """Names of the distributions that an import may come from."""
    if found.name in BROUGHT_ALONG:
        return {Requirement(BROUGHT_ALONG[found.name]).name}
    return {canonicalize_name(name) for name in _packages().get(found.name, [found.name])}


@functools.lru_cache(maxsize=1)
def _packages():
    """Distributions by the modules they install, read off their files: Python 3.10 does not do that by itself."""
    found = {}
    for each in installed_here():
        for file in each.files or ():
            name = file.parts[0].partition(".")[0]
            if file.suffix in (".py", ".so") and name.isidentifier():
                found.setdefault(name, set()).add(each.name)
    return found


def test_every_import_is_declared(built):
    assert len(imports()) > 100
    assert undeclared(imports(), built.metadata()) == []


def test_everything_declared_is_imported(built):
    imported = set().union(*map(providers, imports()))
    assert names_declared(built.metadata()) - imported == set(NOT_IMPORTED)


@pytest.mark.parametrize(("name", "source"), BROUGHT_ALONG.items())
def test_what_comes_along_is_required_there(name, source):
    (distribution,) = _packages()[name]
    assert canonicalize_name(distribution) in required([Requirement(source)])


def test_each_dependency_that_is_left_out_is_missed(built):
    for name in names_declared(built.metadata()) - set(NOT_IMPORTED):
        assert undeclared(imports(), built.metadata(), gone=name), name


def test_imports_are_found_wherever_they_stand():
    source = (
        "import os, a.b\nfrom . import c\nfrom d.e import f\nif x:\n    import g\ndef h():\n    from i import j\n"
        "try:\n    import k\nexcept ImportError:\n    import m\ntry:\n    import n\nexcept ValueError:\n    pass\n"
    )
    found = {each.name: each.may_fail for each in imports_of(source)}
    assert found == {"a": False, "d": False, "g": False, "i": False, "k": True, "m": False, "n": False}


def test_files_of_an_extra_exist():
    assert [place for place in EXTRAS if not Path(PACKAGE, place).exists()] == []
