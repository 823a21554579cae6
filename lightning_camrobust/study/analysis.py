"""From what was measured to what was found: all statistics of a study."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.study.conclusion import judge_stability
from lightning_camrobust.study.difference import compare_models
from lightning_camrobust.study.findings import (
    Findings,
    GalleryItem,
    MixedComparison,
    ModelDifference,
    ModelFindings,
    PairRow,
    RankTest,
)
from lightning_camrobust.study.measured import MeasuredModel, load_measured
from lightning_camrobust.study.outcomes import Kind, Outcomes
from lightning_camrobust.study.results import load_manifest
from lightning_camrobust.study.scores import correctly_classified, robustness_pairs, score_rows
from lightning_camrobust.study.statistics.bootstrap import Resampling
from lightning_camrobust.study.statistics.friedman import friedman_test
from lightning_camrobust.study.statistics.image_means import ImageMeasure, image_means
from lightning_camrobust.study.statistics.mixed import mixed_comparison
from lightning_camrobust.study.statistics.wilcoxon import wilcoxon_pairs
from lightning_camrobust.study.verdict import MULTIPLICITY, describe_model

# More models than this are compared with the first one only.
_ALL_PAIRS = 4
_MEASURES: tuple[ImageMeasure, ...] = ("consistency", "responsiveness")


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
        [(before.outcomes, after.outcomes) for before in one for after in other],
        title or f"{second} against {first}",
        how=Statistics(resamples, seed, confidence),
    )


@dataclass(frozen=True)
class Statistics:
    """How statistics are done.

    Attributes:
        resamples: Of every bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of all intervals, in (0, 1).
    """

    resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def resampling(self, outcomes: Outcomes) -> Resampling:
        """Return the resamples of the images of some outcomes."""
        return Resampling(len(outcomes.images), self.resamples, self.seed)


def _findings(
    measured: Sequence[MeasuredModel],
    pairs: Sequence[tuple[Outcomes, Outcomes]],
    title: str,
    *,
    how: Statistics,
) -> Findings:
    outcomes = [each.outcomes for each in measured]
    paths = list(dict.fromkeys(each.folder for each in measured))
    models = tuple(analyse_model(each.outcomes, seconds=each.seconds, how=how) for each in measured)
    differences = tuple(_difference(*pair, how=how) for pair in pairs)
    sentences = [sentence for model in models for sentence in describe_model(model)]
    return Findings(
        title=title,
        verdict=(*sentences, *(each.verdict for each in differences)),
        models=models,
        mixed=tuple(mixed_models(outcomes, confidence=how.confidence)),
        differences=differences,
        baselines=tuple(each for path in paths for each in _read_json(path / "baselines.json", [])),
        gallery=tuple(GalleryItem(**each) for path in paths for each in _gallery(path)),
        multiplicity=MULTIPLICITY,
        manifests=tuple(dict(load_manifest(path)) for path in paths),
        resamples=how.resamples,
        confidence=how.confidence,
    )


def analyse_model(outcomes: Outcomes, *, seconds: float = float("nan"), how: Statistics | None = None) -> ModelFindings:
    """Work out all about one model.

    Args:
        outcomes: Of the model, on one target layer.
        seconds: What measuring took.
        how: How statistics are done.

    Returns:
        The findings.
    """
    how = Statistics() if how is None else how
    resampling, confidence = how.resampling(outcomes), how.confidence
    ranked = outcomes.of_kind(_ranked_kind(outcomes))
    known = outcomes.labels >= 0
    right = correctly_classified(outcomes)
    several = len(outcomes.methods) > 1
    return ModelFindings(
        model=outcomes.model,
        target_layer=outcomes.target_layer,
        data=outcomes.data,
        num_images=len(outcomes.images),
        accuracy=float((outcomes.labels == outcomes.clean_classes)[known].mean()) if known.any() else float("nan"),
        scores=score_rows(outcomes, resampling, confidence=confidence),
        pairs=method_pairs(ranked, resampling, confidence=confidence) if several else (),
        rank_tests=rank_tests(ranked) if several else (),
        stability=judge_stability(outcomes, **asdict(how)) if several else None,
        seconds=seconds,
        correct_scores=(
            () if right is None else score_rows(right, how.resampling(right), confidence=confidence, pooled_only=True)
        ),
    )


def method_pairs(ranked: Outcomes, resampling: Resampling, *, confidence: float = 0.95) -> tuple[PairRow, ...]:
    """Compare methods in pairs: RM by the bootstrap, C and R of images by Wilcoxon's test.

    Args:
        ranked: Outcomes under noises of one kind.
        resampling: Of the images.
        confidence: Of the intervals.

    Returns:
        Rows; each measure is a family of its own.
    """
    rows = list(robustness_pairs(ranked, resampling, confidence=confidence))
    for measure in _MEASURES:
        means = image_means(ranked.similarity, ranked.same, measure=measure)
        rows += wilcoxon_pairs(means, ranked.methods, measure=measure, confidence=confidence)
    return tuple(rows)


def rank_tests(ranked: Outcomes) -> tuple[RankTest, ...]:
    """Rank methods on every image, by C and by R.

    Args:
        ranked: Outcomes under noises of one kind.

    Returns:
        One test a measure.
    """
    return tuple(
        friedman_test(
            image_means(ranked.similarity, ranked.same, measure=measure), list(ranked.methods), measure=measure
        )
        for measure in _MEASURES
    )


def mixed_models(measured: Sequence[Outcomes], *, confidence: float = 0.95) -> Iterator[MixedComparison]:
    """Compare methods over all models of a data set at once.

    Args:
        measured: Of every model.
        confidence: Of the intervals.

    Returns:
        Two comparisons for each data set with two models or more that share images, methods and noises.
    """
    for group in _same_grid(measured):
        kind = _ranked_kind(group[0])
        for measure in _MEASURES:
            means = {}
            for outcomes in group:
                ranked = outcomes.of_kind(kind)
                means[model_label(outcomes)] = image_means(ranked.similarity, ranked.same, measure=measure)
            yield mixed_comparison(means, list(group[0].methods), measure=measure, confidence=confidence)


def comparable_pairs(measured: Sequence[Outcomes]) -> list[tuple[Outcomes, Outcomes]]:
    """List the pairs of models that were measured on the same grid; with more than four, each with the first.

    Args:
        measured: Of every model and target layer.

    Returns:
        Pairs.
    """
    found = []
    for group in _same_grid(measured):
        pairs = list(combinations(group, 2))
        found += pairs if len(group) <= _ALL_PAIRS else [pair for pair in pairs if pair[0] is group[0]]
    return found


def _difference(first: Outcomes, second: Outcomes, *, how: Statistics) -> ModelDifference:
    return compare_models(first, second, kind=_ranked_kind(first), **asdict(how))


def model_label(outcomes: Outcomes) -> str:
    """Name a model and its target layer."""
    return f"{outcomes.model} ({outcomes.target_layer})"


def _same_grid(measured: Sequence[Outcomes]) -> list[list[Outcomes]]:
    groups: dict[object, list[Outcomes]] = {}
    for outcomes in measured:
        groups.setdefault((outcomes.data, outcomes.images, outcomes.methods, outcomes.noises), []).append(outcomes)
    return [group for group in groups.values() if len(group) > 1]


def _ranked_kind(outcomes: Outcomes) -> Kind:
    kinds = [noise.kind for noise in outcomes.noises]
    return "photometric" if "photometric" in kinds else kinds[0]


def _gallery(path: Path) -> list[dict[str, str]]:
    items = _read_json(path / "gallery.json", [])
    return [{**each, "file": str((path / each["file"]).resolve())} for each in items]


def _read_json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else missing
