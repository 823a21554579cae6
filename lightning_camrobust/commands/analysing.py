"""What the commands that analyse have in common: findings, the page, and the verdict in the terminal."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from lightning_camrobust.commands.options import AnalysisOptions, given
from lightning_camrobust.commands.parsing import add_options, take_options
from lightning_camrobust.errors import ArgumentError

if TYPE_CHECKING:
    from lightning_camrobust.study.findings import Findings


def add_analysis(parser: ArgumentParser) -> None:
    """Add the flags that say how results are analysed.

    Args:
        parser: Of the command.
    """
    add_options(parser, AnalysisOptions, title="how it is analysed")


def report_on(folders: Sequence[Path], options: Namespace, *, output: Path) -> None:
    """Analyse finished studies, write the page, and print the verdict.

    Args:
        folders: Of the studies.
        options: All that was said to the command.
        output: Folder of the page.
    """
    from lightning_camrobust.study.analysis import analyse

    settings = given(take_options(options, AnalysisOptions))
    publish(analyse(folders, seed=options.get("seed", 0), **settings), output)


def publish(findings: "Findings", output: Path) -> None:
    """Write the page and print the verdict.

    Args:
        findings: What was found.
        output: Folder of the page.
    """
    from lightning_camrobust.study.page.report_page import write_report

    page = write_report(findings, output)
    for sentence in (*findings.verdict, *findings.notes):
        print(_wrapped(sentence))
    print(f"\nReport: {page or output / 'report.html'}")


def _wrapped(sentence: str) -> str:
    """Break a sentence to the width of the terminal; where the output goes to a file, it stays one line."""
    width = shutil.get_terminal_size().columns
    return "\n".join(wrap(sentence, width, subsequent_indent="  ")) if sys.stdout.isatty() else sentence


def check_studies(folders: Sequence[str]) -> list[Path]:
    """Check that folders hold studies.

    Args:
        folders: As given.

    Returns:
        Their paths.

    Raises:
        ArgumentError: If one does not exist or holds no study.
    """
    paths = [Path(each) for each in folders]
    for path in paths:
        # Whether the study is whole is for those to say who read it.
        if not (path / "manifest.json").is_file():
            what = "holds no study (no manifest.json)" if path.is_dir() else "does not exist"
            raise ArgumentError(
                f"the folder {str(path)!r} {what}. Measure one first: camrobust study --output {path} ..., or give the "
                "folder that stood behind --output there."
            )
    return paths
