"""Plant mutants in a copy of the checkout, run the tests that could see them, and count.

python -m tests.mutation --output mutants.jsonl            # a sample of every file, some hours
python -m tests.mutation --output mutants.jsonl --again    # the survivors once more, against more tests
python -m tests.mutation --output mutants.jsonl --control  # the tests that killed, on the files as they are
python -m tests.mutation --output mutants.jsonl --report   # the table and the survivors
"""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.mutation import choosing, reporting, running

COPIED = ("lightning_camrobust", "tests", "docs", "examples", "pyproject.toml", "README.md")


def main() -> None:
    """Parse arguments; copy, trace and run, or report."""
    arguments = _parser().parse_args()
    if arguments.report:
        print(reporting.report(choosing.rows_of(arguments.output)))
    elif arguments.inside:
        _run(vars(arguments) | {"output": str(arguments.output)})
    else:
        _copy_and_run(arguments.output, anew=arguments.again or not arguments.output.exists())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=lambda each: Path(each).absolute(), required=True, help="results, one JSON a line"
    )
    parser.add_argument("--per-file", type=int, default=12, help="how many mutants of a file are drawn at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="how many mutants run at a time")
    parser.add_argument("--seconds", type=float, default=12, help="how long the tests of one mutant may take together")
    parser.add_argument("--parts", nargs="*", choices=choosing.PARTS, help="only these parts of the table")
    parser.add_argument("--again", action="store_true", help="run survivors again, against all tests of their file")
    parser.add_argument("--control", action="store_true", help="run the tests that killed on files as they are")
    parser.add_argument("--report", action="store_true", help="only print what the output holds")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def _copy_and_run(output: Path, *, anew: bool) -> None:
    """Work in a copy beside the output, so that neither the checkout nor its caches are touched."""
    tree = output.with_suffix(".tree")
    if anew:
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
    for name in COPIED if anew else ():
        copy = shutil.copytree if Path(name).is_dir() else shutil.copy
        copy(name, tree / name)
    # A process of its own, so that `tests` is the copy's; the last --output wins.
    again = [*sys.argv[1:], "--inside", "--output", str(output)]
    subprocess.run([sys.executable, "-m", "tests.mutation", *again], cwd=tree, check=True)


def _run(asked: dict[str, object]) -> None:
    where = Path("executed.json")
    if not where.exists():
        files = [each for part in choosing.PARTS for each in choosing.files_of(part)]
        watched = {"files": files, "tests": choosing.tests_asked(), "output": str(where)}
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "tests.mutation.executed", json.dumps(watched)], check=False, env=one_thread
        )
    known = choosing.Map.read(where)
    # Each mutant imports the package anew; compiled files save most of that.
    compileall.compile_dir(".", quiet=1)
    running.load_libraries()
    tasks = list((choosing.controls_of if asked["control"] else choosing.tasks_of)(asked, known))
    every_test = {*known.seconds, *known.failed}
    running.run_all(tasks, known=every_test, jobs=int(str(asked["jobs"])), output=Path(str(asked["output"])))


if __name__ == "__main__":
    main()
