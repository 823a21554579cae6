"""Lend a new environment some libraries of this one: what a distribution declares, what that requires, no other."""

from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_here():
    """The distributions of this environment, each once; importing setuptools adds copies that it brings along."""
    return [each for each in distributions() if "_vendor" not in Path(each.locate_file("")).parts]


def required(requirements):
    """Names of all distributions that requirements lead to, as they are installed here."""
    found, waiting = set(), list(requirements)
    while waiting:
        each = waiting.pop()
        for asked in {(canonicalize_name(each.name), extra) for extra in ("", *each.extras)} - found:
            found.add(asked)
            waiting += _requirements_of(*asked)
    return {name for name, _ in found}


def _requirements_of(name, extra):
    try:
        declared = [Requirement(each) for each in requires(name) or ()]
    except PackageNotFoundError:
        return []  # pip tells what is missing, when it installs
    return _counting(declared, extra)


def _counting(requirements, extra):
    return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": extra})]


def declared(metadata, extra=""):
    """What a distribution asks of others on this machine, for everybody and for an extra, its own extras resolved.

    By what it says itself: the one of the same name that is installed here may say something else.
    """
    chosen = _counting(metadata.requires_dist, extra)
    own = [name for each in chosen if each.name == metadata.name for name in each.extras if name != extra]
    others = [each for each in chosen if each.name != metadata.name]
    return others + [each for name in own for each in declared(metadata, name)]


def lend(names, site):
    """Link the files of distributions into the packages of an environment, and nothing of others beside them."""
    lent, others = {}, set()
    for each in installed_here():
        files = [Path(file) for file in each.files or () if file.parts[0] != ".."]
        if canonicalize_name(each.name) in names:
            lent |= {file: Path(each.locate_file("")) for file in files}
        else:
            others.update(files)
    apart = {Path()}.union(*(file.parents for file in others))
    for path, root in {_outermost(file, apart): root for file, root in lent.items()}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).symlink_to(root / path)


def _outermost(file, apart):
    """The largest folder around a file in which nothing of another distribution lies; mostly its package."""
    return next((folder for folder in reversed(file.parents) if folder not in apart), file)
