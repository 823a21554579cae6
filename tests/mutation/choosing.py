"""Which files, which of their mutants, and which tests for each."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.mutants import UNCHANGED, Mutant, mutants_of, runs_at_import
from tests.mutation.running import Task

PACKAGE = "lightning_camrobust"
# Folders are taken whole; the words in front name the rows of the table.
PARTS = {
    "cams": ("cams/*", "attention", "masking", "principal", "fusion"),
    "compare": ("compare/*", "overlap"),
    "score": ("metric", "functional", "stability", "comparison"),
    "segments and pooling": (
        "segment/*", "segmentation", "quickshift_density", "quickshift_forest", "enlarging",
        "pooling", "segmented", "reducing",
    ),
    "perturb": ("perturb/*", "severity", "randomness", "warping", "content"),
    "imaging": ("imaging/*",),
}  # fmt: skip
# The tests that speak of the maths; a test of pages, tables or commands would only be slower.
TESTS = (
    "contracts/test_*",
    *(
        f"unit/test_{name}"
        for name in (
            "affine", "attacks", "attention_rollout", "bad_input", "baselines", "cfcam", "copies", "fusion",
            "fusioncam", "host_waits", "hybrid_head", "lvat", "maths_*", "measure", "metric", "more_cams", "noise",
            "occlusion", "pooling", "quickshift", "rbo", "readings", "removal", "scorecam", "segmented", "sensitivity",
            "similarities", "spatial_corruptions", "target_layer", "tokens", "transformed", "weather_and_digital",
        )
    ),
    "integration/test_hazards",
    "integration/test_identities",
    "integration/test_imagecorruptions",
)  # fmt: skip
# Tests of defaults and tables: they look at what was made at import, and run no line of the file.
OF_DEFAULTS = ("tests/unit/test_maths_cams.py::test_a_bare_name", "tests/unit/test_maths_perturb.py::test_a_severity")


@dataclass(frozen=True)
class Map:
    """What ``executed`` wrote: seconds of each test, and the tests of each line."""

    seconds: Mapping[str, float]
    tests: Mapping[str, Mapping[str, Sequence[str]]]
    failed: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> "Map":
        """Read it back."""
        found = json.loads(path.read_text())
        return cls(found["seconds"], found["tests"], found["failed"])


def files_of(part: str) -> list[str]:
    """List the files of a part, in alphabetical order, relative to the checkout."""
    found = [each for glob in PARTS[part] for each in sorted(Path(PACKAGE).glob(f"{glob}.py"))]
    return [str(each) for each in found if each.name != "__init__.py"]


def tests_asked() -> list[str]:
    """List the files whose tests are asked, doctests of the maths included."""
    written = [str(each) for glob in TESTS for each in sorted(Path("tests").glob(f"{glob}.py"))]
    return [*(each for part in PARTS for each in files_of(part)), *written]


def sample(source: str, *, file: str, size: int, seed: int) -> list[Mutant]:
    """Draw up to ``size`` mutants of a file without replacement; a file's draw does not depend on other files."""
    mutants = mutants_of(source)
    drawn = random.Random(f"{seed} {file}").sample(range(len(mutants)), min(size, len(mutants)))
    return [mutants[place] for place in sorted(drawn)]


def task_of(file: str, mutant: Mutant, known: Map, *, seconds: float, wide: bool) -> Task:
    """Choose tests: those which run the mutant's line, quickest first, until they take ``seconds`` together.

    A line that runs at import (defaults, tables) belongs to all tests of its file, and to those of defaults. With
    ``wide``, the tests of the file come for every line, after its own.
    """
    lines = known.tests.get(file, {})
    of_line = set(lines.get(str(mutant.line), ())) & known.seconds.keys()
    of_file = {each for tests in lines.values() for each in tests} & known.seconds.keys()
    if not of_line or runs_at_import(Path(file).read_text(), mutant.line):
        # A test that was the first to import the file is said to have run these lines, which means nothing.
        of_file |= {each for each in known.seconds if each.startswith(OF_DEFAULTS)}
        of_line = set()
    groups = [of_line, of_file - of_line] if wide else [of_line or of_file]
    chosen: list[str] = []
    total = 0.0
    for group in groups:
        for test in sorted(group, key=lambda each: (known.seconds[each], each)):
            if chosen and total + known.seconds[test] > seconds:
                break
            chosen.append(test)
            total += known.seconds[test]
    return Task(file, mutant, chosen, total)


def tasks_of(asked: Mapping[str, Any], known: Map) -> Iterator[Task]:
    """Make the tasks of a run; mutants that its output already holds are not run again."""
    output = Path(asked["output"])
    done = {(row["file"], row["number"]): row for row in rows_of(output)} if output.exists() else {}
    for part in asked["parts"] or PARTS:
        for file in files_of(part):
            if not asked["again"]:
                # If the tests fail on the file as it is, the run says so at its beginning.
                yield task_of(file, UNCHANGED, known, seconds=1, wide=False)
            for mutant in sample(Path(file).read_text(), file=file, size=asked["per_file"], seed=asked["seed"]):
                row = done.get((file, mutant.number))
                if (
                    row is None
                    or row["name"] != mutant.name
                    or (asked["again"] and row["verdict"] in ("survived", "no tests", "broken"))
                ):
                    yield task_of(file, mutant, known, seconds=asked["seconds"], wide=asked["again"])


def controls_of(asked: Mapping[str, Any], known: Map) -> Iterator[Task]:
    """Make one task a file that changes nothing and runs every test that killed a mutant there: all have to pass.

    A killer that only the mutant has, such as a file that could not be collected or a test with a number in its name,
    is stood in for by the quickest test of its file, which has to be collected for it.
    """
    killers: dict[str, set[str]] = {}
    for row in rows_of(Path(asked["output"])):
        if row["verdict"] == "killed" and row["number"] >= 0:
            killers.setdefault(row["file"], set()).add(_known_killer(row["killer"], known))
    for file, tests in killers.items():
        yield Task(file, UNCHANGED, sorted(tests), sum(known.seconds[test] for test in tests))


def _known_killer(killer: str, known: Map) -> str:
    if killer in known.seconds:
        return killer
    beside = [each for each in known.seconds if each.partition("::")[0] == killer.partition("::")[0]]
    if not beside:
        raise ValueError(f"{killer}: no test of that file is known, so what it killed cannot be controlled")
    return min(beside, key=lambda each: known.seconds[each])


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Read results; of a mutant that was run twice the last one counts."""
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return list({(row["file"], row["number"]): row for row in rows}.values())
