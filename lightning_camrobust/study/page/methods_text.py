"""The paragraph on methods, written from what was measured, ready to be pasted into a paper."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lightning_camrobust._version import __version__
from lightning_camrobust.severity import SMALL_IMAGE
from lightning_camrobust.study.findings import Findings, ModelFindings, PairRow
from lightning_camrobust.study.page.sentences import KINDS
from lightning_camrobust.study.page.texts import anything, count, counted, joined, number, share

_TESTS = {
    "cluster bootstrap": "the cluster bootstrap",
    "Wilcoxon": "Wilcoxon's signed-rank test on the means of images",
}
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
    yield from _facts(findings.manifests, [*_noises(findings.models, "attack")])


def _facts(manifests: Iterable[Mapping[str, Any]], attacks: Sequence[str]) -> Iterator[str]:
    """Say how large images are, how strong each severity is, and what the networks are, where manifests know it."""
    facts = [manifest["facts"] for manifest in manifests if "facts" in manifest]
    sizes = _labels(_size_words(each["image_size"]) for each in facts)
    if sizes:
        yield f"Images have {joined(sizes, 'or')}."
    for columns, levels in _labelled((_column(each["image_size"]), each["levels"]) for each in facts if each["levels"]):
        values = [
            f"{noise} {joined([_level(value, attack=noise in attacks) for value in by_severity.values()])}"
            for noise, by_severity in levels.items()
        ]
        yield f"Values of the severities, by default the {columns}: {'; '.join(values)}."
    networks = _labels(
        f"{name} ({about['class']}, {count(about['parameters'])} parameters)"
        for each in facts
        for name, about in each["networks"].items()
    )
    if networks:
        yield f"Networks: {joined(networks)}."


def _size_words(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels with {counted(channels, 'channel')}"


def _column(shape: Sequence[int]) -> str:
    small = min(shape[1:]) <= SMALL_IMAGE
    return f"published columns for {'small images (CIFAR-C)' if small else 'large images (ImageNet-C)'}"


def _level(value: Any, *, attack: bool) -> str:
    if isinstance(value, list):
        return f"({', '.join(_level(each, attack=attack) for each in value)})"
    steps = 255 * float(value)
    # Sizes of attacks are spoken of in steps of a pixel's 255.
    return f"{steps:.0f}/255" if attack and value < 0.2 and abs(steps - round(steps)) < 1e-6 else f"{value:g}"


def _labelled(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for pair in pairs:
        found += [] if pair in found else [pair]
    return found


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
        yield (
            f"Uniformly random rankings of the segments would score RM = b (1 - b), here {reach}; unrelated maps, "
            "which are smooth, score somewhat more."
        )


def _tested(findings: Findings) -> Iterator[str]:
    yield from _intervals(findings)
    ranked = [model for model in findings.models if model.rank_tests or model.pairs or model.stability]
    kinds = _labels(KINDS[model.ranked_kind].lower() for model in ranked if model.ranked_kind is not None)
    if kinds:
        yield f"Methods were ranked, compared in pairs and ranked anew under other settings on {joined(kinds)}."
    if any(model.rank_tests for model in findings.models):
        yield (
            "Methods were ranked within images by their mean C and mean R and compared by Friedman's test, with "
            "Kendall's W as the size of the effect and Nemenyi's critical difference."
        )
    pairs = [pair for model in findings.models for pair in model.pairs]
    if pairs:
        yield f"Pairs of methods were compared by two-sided tests: {_tests(pairs)}."
    if findings.differences:
        rows = [row for each in findings.differences for row in each.rows]
        on = joined(_labels(KINDS[each.kind].lower() for each in findings.differences))
        yield f"Pairs of models were compared image by image on {on}, by two-sided tests: {_tests(rows)}."
    if findings.mixed:
        on = joined(_labels(KINDS[each.kind].lower() for each in findings.mixed))
        yield (
            f"All models were compared on {on} with a linear mixed model of per-image means with a random intercept of "
            "the image, fitted by REML. Its terms were tested by Hotelling's T squared with a covariance clustered by "
            "image, whose p-value comes from an F distribution."
        )
    yield from findings.multiplicity
    asked = [model.stability for model in findings.models if model.stability is not None]
    settings = _labels(row.label for each in asked for row in each.rows[1:])
    if settings:
        least = _labels(f"{each.least_tau:g}" for each in asked)
        yield (
            f"The ranking of methods was repeated under {joined(settings)} and is called stable if Kendall's tau-b "
            f"with the main setting is at least {joined(least)} everywhere; where it is not, we say whether methods "
            "that are told apart change places or only others."
        )


def _intervals(findings: Findings) -> Iterator[str]:
    """Say which intervals come from where."""
    level = share(findings.confidence).replace(".0%", "%")
    yield (
        f"The {level} intervals of C, R, RM and the flip rate come from a cluster bootstrap that draws images with all "
        f"their pairs ({count(findings.resamples)} resamples). They are bias-corrected and accelerated (BCa), with "
        "quantiles of Student's t and widened for few images; those of their differences are percentile intervals of "
        "the same bootstrap, widened in the same way."
    )
    tests = [pair.test for model in findings.models for pair in model.pairs]
    tests += [row.test for each in findings.differences for row in each.rows]
    means = ["of the differences that go with Wilcoxon's test"] if "Wilcoxon" in tests else []
    means += ["of the changes of classes"] if any(each.classes for each in findings.differences) else []
    means += ["of the marginal means"] if findings.mixed else []
    if means:
        yield f"The intervals {joined(means)} are Student's t intervals of means over images."
    if any(model.stability is not None for model in findings.models):
        yield f"The {level} intervals of Kendall's tau are plain percentiles of the bootstrap."


def _tests(rows: Sequence[PairRow]) -> str:
    words = []
    for test in _labels(row.test for row in rows):
        measures = _labels(row.measure.replace("_", " ") for row in rows if row.test == test)
        words.append(f"{joined(measures)} by {_TESTS.get(test, test)}")
    return "; ".join(words)


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


def named_segmenters(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the segmenters of all readings.

    Args:
        manifests: Of the studies.

    Returns:
        Names, each once.

    Example:
        >>> named_segmenters([{"settings": {"grid": {"reading": {"segmenter": {"name": "slic"}}}}}])
        ['slic']
    """
    grids = [manifest.get("settings", {}).get("grid", {}) for manifest in manifests]
    readings = [each for grid in grids for each in (grid.get("reading", {}), *grid.get("readings", {}).values())]
    return _labels(each["segmenter"]["name"] for each in readings if "name" in each.get("segmenter", {}))


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
            # A reading's rule says nothing where the grid names the class itself.
            elif name not in _NOT_THE_MAIN_SETTING and not (key == "target" and name == "reading"):
                yield from _search(value, key)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _search(value, key)


def _labels(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
