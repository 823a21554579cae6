"""What a user imports from `lightning_camrobust.study`, and what that loads."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_camrobust.study as interface

NAMES = {
    "CritiqueSettings", "Outcomes", "StudyGrid", "StudyModel", "analyse", "compare_studies", "load_manifest",
    "load_outcomes", "open_images", "run_study", "write_critique", "write_gallery", "write_report",
}  # fmt: skip


def test_these_names_are_promised():
    assert set(interface.__all__) == NAMES
    stub = ast.parse(Path(interface.__file__).with_suffix(".pyi").read_text())
    assert {each.name for node in stub.body for each in node.names} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there_and_explained(name):
    found = getattr(interface, name)
    assert found.__name__ == name
    assert found.__module__.startswith("lightning_camrobust.study.")
    assert "Args:" in found.__doc__ or "Attributes:" in found.__doc__
    assert inspect.signature(found).return_annotation is not inspect.Signature.empty or isinstance(found, type)


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys\nimport lightning_camrobust.study\n"
        "print(sorted({'torch', 'lightning', 'numpy', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
