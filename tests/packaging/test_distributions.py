"""The wheel and the source distribution: what is in them, what they say, and that both install and work.

What they depend on is not downloaded anew: `lending.py` links it into the new environments, as far as it is declared.
"""

import hashlib
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lightning_camrobust import __version__
from tests.docs.blocks import read_blocks
from tests.docs.links import read_markdown
from tests.packaging.checkout import ROOT
from tests.packaging.conftest import STEM, run
from tests.packaging.lending import declared, lend, required


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def wanted_files():
    """What a user needs of the checkout, by the kinds of file that the package is made of."""
    package = ROOT / "lightning_camrobust"
    kinds = ("*.py", "*.pyi", "py.typed", "templates/*")
    found = {path for kind in kinds for path in package.rglob(kind) if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_both_are_there_and_nothing_else(built):
    assert {path.name for path in built.folder.iterdir()} == {built.wheel.name, built.source.name}


@pytest.mark.skipif("DISTRIBUTIONS" in os.environ, reason="built elsewhere")
def test_the_build_complains_of_nothing(built):
    # Whether Python writes bytecode is the machine's affair.
    said = [line for line in built.said.splitlines() if "byte-compiling" not in line]
    assert [line for line in said if "warning" in line.lower()] == []


def test_wheel_holds_the_package_and_nothing_else(built):
    names = {name for name in contents(built.wheel) if not name.startswith(f"{STEM}.dist-info/")}
    assert names == wanted_files()
    assert {"lightning_camrobust/py.typed", "lightning_camrobust/__init__.pyi"} <= names
    assert any("/templates/" in name for name in names)


def test_source_distribution_holds_what_a_build_needs(built):
    names = built.names_in_source()
    assert wanted_files() | {"pyproject.toml", "docs/pypi.md", "LICENSE", "PKG-INFO"} <= names
    assert [name for name in names if re.match(r"(tests|examples|benchmarks|docs)/.", name)] == ["docs/pypi.md"]


def test_source_distribution_makes_the_very_wheel_of_the_checkout(built, checkout, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ".", cwd=checkout)
    assert contents(tmp_path / built.wheel.name) == contents(built.wheel)


def test_metadata_is_valid_and_says_what_pyproject_says(built):
    said = built.metadata()
    assert (said.name, str(said.version)) == ("lightning-camrobust", __version__)
    assert said.license_expression == "Apache-2.0"
    assert str(said.requires_python) == ">=3.10"
    assert said.description_content_type == "text/markdown"
    assert said.description == (ROOT / "docs/pypi.md").read_text(encoding="utf-8")
    needed = {each.name for each in said.requires_dist if each.marker is None}
    # What one of us needs to work on the package must not reach a user.
    assert not needed & {"pytest", "ruff", "mypy", "mkdocs", "wandb", "pandas"}
    assert {"cli", "study", "wandb", "mlflow", "test"} <= set(said.provides_extra)


def test_the_page_for_pypi_stands_alone():
    """PyPI shows it without the files beside it, and may show it before the repository has an address."""
    links, _ = read_markdown(ROOT / "docs/pypi.md")
    assert [link.address for link in links if not link.is_outside] == []
    assert any(block.language == "python" for block in read_blocks("docs/pypi.md"))
    assert "<" not in (ROOT / "docs/pypi.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=[("wheel", ""), ("source", "study")], ids=["wheel", "source with study"])
def installed(request, built, tmp_path_factory):
    """A Python in a new environment with one of both distributions, and with the libraries which that declares."""
    which, extra = request.param
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    (site,) = (environment / "lib").glob("python*/site-packages")
    # setuptools builds the source distribution, in there.
    asked = [*declared(built.metadata(), extra), *([Requirement("setuptools")] * (which == "source"))]
    lend(required(asked), site)
    python = environment / "bin" / "python"
    distribution = f"{getattr(built, which)}[{extra}]" if extra else getattr(built, which)
    # Without an index pip refuses whatever is declared and was not lent.
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-build-isolation",
        "--no-compile", distribution, cwd=environment,
    )  # fmt: skip
    return python, extra


def test_installed_package_trains_with_what_it_declares(installed, tmp_path):
    python, _ = installed
    out, _ = run(python, "-I", ROOT / "tests" / "packaging" / "tiny_run.py", cwd=tmp_path)
    seen = json.loads(out)
    assert Path(seen["file"]).is_relative_to(python.parents[1])
    assert 0 <= seen["found"]["val_cam_robustness"] <= 1
    assert seen["found"]["val_cam_num_images"] == 16
    (events,) = tmp_path.rglob("events.out.tfevents*")
    assert b"PNG" in events.read_bytes()


def test_nothing_undeclared_is_lent(installed):
    python, extra = installed
    look = "import importlib.util as u, json; print(json.dumps([n for n in {} if u.find_spec(n) is not None]))"
    names = ["pytest", "ruff", "mkdocs", "pandas", "wandb", "timm", "statsmodels", "hydra", "jsonargparse", "pyarrow"]
    found = json.loads(run(python, "-I", "-c", look.format(names), cwd=python.parent)[0])
    assert found == (["jsonargparse", "pyarrow"] if extra else [])


def test_installed_command_speaks(installed, tmp_path):
    python, extra = installed
    command = python.with_name("camrobust")
    if not extra:
        with pytest.raises(AssertionError, match=r"Run: pip install 'lightning-camrobust\[study\]'"):
            run(command, "--version", cwd=tmp_path)
        return
    assert run(command, "--version", cwd=tmp_path)[0].split() == ["camrobust", __version__]
    assert "study" in run(command, "--help", cwd=tmp_path)[0]


def test_requirements_of_extras_can_be_read(built):
    markers = [str(each.marker) for each in built.metadata().requires_dist if each.marker]
    extras = {marker.split('"')[1] for marker in markers}
    assert extras == set(built.metadata().provides_extra)
    assert all(isinstance(each, Requirement) for each in built.metadata().requires_dist)
