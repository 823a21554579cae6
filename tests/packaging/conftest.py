import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.metadata import Metadata

from lightning_camrobust import __version__
from tests.packaging.checkout import ROOT, copy_of_checkout

STEM = f"lightning_camrobust-{__version__}"


class Distributions(NamedTuple):
    folder: Path
    wheel: Path
    source: Path
    said: str  # by the build

    def metadata(self):
        with zipfile.ZipFile(self.wheel) as archive:
            return Metadata.from_email(archive.read(f"{STEM}.dist-info/METADATA"), validate=True)

    def names_in_source(self):
        with tarfile.open(self.source) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


def run(*command, cwd, timeout=300):
    """Run a command, and fail with what it said if it fails."""
    done = subprocess.run([str(each) for each in command], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout, done.stderr


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """What a build takes of the checkout, and some of what it has to leave out."""
    return copy_of_checkout(
        tmp_path_factory.mktemp("source"), "lightning_camrobust", "examples", "tests/__init__.py", "tests/packaging",
        "tests/test_layers_of_imports.py", "pyproject.toml", "MANIFEST.in", "README.md", "docs/pypi.md", "LICENSE",
    )  # fmt: skip


@pytest.fixture(scope="session")
def built(checkout, tmp_path_factory):
    """Both distributions: those in the folder that `make wheel` names, else the wheel is made from the sdist."""
    if "DISTRIBUTIONS" in os.environ:
        folder, said = ROOT / os.environ["DISTRIBUTIONS"], ""
    else:
        folder = tmp_path_factory.mktemp("dist")
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, "."]
        said = "".join(run(*build, cwd=checkout))
    return Distributions(folder, folder / f"{STEM}-py3-none-any.whl", folder / f"{STEM}.tar.gz", said)
