"""The sections of the page, in order; a section without content is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_camrobust.study.findings import Findings, MixedComparison, ModelFindings, RankTest, ScoreRow
from lightning_camrobust.study.outcomes import Kind
from lightning_camrobust.study.page.citation import bibliography
from lightning_camrobust.study.page.illustrations import group_differences
from lightning_camrobust.study.page.methods_text import methods_paragraphs, named_segmenters
from lightning_camrobust.study.page.pictures import Picture
from lightning_camrobust.study.page.sentences import KINDS, friedman_words, pooled_rows, undefined_reason
from lightning_camrobust.study.page.texts import anything
from lightning_camrobust.study.wording import told_apart

LONGEST = 400
_ABOUT: dict[Kind, str] = {
    "photometric": "The object stays where it is, so a map should stay too as long as the prediction does.",
    "geometric": "The object moves, and a map that follows it is right to move: low consistency is no fault by itself.",
    "attack": "Made with the network's own gradients to change the prediction, so few pairs keep their class.",
    "gradient": "Not the image is disturbed but the gradient that a CAM method sees.",
}


@dataclass(frozen=True)
class Drawing:
    """A figure as the page takes it.

    Attributes:
        group: What it shows.
        place: Which model, fit or comparison it belongs to.
        caption: Below it.
        svg: The element, safe to be put into the page as it is.
        narrow: The same for phones, or empty.
    """

    group: str
    place: int
    caption: str
    svg: Any
    narrow: Any = ""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        anchor: Its id.
        title: Its heading.
        template: File that writes it.
        content: What the template shows.
    """

    anchor: str
    title: str
    template: str
    content: Mapping[str, Any]


def make_sections(findings: Findings, drawings: Sequence[Drawing], pictures: Sequence[Picture]) -> tuple[Section, ...]:
    """Lay out the page.

    Args:
        findings: Of a study.
        drawings: Figures.
        pictures: Of the gallery.

    Returns:
        Sections that have content, in the order of the page.
    """
    sections: list[Section | None] = [_scores(findings, kind) for kind in KINDS]
    sections += [
        _figures("forest", "Scores side by side", findings, drawings),
        _figures("severity", "Robustness by severity", findings, drawings),
        _figures("heatmap", "Methods by noise", findings, drawings),
        _ranks(findings, drawings),
        _pairs(findings),
        _settings(findings, drawings),
        _mixed(findings, drawings),
        _differences(findings, drawings),
        _section("baselines", "Critique of baselines", studies=[_study(each) for each in findings.baselines]),
        _section("gallery", "Most and least stable images", pictures=pictures),
        _section("methods", "Methods, ready to paste", paragraphs=methods_paragraphs(findings)),
        _section("citation", "BibTeX", bibtex=_bibtex(findings)),
        _reproducing(findings),
    ]
    return tuple(section for section in sections if section is not None)


def model_name(model: ModelFindings, models: Sequence[ModelFindings]) -> str:
    """Name a model, with its layer or data where the name alone does not tell it apart.

    Args:
        model: One of ``models``.
        models: All.

    Returns:
        Its name on the page.
    """
    alike = [each for each in models if each.model == model.model]
    parts = [model.model]
    if len({each.data for each in alike}) > 1:
        parts.append(f"on {model.data}")
    if len({each.target_layer for each in alike}) > 1:
        parts.append(f"at {model.target_layer}")
    return " ".join(parts)


def manifest_rows(manifest: Mapping[str, object]) -> list[tuple[str, str]]:
    """Write a nested manifest as lines of a name and a value.

    Args:
        manifest: Plain data.

    Returns:
        Names joined by dots, with values as text; a long list is cut, and says so.

    Example:
        >>> manifest_rows({"seed": 0, "versions": {"torch": "2.4"}, "severities": [1, 3]})
        [('seed', '0'), ('versions.torch', '2.4'), ('severities', '1, 3')]
    """
    return _flattened(manifest, "")


def _section(anchor: str, title: str, **content: Any) -> Section | None:
    return Section(anchor, title, f"{anchor}.html.jinja", content) if any(content.values()) else None


def _scores(findings: Findings, kind: Kind) -> Section | None:
    models = []
    for model in findings.models:
        rows = [row for row in model.scores if row.kind == kind]
        if rows:
            models.append(
                {
                    "name": model_name(model, findings.models),
                    "caption": f"{_noises(rows)}; highest robustness first",
                    "pooled": pooled_rows(rows, kind),
                    "best": best_methods(model, kind),
                    "by_noise": _by_noise(rows),
                    "correct": pooled_rows(model.correct_scores, kind),
                }
            )
    content = {"about": _ABOUT[kind], "models": models}
    return Section(f"scores-{kind}", KINDS[kind], "scores.html.jinja", content) if models else None


def best_methods(model: ModelFindings, kind: Kind) -> tuple[str, ...]:
    """Name the methods that stand out: the highest robustness, and all that are not told apart from it.

    Args:
        model: Findings.
        kind: Of the noises.

    Returns:
        Labels; none where methods were not compared in pairs, as on other kinds of noise than the ranked one.
    """
    compared = [pair for pair in model.pairs if pair.measure == "robustness"]
    defined = [row.method for row in pooled_rows(model.scores, kind) if not undefined_reason(row)]
    if kind != model.ranked_kind or not compared or not defined:
        return ()
    apart = {frozenset((pair.first, pair.second)) for pair in compared if told_apart(pair)}
    return tuple(method for method in defined if frozenset((defined[0], method)) not in apart)


