"""The wheel and the source distribution: what is in them, what they say, and that the wheel works by itself."""

import hashlib
import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

from lightning_camrobust import __version__
from tests.packaging.checkout import ROOT, copy_of_checkout

STEM = f"lightning_camrobust-{__version__}"


def run(*command, cwd, timeout=300):
    done = subprocess.run([str(each) for each in command], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both distributions: the wheel is made from the source distribution, as `python -m build` does."""
    source = copy_of_checkout(
        tmp_path_factory.mktemp("source"),
        "lightning_camrobust", "tests/packaging", "examples", "pyproject.toml", "README.md", "LICENSE",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("dist")
    said = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".", cwd=source)
    return source, folder, "".join(said)


@pytest.fixture(scope="module")
def wheel(built):
    return built[1] / f"{STEM}-py3-none-any.whl"


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return Metadata.from_email(archive.read(f"{STEM}.dist-info/METADATA"), validate=True)


def wanted_files():
    """What a user needs of the checkout, by the kinds of file that the package is made of."""
    package = ROOT / "lightning_camrobust"
    kinds = ("*.py", "*.pyi", "py.typed", "templates/*")
    found = {path for kind in kinds for path in package.rglob(kind) if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_both_are_built_and_nothing_is_complained_of(built):
    _, folder, said = built
    assert {path.name for path in folder.iterdir()} == {f"{STEM}.tar.gz", f"{STEM}-py3-none-any.whl"}
    # Whether Python writes bytecode is the machine's affair.
    complaints = [line for line in said.splitlines() if "warning" in line.lower() and "byte-compiling" not in line]
    assert complaints == []


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in contents(wheel) if not name.startswith(f"{STEM}.dist-info/")}
    assert names == wanted_files()
    assert {"lightning_camrobust/py.typed", "lightning_camrobust/__init__.pyi"} <= names
    assert any("/templates/" in name for name in names)


def test_source_distribution_makes_the_very_wheel_of_the_checkout(built, wheel, tmp_path):
    source, folder, _ = built
    with tarfile.open(folder / f"{STEM}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted_files() | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= names
    assert [name for name in names if name.startswith(("tests", "examples", "benchmarks", "docs"))] == []
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ".", cwd=source)
    assert contents(tmp_path / wheel.name) == contents(wheel)


def test_metadata_is_valid_and_says_what_pyproject_says(wheel):
    said = metadata(wheel)
    assert (said.name, str(said.version)) == ("lightning-camrobust", __version__)
    assert said.license_expression == "Apache-2.0"
    assert str(said.requires_python) == ">=3.10"
    assert said.description_content_type == "text/markdown"
    assert said.description == (ROOT / "README.md").read_text(encoding="utf-8")
    needed = {each.name for each in said.requires_dist if each.marker is None}
    assert {"torch", "lightning", "torchmetrics", "grad-cam", "numpy"} <= needed
    # What one of us needs to work on the package must not reach a user.
    assert not needed & {"pytest", "ruff", "mypy", "mkdocs", "wandb", "pandas"}
    assert {"cli", "study", "wandb", "mlflow", "test"} <= set(said.provides_extra)


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """A new environment with the wheel in it; the libraries it needs are lent, so that nothing is downloaded."""
    environment = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel,
        cwd=environment,
    )  # fmt: skip
    (site,) = (environment / "lib").glob("python*/site-packages")
    # Behind the environment's own packages. Editable installs among the lent ones stay where they are.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_wheel_runs_where_nothing_else_is(clean_python, tmp_path):
    out, _ = run(clean_python, "-I", ROOT / "tests" / "packaging" / "tiny_run.py", cwd=tmp_path)
    seen = json.loads(out)
    assert Path(seen["file"]).is_relative_to(clean_python.parents[1])
    assert 0 <= seen["found"]["val_cam_robustness"] <= 1
    assert seen["found"]["val_cam_num_images"] == 16
    assert list(tmp_path.iterdir()) == []


def test_installed_command_speaks(clean_python, tmp_path):
    command = clean_python.with_name("camrobust")
    assert run(command, "--version", cwd=tmp_path)[0].split() == ["camrobust", __version__]
    assert "study" in run(command, "--help", cwd=tmp_path)[0]


def test_requirements_of_extras_can_be_read(wheel):
    markers = [str(each.marker) for each in metadata(wheel).requires_dist if each.marker]
    extras = {marker.split('"')[1] for marker in markers}
    assert extras == set(metadata(wheel).provides_extra)
    assert all(isinstance(each, Requirement) for each in metadata(wheel).requires_dist)
