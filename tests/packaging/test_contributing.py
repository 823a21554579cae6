"""CONTRIBUTING.md promises a member in ten minutes: its files are put into a copy of the package and tested there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.checkout import ROOT, copy_of_checkout

STAGES = {
    "cams": "cam_methods", "perturb": "perturbations", "compare": "similarities", "segment": "segmenters",
    "baseline": "baselines",
}  # fmt: skip
_FILE = re.compile(
    r"^`(?P<path>lightning_camrobust/\S+\.py)`:\n\n```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
# A logger that a user wrote, and what reaches it; the names are looked up as a user's settings would be.
_USE = """
import json, sys
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
import lightning_camrobust
from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.members import resolve_member
from tests.networks import DigitModule, digit_loader

saved = {}

class YourLogger(DummyLogger):
    def log_metrics(self, metrics, step=None):
        pass

    def save_png(self, name, content):
        saved[name] = content[:4].decode("latin-1")

names = json.loads(sys.argv[1])
watch = CAMRobustnessCallback(
    methods=[names["cams"]], perturbations=[names["perturb"]], severities=[5], segmenter=names["segment"],
    similarity=names["compare"], num_samples=8, log_images=2,
)
trainer = Trainer(
    logger=YourLogger(), callbacks=[watch], accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
)
trainer.validate(DigitModule(), digit_loader(0, 16), verbose=False)
shown = {stage: type(resolve_member(stage, name)).__name__ for stage, name in names.items()}
print(json.dumps([lightning_camrobust.__file__, shown, saved, sorted(watch.report["pooled"][0].items())]))
"""


def example_files():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return {found["path"]: found["code"] for found in _FILE.finditer(text)}


def members():
    """Module name and class of each member file, by stage."""
    found = {}
    for path, code in example_files().items():
        if (stage := Path(path).parent.name) in STAGES:
            found[stage] = Path(path).stem, re.search(r"^class (\w+)", code, re.MULTILINE)[1]
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package and the tests that a new member meets, with the files of CONTRIBUTING.md."""
    folder = copy_of_checkout(
        tmp_path_factory.mktemp("contributed"),
        "lightning_camrobust", "pyproject.toml", "README.md", "tests/__init__.py", "tests/conftest.py",
        "tests/networks.py", "tests/contracts", "tests/test_layers_of_imports.py",
    )  # fmt: skip
    for path, code in example_files().items():
        assert not (folder / path).exists(), f"{path} is there already: CONTRIBUTING.md needs another example"
        (folder / path).write_text(code, encoding="utf-8")
    return folder


def run(tree, *command):
    # With the current folder in front, the copy hides the installed package.
    done = subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_there_is_a_file_for_every_kind():
    assert set(members()) == set(STAGES)
    assert any(path.startswith("lightning_camrobust/report/") for path in example_files())


def test_new_files_keep_the_style(tree):
    run(tree, "-m", "ruff", "check", "--no-cache", *example_files())
    run(tree, "-m", "ruff", "format", "--check", "--no-cache", *example_files())


def test_new_members_keep_the_contract_of_their_stage(tree):
    contracts = [f"tests/contracts/test_{name}.py" for name in STAGES.values()]
    # Contracts by the class, the arrows of imports and the examples in docstrings by the file.
    asked = [word for names in members().values() for word in names]
    said = run(
        tree, "-m", "pytest", "-v", "-p", "no:cacheprovider", *contracts, "tests/test_layers_of_imports.py",
        *example_files(), "-k", " or ".join(asked),
    )  # fmt: skip
    passed = re.findall(r"^(\S.*?) PASSED", said, re.MULTILINE)
    for stage, (module, name) in members().items():
        contract = [test for test in passed if f"test_{STAGES[stage]}.py" in test and f"{name}(" in test]
        assert len(contract) >= 6, f"{name}: only {contract} ran"
        assert any("test_arrows_point_down" in test and module in test for test in passed), module
        assert any(test.endswith(f"::lightning_camrobust.{stage}.{module}.{name}") for test in passed), name


def test_new_members_work_by_name_and_a_new_logger_gets_pictures(tree):
    names = {stage: module for stage, (module, _) in members().items()}
    file, shown, saved, pooled = json.loads(run(tree, "-W", "ignore", "-c", _USE, json.dumps(names)).splitlines()[-1])
    assert Path(file).is_relative_to(tree)
    assert shown == {stage: name for stage, (_, name) in members().items()}
    assert dict(pooled)["method"] == names["cams"]
    assert set(saved.values()) == {"\x89PNG"}
    assert len(saved) == 2
