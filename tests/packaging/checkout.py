"""A copy of the checkout to build or to edit in: neither may touch the one that people work in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*_cache")


def copy_of_checkout(target, *names):
    """Copy files and folders of the checkout, given by their names, into a new folder."""
    for name in names:
        source, copy = ROOT / name, Path(target) / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=_LEFT_OUT)
        else:
            shutil.copy2(source, copy)
    return Path(target)
