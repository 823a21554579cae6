"""What a maintainer relies on: one version, pins that fit the declared minimums, targets that exist, hooks that run."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import lightning_camrobust
from lightning_camrobust.cli import main
from tests.packaging import tidy
from tests.packaging.checkout import ROOT, copy_of_checkout

RUNTIME = ("cli", "demo", "examples", "study", "wandb", "mlflow")


def section(text, header):
    """The lines of a table in pyproject.toml, which Python 3.10 cannot read by itself."""
    return re.search(rf"^\[{re.escape(header)}\]\n(.*?)(?=^\[[\w.\[]|\Z)", text, re.DOTALL | re.MULTILINE)[1]


def declared():
    """Requirements of the package and of the extras that a user may want."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = section(text, "project.optional-dependencies")
    lists = [re.search(r"^dependencies = (\[.*?^\])", text, re.DOTALL | re.MULTILINE)[1]]
    lists += [
        re.search(rf"^{name} = (\[.*?\](?=\n(?:\w|#|\Z)))", extras + "\nend", re.DOTALL | re.MULTILINE)[1]
        for name in RUNTIME
    ]
    found = [Requirement(each) for text in lists for each in ast.literal_eval(text)]
    return [each for each in found if each.name != "lightning-camrobust"]


def pins(name):
    lines = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in found}


def targets():
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_there_is_one_version(capsys):
    version = lightning_camrobust.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", version)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"camrobust {version}\n"
    written = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("lightning_camrobust/**/*.py"), ROOT / "pyproject.toml", *ROOT.glob("docs/*.py")]
        if f'"{version}"' in path.read_text(encoding="utf-8")
    ]
    assert written == ["lightning_camrobust/_version.py"]


def test_oldest_pins_are_the_declared_minimums():
    oldest, requirements = pins("oldest"), declared()
    assert len(requirements) > 15
    apart = {}
    for each in requirements:
        (bound,) = each.specifier
        assert bound.operator == ">=", f"{each}: a minimum, and no upper bound"
        pinned = oldest[canonicalize_name(each.name)]
        # A release that mends only how another one was packed counts as the same.
        if Version(pinned.base_version) != Version(bound.version):
            apart[each.name] = (bound.version, str(pinned))
    assert apart == {}


def test_newest_pins_satisfy_all_that_is_declared():
    newest = pins("newest")
    assert [str(each) for each in declared() if newest[canonicalize_name(each.name)] not in each.specifier] == []


def test_make_explains_every_target():
    said = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    explained = dict(re.findall(r"^  make ([a-z-]+) +(\S.*)$", said, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*?[^\\])\n", makefile, re.DOTALL | re.MULTILINE)[1]
    assert set(explained) == targets() == set(phony.replace("\\", " ").split())
    assert all(sentence.endswith(".") and len(sentence) > 10 for sentence in explained.values())
    assert {"demo", "test", "docs", "wheel"} <= set(explained)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "RELEASING.md", ".github/workflows/tests.yml",
                                  ".github/workflows/docs.yml", ".github/pull_request_template.md"])  # fmt: skip
def test_targets_that_are_spoken_of_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    spoken_of = set(re.findall(r"(?:^|`|run: )make ([a-z-]+)", text, re.MULTILINE))
    assert spoken_of
    assert spoken_of <= targets()


def test_releasing_lists_every_page_that_waits_for_an_address():
    waits = re.compile(r"not on PyPI|no public address yet", re.IGNORECASE)
    places = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/how-to/*.md"), ROOT / "docs/llms.txt"]
    found = {path.relative_to(ROOT).as_posix() for path in places if waits.search(path.read_text(encoding="utf-8"))}
    assert {"README.md", "SECURITY.md"} <= found
    releasing = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    assert [name for name in sorted(found - {"RELEASING.md"}) if f"`{name}`" not in releasing] == []


def test_workflows_and_forms_are_what_the_site_reads():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        assert all({"runs-on", "timeout-minutes", "steps"} <= set(job) for job in jobs), path.name
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert {path.stem for path in forms} == {"bug", "wrong_number", "new_member"}
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form)
        asked = [each["id"] for each in form["body"] if each["type"] != "markdown"]
        assert len(set(asked)) == len(asked)


def test_the_environment_line_of_the_bug_form_runs():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    (asked,) = (each for each in form["body"] if each.get("id") == "environment")
    code = re.search(r'`python -c "(.*)"`', asked["attributes"]["description"])[1]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert f"lightning-camrobust {lightning_camrobust.__version__}" in done.stdout.splitlines()


def test_hooks_pass_on_the_files_of_the_repository(tmp_path):
    """All hooks but types and imports, which `make test` runs as well and which take longer."""
    if shutil.which("git") is None:
        pytest.skip("pre-commit needs git")
    left_out = {"build", "dist", "runs", "lightning_logs"}
    names = [path.name for path in ROOT.iterdir() if path.name not in left_out and not path.name.endswith("egg-info")]
    hidden = {".gitignore", ".pre-commit-config.yaml", ".editorconfig", ".github"}
    copy_of_checkout(tmp_path / "copy", *(name for name in names if not name.startswith(".") or name in hidden))
    # The hooks run from `.venv`, as `make` lays it; here that is whatever runs this test.
    (tmp_path / "copy" / ".venv").symlink_to(sys.prefix)
    (tmp_path / "copy" / ".git" / "info").mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PRE_COMMIT"))}
    environment |= {"PRE_COMMIT_HOME": str(tmp_path / "home"), "SKIP": "mypy,imports"}
    for command in (
        ["git", "init", "--quiet"],
        ["git", "-c", "core.excludesFile=", "add", "--all", "--", ".", ":!.venv"],
        [sys.executable, "-m", "pre_commit", "validate-config"],
        [sys.executable, "-m", "pre_commit", "run", "--all-files"],
    ):
        done = subprocess.run(command, cwd=tmp_path / "copy", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Passed" in done.stdout
    assert "Failed" not in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.py", b"x = 1\n", None),
        ("a.md", b"two spaces  \nbreak\n", None),
        ("a.png", b"\x89PNG\0 \n\n", None),
        ("a.py", b"x = 1 \n", "spaces at the end"),
        ("a.py", b"x = 1", "one newline"),
        ("a.py", b"x = 1\n\n", "one newline"),
        ("a.py", b"x = 1\r\n", "Windows"),
        ("a.py", b"<" * 7 + b" HEAD\n", "conflict"),
        ("a.bin", b"\0" * (tidy.MOST_BYTES + 1), "larger"),
    ],
)
def test_tidy_tells_what_is_untidy(tmp_path, name, content, complaint):
    Path(tmp_path / name).write_bytes(content)
    found = list(tidy.complaints(tmp_path / name))
    assert [each for each in found if complaint is None or complaint not in each] == []
    assert len(found) == (complaint is not None)