def _noises(rows: Sequence[ScoreRow]) -> str:
    names = dict.fromkeys(row.perturbation for row in rows if row.perturbation)
    return (
        f"Pooled over {len(names)} perturbations and all severities"
        if len(names) > 1
        else "".join(map(str, names)) or "Pooled"
    )


def _by_noise(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    single = [row for row in rows if row.perturbation is not None and row.severity is None]
    return (
        sorted(single, key=lambda row: str(row.perturbation)) if len({row.perturbation for row in single}) > 1 else []
    )


def _figures(group: str, title: str, findings: Findings, drawings: Sequence[Drawing]) -> Section | None:
    models = [
        (model_name(model, findings.models), found)
        for place, model in enumerate(findings.models)
        if (found := _drawn(drawings, group, place))
    ]
    return Section(group, title, "figures.html.jinja", {"about": "", "models": models}) if models else None


def _ranks(findings: Findings, drawings: Sequence[Drawing]) -> Section | None:
    models = [
        {
            "name": model_name(model, findings.models),
            "noises": _ranked_noises(model),
            "tests": [
                {
                    "measure": test.measure,
                    "words": friedman_words(test),
                    "ranks": _ranked(test),
                    "figures": _drawn(drawings, f"ranks_{test.measure}", place),
                }
                for test in model.rank_tests
            ],
        }
        for place, model in enumerate(findings.models)
        if model.rank_tests
    ]
    return _section("ranks", "Ranks of methods", models=models)


def _ranked_noises(model: ModelFindings) -> str:
    return "no noises" if model.ranked_kind is None else KINDS[model.ranked_kind].lower()


def _ranked(test: RankTest) -> list[tuple[str, float]]:
    return sorted(zip(test.methods, test.mean_ranks, strict=True), key=lambda pair: pair[1])


def _pairs(findings: Findings) -> Section | None:
    models: list[dict[str, Any]] = []
    for model in findings.models:
        measures = dict.fromkeys(pair.measure for pair in model.pairs)
        grouped = [(measure, [pair for pair in model.pairs if pair.measure == measure]) for measure in measures]
        if grouped:
            name = model_name(model, findings.models)
            models.append({"name": name, "noises": _ranked_noises(model), "measures": grouped})
    content = {"models": models, "multiplicity": findings.multiplicity}
    return Section("pairs", "Methods in pairs", "pairs.html.jinja", content) if models else None


def _settings(findings: Findings, drawings: Sequence[Drawing]) -> Section | None:
    models = [
        {
            "name": model_name(model, findings.models),
            "noises": _ranked_noises(model),
            "stability": model.stability,
            "figures": _drawn(drawings, "settings", place),
        }
        for place, model in enumerate(findings.models)
        if model.stability is not None
    ]
    return _section("settings", "Does the conclusion survive other settings?", models=models)


def _mixed(findings: Findings, drawings: Sequence[Drawing]) -> Section | None:
    fits = [
        {"fit": fit, "noises": KINDS[fit.kind].lower(), "figures": _drawn(drawings, "mixed", place), **_mean_table(fit)}
        for place, fit in enumerate(findings.mixed)
    ]
    return _section("mixed", "All models together", fits=fits)


def _mean_table(fit: MixedComparison) -> dict[str, Any]:
    models = list(dict.fromkeys(model for model, _ in fit.means))
    methods = dict.fromkeys(method for _, method in fit.means)
    return {
        "models": models,
        "means": [(method, [fit.means.get((model, method)) for model in models]) for method in methods],
    }


def _differences(findings: Findings, drawings: Sequence[Drawing]) -> Section | None:
    groups = [
        {
            "name": f"{group[0].second} against {group[0].first}, {KINDS[group[0].kind].lower()}",
            "differences": group,
            "figures": _drawn(drawings, "difference", place),
        }
        for place, group in enumerate(group_differences(findings.differences))
    ]
    return _section("differences", "Models compared", groups=groups, notes=findings.notes)


def _study(study: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a critique leaves out, so that the page has a place for all that it says."""
    sentences = {name: _as_list(study.get(name)) for name in ("verdict", "notes")}
    return {"title": study.get("title") or "", "tables": study.get("tables") or [], **sentences}


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


def _bibtex(findings: Findings) -> str:
    rows = [row for model in findings.models for row in model.scores]
    methods = dict.fromkeys(row.method for row in rows)
    perturbations = dict.fromkeys(row.perturbation for row in rows if row.perturbation)
    cut, critique = named_segmenters(findings.manifests), bool(findings.baselines)
    return bibliography(methods, perturbations, segmenters=cut, critique=critique) if rows else ""


def _reproducing(findings: Findings) -> Section | None:
    manifests = [manifest_rows(manifest) for manifest in findings.manifests]
    return _section("reproducing", "Reproducing it", runs=findings.models, manifests=manifests)


def _drawn(drawings: Sequence[Drawing], group: str, place: int) -> list[Drawing]:
    return [each for each in drawings if each.group == group and each.place == place]


def _flattened(node: object, name: str) -> list[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        return [
            line for key, value in node.items() for line in _flattened(value, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(node, list | tuple) and any(isinstance(each, Mapping) for each in node):
        return [line for place, value in enumerate(node, 1) for line in _flattened(value, f"{name}[{place}]")]
    text = anything(None if node == {} else node)
    cut = len(text) - LONGEST
    return [(name, text if cut <= 0 else f"{text[:LONGEST]} … ({cut} more characters in manifest.json)")]
