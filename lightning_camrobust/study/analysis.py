"""From what was measured to what was found: all statistics of a study."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.study.across_models import (
    chosen_pairs,
    comparable_pairs,
    conditions_apart,
    mixed_models,
    named_pairs,
)
from lightning_camrobust.study.difference import conclude_all, measure_difference
from lightning_camrobust.study.findings import Findings, GalleryItem, ModelDifference
from lightning_camrobust.study.headline import headline
from lightning_camrobust.study.measured import BASELINES, GALLERY, MeasuredModel, load_measured
from lightning_camrobust.study.model_findings import Statistics, analyse_model
from lightning_camrobust.study.outcomes import Kind, Outcomes
from lightning_camrobust.study.results import load_manifest
from lightning_camrobust.study.settings import ranked_kind
from lightning_camrobust.study.statistics.resampling import enough_resamples
from lightning_camrobust.study.verdict import MULTIPLICITY, describe_model


def analyse(
    folders: str | Path | Sequence[str | Path],
    *,
    title: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Findings:
    """Work out all that a report shows.

    Args:
        folders: One finished study, or several that share a report.
        title: Of the report.
        resamples: Of every bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of all intervals, in (0, 1).

    Returns:
        The findings.

    Raises:
        ArgumentError: If there is no folder, a study is unfinished, or a setting is out of range.
    """
    measured = load_measured(folders)
    return _findings(
        measured,
        comparable_pairs([each.outcomes for each in measured]),
        title or "How robust are the explanations?",
        how=Statistics(resamples, seed, confidence),
    )


def compare_studies(
    folders: str | Path | Sequence[str | Path],
    *,
    first: str,
    second: str,
    title: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Findings:
    """Work out a report on two models.

    Args:
        folders: One finished study or several.
        first: Name of a model.
        second: Name of the one that is compared with it; differences are second minus first.
        title: Of the report.
        resamples: Of every bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of all intervals, in (0, 1).

    Returns:
        The findings, on these two models only; there is one difference or more.

    Raises:
        ArgumentError: If the two share no data or noises, or a study is unfinished.
        UnknownNameError: If there is no such model.
    """
    measured = load_measured(folders)
    known = list(dict.fromkeys(each.outcomes.model for each in measured))
    for argument, name in (("first", first), ("second", second)):
        if name not in known:
            raise UnknownNameError(
                f"compare_studies: `{argument}`: no model is called {name!r}. Nearest: {nearest_names(name, known)}."
            )
    if first == second:
        raise ArgumentError(f"compare_studies: `first` and `second` must be two models, got {first!r} twice.")
    one, other = ([each for each in measured if each.outcomes.model == name] for name in (first, second))
    return _findings(
        [*one, *other],
        chosen_pairs([each.outcomes for each in one], [each.outcomes for each in other]),
        title or f"{second} against {first}",
        how=Statistics(resamples, seed, confidence),
        compared=True,
    )


def _findings(
    measured: Sequence[MeasuredModel],
    pairs: Sequence[tuple[Outcomes, Outcomes]],
    title: str,
    *,
    how: Statistics,
    compared: bool = False,
) -> Findings:
    outcomes = [each.outcomes for each in measured]
    paths = list(dict.fromkeys(each.folder for each in measured))
    models = tuple(analyse_model(each.outcomes, seconds=each.seconds, how=how) for each in measured)
    differences, refused = _differences(pairs, how=how, must=compared)
    about_models = [*headline(models), *(sentence for model in models for sentence in describe_model(model))]
    about_pairs = [*(each.verdict for each in differences), *refused]
    return Findings(
        title=title,
        # Whoever asked for a comparison reads it first.
        verdict=(*about_pairs, *about_models) if compared else (*about_models, *about_pairs),
        models=models,
        mixed=tuple(mixed_models(outcomes, confidence=how.confidence)),
        differences=differences,
        baselines=tuple(each for path in paths for each in _read_list(path / BASELINES)),
        gallery=tuple(item for path in paths for item in _gallery(path)),
        multiplicity=MULTIPLICITY,
        manifests=tuple(dict(load_manifest(path)) for path in paths),
        resamples=how.resamples,
        confidence=how.confidence,
        notes=tuple(conditions_apart(outcomes)),
    )


def _differences(
    pairs: Sequence[tuple[Outcomes, Outcomes]], *, how: Statistics, must: bool
) -> tuple[tuple[ModelDifference, ...], list[str]]:
    """Compare models; a pair that cannot be compared is said, or, where it ``must`` be compared, refused."""
    compared, refused = [], []
    # The primary tests of all pairs are one family.
    how = replace(how, resamples=enough_resamples(how.resamples, tests=len(pairs)))
    for first, second in named_pairs(pairs):
        try:
            compared.append(measure_difference(first, second, kind=_shared_kind(first, second), **asdict(how)))
        except ArgumentError as error:
            if must:
                raise
            refused.append(f"{first.model} and {second.model} are not compared: {error}")
    return conclude_all(compared), refused


def _shared_kind(first: Outcomes, second: Outcomes) -> Kind:
    shared = first.of_noises([noise in second.noises for noise in first.noises])
    # Without a common noise it does not matter: the comparison says so.
    return ranked_kind(shared if shared.noises else first)


def _gallery(path: Path) -> Iterator[GalleryItem]:
    """Name pictures by their whole path, as a report may lie elsewhere.

    A picture that was deleted stays listed: the page says in its place that it is missing.
    """
    for each in _read_list(path / GALLERY):
        if not {"title", "file", "alt"} <= each.keys():
            raise _damaged(path / GALLERY, "an entry has no title, file or alt")
        file = (path / each["file"]).resolve()
        # Nothing from elsewhere on the disk gets into a page that is passed on.
        if not file.is_relative_to(path.resolve()):
            raise _damaged(path / GALLERY, f"{each['file']} does not lie in the study's folder")
        yield GalleryItem(title=each["title"], file=str(file), alt=each["alt"])


def _read_list(path: Path) -> list[dict[str, Any]]:
    """Read what a study wrote beside its results; nothing if it did not."""
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _damaged(path, "it holds no list of entries")
    return found


def _damaged(path: Path, why: str) -> ArgumentError:
    return ArgumentError(
        f"Report: {path} cannot be read: {why}. Delete it to report without it, or run the study again to have it "
        "written anew; what was measured stays."
    )
