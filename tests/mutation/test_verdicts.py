"""Only what a named test noticed counts as killed; each way in which the run of a mutant can end, for real."""

import json
import subprocess
import sys

import pytest

from tests.mutation import choosing, reporting
from tests.packaging.checkout import ROOT

ENDS = {
    "def double(x):\n    return 2 * x\n": "survived",
    "def double(x):\n    return 3 * x\n": "killed",
    "raise RuntimeError\n": "killed",
    "import os\ndef double(x):\n    os._exit(70)\n": "broken",
    "import os\ndef double(x):\n    os.kill(os.getpid(), 9)\n": "broken",
    "import pytest\ndef double(x):\n    pytest.exit('x', returncode=4)\n": "broken",
    "def double(x):\n    raise KeyboardInterrupt\n": "broken",
}
_RUN = """
import ast, json, sys
from dataclasses import dataclass
from pathlib import Path
from tests.mutation import running

@dataclass
class Rewritten:
    number: int
    source: str
    line: int = 1
    name: str = "rewritten"
    def plant(self, source):
        return ast.parse(self.source)

tests = ["checks/test_thing.py::test_double"]
tasks = [running.Task("thing.py", Rewritten(*each), tests, 0.1) for each in enumerate(json.loads(sys.argv[1]))]
running.run_all(tasks, known=tests, jobs=2, output=Path("rows.jsonl"))
"""
_TEST = "from thing import double\n\n\ndef test_double():\n    assert double(2) == 4\n"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    (tree / "checks").mkdir()
    (tree / "checks" / "test_thing.py").write_text(_TEST)
    (tree / "thing.py").write_text(next(iter(ENDS)))
    (tree / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{_RUN}", json.dumps(list(ENDS))]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return sorted(choosing.rows_of(tree / "rows.jsonl"), key=lambda row: row["number"])


def test_each_end_has_its_verdict(rows):
    assert [row["verdict"] for row in rows] == list(ENDS.values())
    assert [row["code"] for row in rows] == [0, 1, 2, 70, -9, 4, 2]


def test_what_killed_is_named(rows):
    killers = [row["killer"] for row in rows if row["verdict"] == "killed"]
    assert killers == ["checks/test_thing.py::test_double", "checks/test_thing.py"]


def test_broken_runs_are_listed_and_do_not_count(rows, monkeypatch):
    monkeypatch.setattr(reporting, "files_of", lambda part: ["thing.py"] if part == "compare" else [])
    said = reporting.report(rows)
    assert "| all | 1 | 7 | 2 | 0 | 1 | 4 | 28.6% |" in said
    assert "Broken: 4 runs" in said
    assert "- thing.py:1 #4 rewritten (code -9)" in said


def test_every_kill_is_controlled(rows, tmp_path):
    output = tmp_path / "rows.jsonl"
    output.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    known = choosing.Map({"checks/test_thing.py::test_double": 0.1, "checks/test_thing.py::test_more": 0.2}, {}, ())
    (task,) = choosing.controls_of({"output": output}, known)
    assert task.tests == ["checks/test_thing.py::test_double"]
    with pytest.raises(ValueError, match="checks/test_thing.py"):
        list(choosing.controls_of({"output": output}, choosing.Map({}, {}, ())))
