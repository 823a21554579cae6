"""How much scores that remove pixels owe to the way they remove them: tables and verdicts on given maps."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.critique.controls import edge_maps, random_maps
from lightning_camrobust.critique.curves import RemovalSettings, removal_curves
from lightning_camrobust.critique.ranking import STABLE_TAU, RankingTable
from lightning_camrobust.critique.report import BaselineReport, report_baselines
from lightning_camrobust.critique.scores import BETTER, bootstrap_interval, removal_scores
from lightning_camrobust.members import label_members, resolve_member
from lightning_camrobust.study.critique_settings import CritiqueSettings, Subject
from lightning_camrobust.study.region_maps import RegionMaps, agreement_rows

# Draws random numbers, so that a seed can matter.
_SEEDED = "uniform_noise"
_RISE = "with RISE drawn in other ways"


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

    Example:
        >>> bright = lambda pixels: torch.stack([1 - pixels.mean(dim=(1, 2, 3)), pixels.mean(dim=(1, 2, 3))], dim=1)
        >>> image = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> subject = Subject(bright, image, torch.ones(2).long(), {"light": image[:, 0], "dark": 1 - image[:, 0]})
        >>> settings = CritiqueSettings(baselines=("black", "grey"), step_counts=(4,), seeds=(0,))
        >>> criticise(subject, settings, title="net, layer4")["title"]
        'net, layer4, 2 images'
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


def _verdict(name: str, table: RankingTable) -> str:
    unstable = [metric for metric, stable in table.stable_metrics.items() if not stable]
    if not unstable:
        return f"Ranking of methods {name}: stable for {', '.join(table.metrics)}."
    taus = ", ".join(f"{metric} ({_least(table, metric)})" for metric in unstable)
    return f"Ranking of methods {name}: unstable for {taus}."


def _least(table: RankingTable, metric: str) -> str:
    tau = table.tau[table.metrics.index(metric)]
    return "a tau is undefined" if bool(tau.isnan().any()) else f"least tau {float(tau.min()):.2f}"


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
    """Score all methods, RISE among them, once for each way to draw RISE, on the images that all have a map of."""
    how = RemovalSettings(settings.baselines[0], settings.step_counts[0])

    def score(maps: Tensor) -> Tensor:
        scores = removal_scores(removal_curves(subject.classify, subject.pixels, maps, subject.classes, settings=how))
        return torch.stack([scores[metric] for metric in BETTER])

    each = torch.stack([score(maps) for maps in (*subject.maps.values(), *regions.maps.values())], dim=1)
    means = each[:, :, ~each.isnan().any(dim=1).any(dim=0)].mean(dim=2).cpu()
    fixed, variants = means[:, : len(subject.maps)], means[:, len(subject.maps) :]
    # The other methods' maps do not change with RISE's settings.
    scores = torch.cat([fixed[:, :, None].expand(-1, -1, variants.shape[1]), variants[:, None]], dim=1)
    return RankingTable(tuple(BETTER), (*subject.maps, "rise"), tuple(regions.maps), scores)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
