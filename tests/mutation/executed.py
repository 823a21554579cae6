"""Which test runs which line of the maths: the map by which a mutant finds the tests that could see it."""

import functools
import importlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest


class Executed:
    """A pytest plugin that notes the lines each test runs, and how long it takes."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.names = {str(file): str(file.relative_to(Path.cwd())) for file in files}
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, dict[int, list[str]]] = {name: defaultdict(list) for name in self.names.values()}
        self.failed: list[str] = []
        self._lines: set[tuple[str, int]] = set()
        self._wanted: dict[CodeType, str | None] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test with its fixtures; what an earlier one left in a cache would hide lines."""
        self._lines = set()
        _empty_caches()
        begin = time.perf_counter()
        sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.seconds[item.nodeid] = time.perf_counter() - begin
            for name, line in sorted(self._lines):
                self.tests[name][line].append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what does not pass as it is; it proves nothing about a mutant."""
        if report.outcome != "passed":
            self.failed.append(report.nodeid)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        if code not in self._wanted:
            self._wanted[code] = self.names.get(code.co_filename)
        if self._wanted[code] is None:
            return None
        self._lines.add((str(self._wanted[code]), frame.f_lineno))
        return self._stepped

    def _stepped(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        self._lines.add((str(self._wanted[frame.f_code]), frame.f_lineno))
        return self._stepped


def _empty_caches() -> None:
    for module in [each for name, each in sys.modules.items() if name.startswith("lightning_camrobust.")]:
        for value in list(vars(module).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


def main() -> None:
    """Run ``tests`` with ``files`` watched, and write the map to ``output``; all three come as one JSON argument."""
    asked = json.loads(sys.argv[1])
    importlib.import_module("torch").set_num_threads(1)
    watch = Executed(Path(each).absolute() for each in asked["files"])
    code = pytest.main(["-q", "-p", "no:cacheprovider", *asked["tests"]], plugins=[watch])
    passed = {test: seconds for test, seconds in watch.seconds.items() if test not in watch.failed}
    Path(asked["output"]).write_text(
        json.dumps({"code": int(code), "failed": watch.failed, "seconds": passed, "tests": watch.tests})
    )


if __name__ == "__main__":
    main()
