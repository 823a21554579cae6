"""How much scores that remove pixels owe to the way they remove them, for the models of a study."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_camrobust.critique.controls import edge_maps, random_maps
from lightning_camrobust.critique.curves import RemovalSettings, removal_curves
from lightning_camrobust.critique.ranking import STABLE_TAU, RankingTable
from lightning_camrobust.critique.report import DEFAULT_BASELINES, BaselineReport, report_baselines
from lightning_camrobust.critique.scores import BETTER, bootstrap_interval, removal_scores
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.explained import explain
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.members import label_members, resolve_member
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource, spread
from lightning_camrobust.study.measuring import LoadedModel, find_layers, load_model
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.region_maps import RegionMaps, agreement_rows, region_maps
from lightning_camrobust.study.storage import written_whole

BASELINES = "baselines.json"
# Draws random numbers, so that a seed can matter.
_SEEDED = "uniform_noise"
_RISE = "with RISE drawn in other ways"


@dataclass(frozen=True)
class CritiqueSettings:
    """What the critique varies.

    Attributes:
        num_images: Evenly spaced over the data; 0 leaves the critique out. It runs the network about
            ``3 * methods * baselines * steps`` times an image.
        baselines: What takes the place of removed pixels, names or instances; two or more.
        step_counts: Numbers of removal steps; the first is used throughout.
        seeds: Of a baseline of random pixels, and of RISE's masks.
        rise: Whether RISE is drawn as well, with other grids, numbers of masks and shares of shown cells.
        masks: RISE's own number of masks.

    Raises:
        ArgumentError: If there are too few baselines, step counts or seeds.
    """

    num_images: int = 16
    baselines: Sequence[str] = DEFAULT_BASELINES
    step_counts: Sequence[int] = (10, 20)
    seeds: Sequence[int] = (0, 1, 2)
    rise: bool = True
    masks: int = 200

    def __post_init__(self) -> None:
        if self.num_images < 0 or self.masks < 2:
            raise ArgumentError(
                "Critique: `num_images` must be 0 or more and `masks` 2 or more; got "
                f"{self.num_images!r} and {self.masks!r}."
            )
        if len(self.baselines) < 2 or not self.step_counts or not self.seeds:
            raise ArgumentError(
                "Critique: two `baselines`, one of `step_counts` and one of `seeds`, or more, are needed; got "
                f"{len(self.baselines)}, {len(self.step_counts)} and {len(self.seeds)}."
            )
        for each in self.baselines:
            resolve_member("baseline", each)


@dataclass(frozen=True)
class Subject:
    """Whose maps are judged.

    Attributes:
        classify: From pixels ``(n, c, H, W)`` in [0, 1] to probabilities ``(n, k)``.
        pixels: The images.
        classes: Predicted on them, ``(b,)``.
        maps: By method, ``(b, h, w)``.
    """

    classify: Any
    pixels: Tensor
    classes: Tensor
    maps: dict[str, Tensor]


def write_critique(
    folder: str | Path,
    models: Mapping[str, StudyModel],
    images: ImageSource,
    grid: StudyGrid,
    settings: CritiqueSettings,
) -> list[dict[str, Any]]:
    """Judge the maps of every model and layer, and write ``baselines.json``.

    Args:
        folder: Of the study.
        models: By name.
        images: The data set.
        grid: What the study measures: its methods are judged; fewer than two cannot be ranked, and nothing is written.
        settings: What is varied.

    Returns:
        For each model and layer a title, a verdict, tables (title, columns, rows) and notes, as plain data.
    """
    plan = grid.plan()
    found: list[dict[str, Any]] = []
    if settings.num_images and len(plan.methods) > 1:
        chosen = spread(len(images), min(settings.num_images, len(images)))
        batch = [images[position] for position in chosen]
        for name, model in models.items():
            loaded = load_model(model)
            for layer, modules in find_layers(loaded, model, images[0]).items():
                with observe_only(loaded.network):
                    inputs = loaded.inputs(batch)
                    subject = draw_subject(loaded, inputs, modules, plan)
                    regions = draw_regions(loaded, inputs, modules, subject, settings) if settings.rise else None
                    found.append(criticise(subject, settings, title=f"{name}, {layer}", regions=regions))
    with written_whole(Path(folder) / BASELINES) as path:
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def draw_subject(loaded: LoadedModel, inputs: Tensor, layers: Sequence[nn.Module], plan: ProbePlan) -> Subject:
    """Draw the maps of all methods.

    Args:
        loaded: The network.
        inputs: ``(b, c, H, W)``, in the network's units.
        layers: Target layers.
        plan: Its methods are drawn.

    Returns:
        What is judged.
    """
    seen = explain(loaded.network, inputs, plan.methods, layers=layers, fusion=plan.layer_fusion, space=loaded.space)
    pixels = loaded.space.to_pixels(inputs)
    classify = partial(_probabilities, loaded, inputs)
    return Subject(classify, pixels, seen.logits.argmax(dim=1), seen.maps)


def draw_regions(
    loaded: LoadedModel, inputs: Tensor, layers: Sequence[nn.Module], subject: Subject, settings: CritiqueSettings
) -> RegionMaps:
    """Draw RISE's maps with other settings, see :func:`~lightning_camrobust.study.region_maps.region_maps`."""
    return region_maps(
        lambda methods: (
            explain(loaded.network, inputs, methods, layers=layers, classes=subject.classes, space=loaded.space).maps
        ),
        masks=settings.masks,
        seeds=settings.seeds,
        baselines=settings.baselines,
    )


