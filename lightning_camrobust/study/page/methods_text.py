"""The paragraph on methods, written from what was measured, ready to be pasted into a paper."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_camrobust._version import __version__
from lightning_camrobust.study.findings import Findings, ModelFindings
from lightning_camrobust.study.page.sentences import KINDS
from lightning_camrobust.study.page.texts import anything, count, counted, joined, number, share

# Parts of a manifest whose settings are not those of the main scores.
_NOT_THE_MAIN_SETTING = ("readings", "methods", "perturbations", "models", "segmenter", "similarity", "trainer")
_SETTINGS = (
    ("Segments of the clean image", "segmenter"),
    ("Score of a segment from its pixels", "reduction"),
    ("Similarity of two rankings", "similarity"),
    ("Class that the noisy map explains", "target"),
)


def methods_paragraphs(findings: Findings) -> list[str]:
    """Write what was measured, how it was scored, and which statistics were used.

    Only what the records and the manifests say is written; a setting that they do not name is left out.

    Args:
        findings: Of a study.

    Returns:
        Plain text, one string a paragraph; none without a model.

    Example:
        >>> methods_paragraphs(Findings("A study", verdict=(), models=()))
        []
    """
    if not findings.models:
        return []
    paragraphs = (_measured(findings), _scored(findings), _tested(findings), _versions(findings))
    return [" ".join(sentences) for sentences in map(list, paragraphs) if sentences]


def _measured(findings: Findings) -> Iterator[str]:
    methods = _labels(row.method for model in findings.models for row in model.scores)
    models = [_model(model) for model in findings.models]
    yield (
        f"We measured how stable class activation maps stay under noise with lightning-camrobust {__version__}. "
        f"The maps of {joined(methods)} explain the predictions of {joined(models)}."
    )
    for kind, words in KINDS.items():
        noises = _noises(findings.models, kind)
        if noises:
            yield f"{words}: {_listed(noises)}."
    yield from findings.notes


def _model(model: ModelFindings) -> str:
    accuracy = "" if math.isnan(model.accuracy) else f", {share(model.accuracy)} of them classified correctly"
    images = f"{counted(model.num_images, 'image')} of {model.data}{accuracy}"
    return f"{model.model} at layer {model.target_layer} ({images})"


def _noises(models: Iterable[ModelFindings], kind: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, set[int]] = {}
    for row in (row for model in models for row in model.scores if row.kind == kind):
        if row.perturbation is not None:
            found.setdefault(row.perturbation, set()).update(() if row.severity is None else (row.severity,))
    return {noise: tuple(sorted(levels)) for noise, levels in found.items()}


def _listed(noises: dict[str, tuple[int, ...]]) -> str:
    levels = set(noises.values())
    if len(levels) == 1:
        return f"{joined(list(noises))}{_severities(levels.pop(), ' at ')}"
    return joined([f"{noise}{_severities(severities, ' (', ')')}" for noise, severities in noises.items()])


def _severities(levels: tuple[int, ...], before: str, after: str = "") -> str:
    word = "severity" if len(levels) == 1 else "severities"
    return f"{before}{word} {joined([str(level) for level in levels])}{after}" if levels else ""


def _scored(findings: Findings) -> Iterator[str]:
    settings = [
        f"{words}: {joined(values, 'or')}." for words, key in _SETTINGS if (values := _named(findings.manifests, key))
    ]
    yield from settings
    yield (
        "A pair is the map of an image and the map of its noisy copy. Consistency C is the mean similarity over the "
        "pairs whose predicted class stayed, responsiveness R is the mean of one minus the similarity over the pairs "
        "whose predicted class changed, and the robustness is RM = C R, all pooled over pairs. Pairs with a map that "
        "cannot be ranked were counted and left out. A score is undefined where its set of pairs is empty. Kinds of "
        "noise were never pooled with each other."
    )
    every = [row.chance_floor for model in findings.models for row in model.scores]
    floors = [floor for floor in every if not math.isnan(floor)]
    if floors:
        lowest, highest = number(min(floors)), number(max(floors))
        reach = lowest if lowest == highest else f"between {lowest} and {highest}"
        yield f"Maps that have nothing to do with each other would score RM = b (1 - b), here {reach}."


def _tested(findings: Findings) -> Iterator[str]:
    yield (
        f"Intervals are {share(findings.confidence).replace('.0%', '%')} intervals from a cluster bootstrap that draws "
        f"images with all their pairs ({count(findings.resamples)} resamples)."
    )
    if any(model.rank_tests for model in findings.models):
        yield (
            "Methods were ranked within images by their mean C and mean R and compared by Friedman's test, with "
            "Kendall's W as the size of the effect and Nemenyi's critical difference."
        )
    tests = _labels(pair.test for model in findings.models for pair in model.pairs)
    if tests:
        yield f"Pairs of methods were compared by two-sided tests ({joined(tests)})."
    if findings.mixed:
        yield "Models were compared with a mixed model of per-image means with a random intercept of the image."
    yield from findings.multiplicity
    asked = [model.stability for model in findings.models if model.stability is not None]
    if asked:
        settings = _labels(row.label for each in asked for row in each.rows)
        least = _labels(f"{each.least_tau:g}" for each in asked)
        yield (
            f"The ranking of methods was repeated under {joined(settings)} and is called stable if Kendall's tau-b "
            f"with the main setting is at least {joined(least)} everywhere."
        )


def _versions(findings: Findings) -> Iterator[str]:
    versions = dict.fromkeys(
        f"{name} {version}"
        for manifest in findings.manifests
        for found in _search(manifest, "versions")
        if isinstance(found, Mapping)
        for name, version in found.items()
    )
    if versions:
        yield f"Software: {joined(list(versions))}."
    seeds = _named(findings.manifests, "seed")
    if seeds:
        yield f"Seed: {joined(seeds)}."


def _named(manifests: Iterable[Mapping[str, object]], key: str) -> list[str]:
    found = [value for manifest in manifests for value in _search(manifest, key)]
    return _labels(_described(value) for value in found if value is not None)


def _described(value: Any) -> str:
    """Write a member as its name with its settings in brackets."""
    if not isinstance(value, Mapping):
        return anything(value)
    settings = [f"{name} = {_plain(each)}" for name, each in value.items() if name != "name" and each is not None]
    return f"{value.get('name', '')} ({', '.join(settings)})".strip() if settings else str(value.get("name", ""))


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else anything(value)


def _search(node: Any, key: str) -> Iterator[Any]:
    """Find all values under a key, however deep, but not those of other readings or of a single member."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == key:
                yield value
            elif name not in _NOT_THE_MAIN_SETTING:
                yield from _search(value, key)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _search(value, key)


def _labels(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
