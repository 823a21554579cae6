"""Each mutant in a process of its own, forked from one that has loaded torch and everything else but the package."""

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.mutation.mutants import Mutant

# What the tests load beside the package; loaded once, as it takes seconds.
LIBRARIES = (
    "torch", "torchvision", "torchmetrics", "lightning.pytorch", "pytorch_lightning", "pytorch_grad_cam",
    "skimage.segmentation",
    "skimage.data", "skimage.metrics", "scipy.stats", "scipy.ndimage", "matplotlib.figure", "mlxtend.data", "timm",
    "sklearn.datasets", "threadpoolctl", "PIL.Image", "lazy_loader", "captum.attr", "pandas",
)  # fmt: skip
# How pytest ends: nothing failed, a test failed, a file could not be collected, no test was left to run.
PASSED, FAILED, INTERRUPTED, NO_TESTS = 0, 1, 2, 5


@dataclass(frozen=True)
class Task:
    """A mutant and the tests that may see it, quickest first."""

    file: str
    mutant: Mutant
    tests: Sequence[str]
    seconds: float


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module its mutated code when it is imported."""

    def __init__(self, task: Task) -> None:
        self.file = Path(task.file).absolute()
        self.name = task.file.removesuffix(".py").replace("/", ".")
        self.code = compile(task.mutant.plant(self.file.read_text()), str(self.file), "exec")

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Answer for the mutated module only."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated code."""
        exec(self.code, module.__dict__)


class Chosen:
    """A pytest plugin that runs the chosen tests, and those that the mutant gave a new name."""

    def __init__(self, tests: Sequence[str], known: Iterable[str], tell: int) -> None:
        self.rank = {test: place for place, test in enumerate(tests)}
        self.known = known
        self.tell = tell

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop the others; the quickest come first."""
        kept = [each for each in items if each.nodeid in self.rank or each.nodeid not in self.known]
        items[:] = sorted(kept, key=lambda each: self.rank.get(each.nodeid, len(self.rank)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell the parent which file of tests cannot be collected."""
        self._tell(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell the parent which test fails."""
        self._tell(report)

    def _tell(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed:
            os.write(self.tell, f"{report.nodeid}\n".encode())


def load_libraries() -> None:
    """Load what the tests load beside the package, and start no thread that a fork would lose."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    sys.modules["torch"].set_num_threads(1)
    # What is there by now stays; pytest's own collections at the end then have little to look at.
    gc.collect()
    gc.freeze()


def run_all(tasks: Sequence[Task], *, known: Iterable[str], jobs: int, output: Path) -> None:
    """Run tasks, ``jobs`` at a time, and append one line of JSON each to ``output``."""
    known, waiting, running = frozenset(known), list(reversed(tasks)), dict[int, tuple[Task, int, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            task = waiting.pop()
            process, ear = _start(task, known)
            running[process] = (task, ear, time.monotonic())
        for process, (task, ear, begin) in list(running.items()):
            code = _look(process, time.monotonic() - begin, limit=60 + 4 * task.seconds)
            if code is not None:
                del running[process]
                with os.fdopen(ear) as told:
                    killer = told.read().partition("\n")[0]
                _write(output, task, code, killer, time.monotonic() - begin)
        time.sleep(0.02)


def _start(task: Task, known: frozenset[str]) -> tuple[int, int]:
    ear, tell = os.pipe()
    process = os.fork()
    if process:
        os.close(tell)
        return process, ear
    code = 70
    try:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.meta_path.insert(0, Planted(task))
        files = list(dict.fromkeys(each.partition("::")[0] for each in task.tests))
        # A failure's text is nobody's reading, and making it takes long for tensors.
        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--show-capture=no"]
        options += ["--assert=plain", "--disable-plugin-autoload"]
        code = int(pytest.main([*options, *files], plugins=[Chosen(task.tests, known, tell)]))
    finally:
        os._exit(code)


def _look(process: int, seconds: float, *, limit: float) -> int | str | None:
    """Tell how a process ended: pytest's exit code, minus a signal, or ``"timeout"``; None while it runs."""
    done, status = os.waitpid(process, os.WNOHANG)
    if done:
        return os.waitstatus_to_exitcode(status)
    if seconds < limit:
        return None
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "timeout"


def verdict_of(code: int | str, killer: str) -> str:
    """Judge an end. Killed is what a named test noticed; a run that ended in another way proves nothing.

    Example:
        >>> verdict_of(1, "test_a.py::test_b"), verdict_of(2, "test_a.py"), verdict_of(-9, "")
        ('killed', 'killed', 'broken')
    """
    if code == "timeout":
        return "timeout"
    if code in (FAILED, INTERRUPTED) and killer:
        return "killed"
    return {PASSED: "survived", NO_TESTS: "no tests"}.get(code, "broken")


def _write(output: Path, task: Task, code: int | str, killer: str, seconds: float) -> None:
    row = {
        "file": task.file,
        "number": task.mutant.number,
        "line": task.mutant.line,
        "name": task.mutant.name,
        "verdict": verdict_of(code, killer),
        "code": code,
        "tests": len(task.tests),
        "killer": killer,
        "seconds": round(seconds, 2),
    }
    with output.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