def criticise(
    subject: Subject, settings: CritiqueSettings, *, title: str, regions: RegionMaps | None = None
) -> dict[str, Any]:
    """Judge maps by removal of pixels, in every way.

    Args:
        subject: What is judged; two methods or more.
        settings: What is varied.
        title: Of the result.
        regions: RISE's maps with other settings, if they are to be judged as well.

    Returns:
        Plain data: title, verdict, tables, notes.
    """
    judge = partial(report_baselines, subject.classify, subject.pixels, subject.maps, subject.classes)
    report = judge(baselines=settings.baselines, step_counts=settings.step_counts)
    tables = {"by baseline": report.by_baseline, "by number of steps": report.by_steps}
    if len(settings.seeds) > 1:
        seeded = judge(baselines=(_SEEDED, "grey"), step_counts=settings.step_counts[:1], seeds=settings.seeds)
        tables[f"by seed of {_SEEDED}"] = seeded.by_seed
    if regions is not None:
        tables[_RISE] = _region_ranking(subject, settings, regions)
    known = {name: table for name, table in tables.items() if table is not None}
    return {
        "title": f"{title}, {len(subject.pixels)} images",
        "verdict": [_verdict(name, table) for name, table in known.items()],
        "tables": [
            _facts(report),
            *(_as_table(name, table) for name, table in known.items()),
            _controls(subject, settings),
            *([] if regions is None else [agreement_rows(regions)]),
        ],
        "notes": [
            "Deletion and insertion are areas under curves of the predicted class's probability; aopc is that of MoRF; "
            "symmetric is LeRF minus MoRF; fidelity + artefact = f(x) - MoRF at every step.",
            f"A ranking counts as stable if no Kendall tau between two ways of measuring is below {STABLE_TAU}.",
        ],
    }


def _probabilities(loaded: LoadedModel, like: Tensor, pixels: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(each, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)
        for each in (loaded.space.mean, loaded.space.std)
    )
    logits: Tensor = loaded.network(((pixels - mean) / std).to(like.dtype))
    return logits.float().softmax(dim=1)


def _verdict(name: str, table: RankingTable) -> str:
    unstable = [metric for metric, stable in table.stable_metrics.items() if not stable]
    if not unstable:
        return f"Ranking of methods {name}: stable for {', '.join(table.metrics)}."
    taus = ", ".join(f"{metric} (least tau {_least(table, metric):.2f})" for metric in unstable)
    return f"Ranking of methods {name}: unstable for {taus}."


def _least(table: RankingTable, metric: str) -> float:
    tau = table.tau[table.metrics.index(metric)]
    return float("nan") if bool(tau.isnan().any()) else float(tau.min())


def _as_table(name: str, table: RankingTable) -> dict[str, Any]:
    rows = [
        [metric, method, *map(_number, values), _number(float(spread))]
        for metric, scores, spreads in zip(table.metrics, table.scores, table.spread, strict=True)
        for method, values, spread in zip(table.methods, scores.tolist(), spreads, strict=True)
        # The other methods' scores do not change with RISE's settings; they stand in the table before.
        if name != _RISE or method == "rise"
    ]
    return {"title": f"Scores {name}", "columns": ["score", "method", *table.variants, "spread"], "rows": rows}


def _facts(report: BaselineReport) -> dict[str, Any]:
    rows = [
        [
            each.name,
            " ".join(f"{value:.3f}" for value in each.colour),
            *map(_number, (each.most_likely, each.own_class, each.divergence, each.artefact)),
        ]
        for each in report.facts
    ]
    columns = ["baseline", "mean colour", "largest p", "p of the class", "KL to uniform (nats)", "mean artefact"]
    return {"title": "How neutral each baseline is", "columns": columns, "rows": rows}


def _controls(subject: Subject, settings: CritiqueSettings) -> dict[str, Any]:
    """Fidelity and artefact of all methods beside maps that know nothing of the network."""
    controls = {"random order": random_maps(subject.pixels), "edges of the picture": edge_maps(subject.pixels)}
    how = RemovalSettings(settings.baselines[0], settings.step_counts[0])
    rows = []
    for name, maps in (*subject.maps.items(), *controls.items()):
        scores = removal_scores(removal_curves(subject.classify, subject.pixels, maps, subject.classes, settings=how))
        known = [bootstrap_interval(scores[metric]) for metric in ("fidelity", "artefact")]
        rows.append([name, *(_number(value) for interval in known for value in interval)])
    (label,) = label_members([resolve_member("baseline", settings.baselines[0])])
    return {
        "title": f"Against controls, baseline {label}, {settings.step_counts[0]} steps, with 95% intervals",
        "columns": ["map", "fidelity", "low", "high", "artefact", "artefact low", "artefact high"],
        "rows": rows,
    }


def _region_ranking(subject: Subject, settings: CritiqueSettings, regions: RegionMaps) -> RankingTable:
    """Score all methods, RISE among them, once for each way to draw RISE."""
    how = RemovalSettings(settings.baselines[0], settings.step_counts[0])

    def score(maps: Tensor) -> Iterator[float]:
        scores = removal_scores(removal_curves(subject.classify, subject.pixels, maps, subject.classes, settings=how))
        return (float(scores[metric].nanmean()) for metric in BETTER)

    fixed = [list(score(maps)) for maps in subject.maps.values()]
    variants = torch.tensor([list(score(maps)) for maps in regions.maps.values()], dtype=torch.float64)
    others = torch.tensor(fixed, dtype=torch.float64).T[:, :, None].expand(-1, -1, len(variants))
    scores = torch.cat([others, variants.T[:, None]], dim=1)
    return RankingTable(tuple(BETTER), (*subject.maps, "rise"), tuple(regions.maps), scores)


def _number(value: float) -> float | None:
    return value if value == value else None
