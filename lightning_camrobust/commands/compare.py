"""``camrobust compare``: two models, paired by image."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from lightning_camrobust.commands.analysing import add_analysis, check_studies, publish
from lightning_camrobust.commands.measuring import WrongUsage, add_measuring, measure
from lightning_camrobust.commands.options import AnalysisOptions, RunOptions, given
from lightning_camrobust.commands.parsing import take_options
from lightning_camrobust.errors import UnknownNameError, nearest_names

if TYPE_CHECKING:
    from lightning_camrobust.study.findings import ClassChange, ModelDifference

SUMMARY = "Compare two models, paired by image: differences with intervals, verdict, what changed most."
USAGE = "compare FOLDER [FOLDER] --first NAME --second NAME | --config two.yaml [options]"
DESCRIPTION = """\
example:

  camrobust compare results_monday results_friday --first monday --second friday --output monday_friday

takes two models that were measured on the same images (in one study or in two), and prints by how much the
second is more or less robust than the first, with an interval, a p-value and a verdict, and which classes and
images changed most. The page is written to the folder behind --output; without it, to
FOLDER/compare-FIRST-SECOND below the first folder.

  camrobust compare --config two.yaml

measures first: the file is that of a study (camrobust study --help) with exactly two entries under `models`."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of this command."""
    parser.add_argument(
        "folders", nargs="*", type=str, default=[], help="One or two folders of finished studies; without, it measures."
    )
    parser.add_argument("--first", type=str, default=None, help="Name of the model that the other is compared with.")
    parser.add_argument("--second", type=str, default=None, help="Name of the other; differences are second - first.")
    add_measuring(parser)
    add_analysis(parser)


def run(options: Namespace) -> None:
    """Do it.

    Args:
        options: All that was said to the command.
    """
    if options.folders:
        folders = check_studies(options.folders)
    else:
        models = take_options(options, RunOptions).models or {}
        if len(models) != 2:
            raise WrongUsage(
                f"camrobust compare takes folders of finished studies, or exactly two `models` to measure; got no "
                f"folder and {len(models)} models. See camrobust compare --help."
            )
        folder = measure(options)
        if folder is None:
            return
        folders = [folder]
    first, second = choose_models(folders, first=options.first, second=options.second)
    from lightning_camrobust.study.analysis import compare_studies

    settings = given(take_options(options, AnalysisOptions))
    findings = compare_studies(folders, first=first, second=second, seed=options.seed, **settings)
    # Names may hold slashes, and must not lead out of the folder.
    own = "-".join(["compare", *(re.sub(r"[^\w.]+", "-", name)[:40] for name in (first, second))])
    publish(findings, Path(options.output) if options.output else folders[0] / own)
    for difference in findings.differences:
        print(_changed_most(difference))


def choose_models(folders: Sequence[Path], *, first: str | None, second: str | None) -> tuple[str, str]:
    """Say which two models are compared.

    Args:
        folders: Of the studies.
        first: As given; None takes the first of exactly two.
        second: As given.

    Returns:
        Their names.

    Raises:
        ArgumentError: If there is no such model, or it is not clear which.
    """
    from lightning_camrobust.study.measured import load_measured

    known = list(dict.fromkeys(each.outcomes.model for each in load_measured(folders)))
    if first is None and second is None and len(known) == 2:
        return known[0], known[1]
    if first is None or second is None or first == second:
        raise WrongUsage(
            f"--first and --second must name two different models; the folders hold {', '.join(map(repr, known))}."
        )
    for flag, name in (("--first", first), ("--second", second)):
        if name not in known:
            raise UnknownNameError(f"{flag}: no model is called {name!r}. Nearest: {nearest_names(name, known)}.")
    return first, second


def _changed_most(difference: "ModelDifference") -> str:
    lines = [f"\n{difference.method}, {difference.kind} noise, {difference.num_images} images:"]
    lines += [f"  class {change.label}: similarity {_class_words(change)}" for change in difference.classes[:5]]
    for word, images in (("lost", difference.worse), ("gained", difference.better)):
        names = ", ".join(f"{each.image} ({each.first:.2f} to {each.second:.2f})" for each in images[:3])
        if names:
            lines.append(f"  images that {word} most: {names}")
    if difference.classes:
        lines.append("  classes: intervals are Student's t, p-values Wilcoxon's signed-rank test")
    if len(lines) > 1:
        lines.append("  classes and images rest on the pairs on which both models kept their prediction")
    return "\n".join(lines) if len(lines) > 1 else ""


def _class_words(change: "ClassChange") -> str:
    value, images = change.difference, f"{change.num_images} image{'' if change.num_images == 1 else 's'}"
    if math.isnan(value.value):
        return "unknown: on no image did both models keep their prediction"
    if math.isnan(change.p_adjusted):
        return f"{value.value:+.3f} on {images}, too few for a test"
    return (
        f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] on {images}, p = {change.p_adjusted:.3g} after "
        "Holm's correction"
    )
