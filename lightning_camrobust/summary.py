"""From the comparisons of one validation run to a report in plain data, and to the numbers that are logged."""

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import torch

from lightning_camrobust.stability import StabilitySums, sum_up
from lightning_camrobust.types import Comparison

Report = dict[str, Any]
Key = TypeVar("Key")
# What a report has beside its headline; of past runs the headline alone is kept.
TABLES = ("cells", "pooled", "by_kind", "per_image")
# Below this many pairs in a set its mean says little; the report flags it.
LOW_SUPPORT = 30


def make_report(
    comparison: Comparison, cells: Sequence[tuple[str, str, int]], *, geometric: Collection[str] = ()
) -> Report:
    """Sum a run up.

    Args:
        comparison: Fields ``(images, cells)``.
        cells: Method, perturbation and severity of each cell.
        geometric: Perturbations that move the object, so that a map that follows it is right.

    Returns:
        Plain data, None where a score is undefined: ``num_images``; ``cells``, one row a cell; ``pooled``, one row a
        method, pooled over perturbations and severities; ``by_kind``, the same with photometric and geometric
        perturbations apart; ``per_image``, see :func:`per_image_similarity`; and the headline of the first method at
        the top level (``robustness`` and so on by the vacuous rule: an empty set counts as 1).

    Example:
        >>> yes = torch.tensor([[True]])
        >>> comparison = Comparison(torch.tensor([[0.5]]), same_class=yes, rankable=yes)
        >>> report = make_report(comparison, [("gradcam", "gaussian_noise", 1)])
        >>> report["robustness"], report["pooled"][0]["robustness"], report["flip_rate"]
        (0.5, None, 0.0)
    """
    methods = [method for method, _, _ in cells]
    pooled = [{"method": method, **row} for method, row in pooled_rows(comparison, methods).items()]
    rows = [
        {"method": method, "perturbation": noise, "severity": severity, "geometric": noise in geometric, **row}
        for (method, noise, severity), row in pooled_rows(comparison, cells).items()
    ]
    kinds = pooled_rows(comparison, [(method, noise in geometric) for method, noise, _ in cells])
    by_kind = [{"method": method, "geometric": moves, **row} for (method, moves), row in kinds.items()]
    first = _select(sum_up(comparison), [method == methods[0] for method in methods]).pooled()
    of_first = [index for index, method in enumerate(methods) if method == methods[0]]
    tables: Report = {"pooled": pooled, "by_kind": by_kind, "cells": rows}
    tables["per_image"] = per_image_similarity(comparison, of_first)
    return {"num_images": len(comparison.similarity), **_headline(first), **tables}


def per_image_similarity(comparison: Comparison, cells: Sequence[int]) -> dict[str, list[float | None]]:
    """Average the similarity of each image's maps, apart for noisy copies with the same and with another prediction.

    Args:
        comparison: Fields ``(images, cells)``.
        cells: Which cells to take.

    Returns:
        ``kept`` and ``changed``, one number an image in the order of the data; None where an image has no such pair.

    Example:
        >>> yes = torch.tensor([[True, True]])
        >>> comparison = Comparison(torch.tensor([[0.5, 1.0]]), same_class=yes, rankable=yes)
        >>> per_image_similarity(comparison, [0, 1])
        {'kept': [0.75], 'changed': [None]}
    """
    index = list(cells)
    similarity, same = comparison.similarity[:, index].double(), comparison.same_class[:, index]
    rankable = comparison.rankable[:, index]
    found: dict[str, list[float | None]] = {}
    for name, pairs in (("kept", rankable & same), ("changed", rankable & ~same)):
        mean = torch.where(pairs, similarity, 0.0).sum(dim=1) / pairs.sum(dim=1)
        found[name] = [_plain(each) for each in mean]
    return found


def pooled_rows(comparison: Comparison, keys: Sequence[Key]) -> dict[Key, Report]:
    """Pool the cells that share a key.

    Args:
        comparison: Fields ``(images, cells)``.
        keys: One a cell.

    Returns:
        For each key, in the order of their first cells, scores (None where undefined) and the counts they rest on.

    Example:
        >>> yes = torch.tensor([[True, True]])
        >>> comparison = Comparison(torch.tensor([[0.5, 1.0]]), same_class=yes, rankable=yes)
        >>> pooled_rows(comparison, ["a", "a"])["a"]["consistency"]
        0.75
    """
    sums = sum_up(comparison)
    return {key: _row(_select(sums, [each == key for each in keys]).pooled()) for key in dict.fromkeys(keys)}


def headline_keys(stage: str, name: str) -> list[str]:
    """Name the keys of the scores that a run is summed up by.

    Args:
        stage: ``"val"`` or ``"test"``.
        name: Of the callback.

    Returns:
        Log keys.

    Example:
        >>> headline_keys("val", "cam")[0]
        'val_cam_robustness'
    """
    return [f"{stage}_{name}_{score}" for score in _SCORES]


def scores_to_log(report: Report, *, stage: str, name: str) -> dict[str, float]:
    """Choose what is logged.

    Args:
        report: From :func:`make_report`, with ``seconds``.
        stage: ``"val"`` or ``"test"``, in front of the headline's keys; other keys begin with it in a test only.
        name: Tells several callbacks apart, ``"cam"`` by default.

    Returns:
        Finite numbers by log key. What is undefined even by the vacuous rule (no scored pair) is left out.

    Example:
        >>> report = {"robustness": 0.5, "flip_rate": None, "num_images": 2, "cells": []}
        >>> scores_to_log(report, stage="val", name="cam")
        {'val_cam_robustness': 0.5, 'val_cam_num_images': 2.0}
    """
    logged = {
        f"{stage}_{name}_{key}": report[key]
        for key in (*_SCORES, "num_images", "seconds")
        if report.get(key) is not None
    }
    for row in report["cells"]:
        where = f"{row['method']}/{row['perturbation']}/{row['severity']}"
        for key, value in (
            ("robustness", row["robustness_vacuous"]),
            ("consistency", row["consistency_vacuous"]),
            ("flip_rate", row["flip_rate"]),
        ):
            if value is not None:
                logged[f"{breakdown_prefix(stage)}{name}_{key}/{where}"] = value
    return {key: float(value) for key, value in logged.items()}


def breakdown_prefix(stage: str) -> str:
    """Say what keys begin with that break a run down: scores of single cells, pictures, histograms, texts.

    Args:
        stage: ``"val"`` or ``"test"``.

    Returns:
        Nothing for validations, so that a test does not carry on their curves.

    Example:
        >>> breakdown_prefix("val"), breakdown_prefix("test")
        ('', 'test_')
    """
    return "" if stage == "val" else f"{stage}_"


_SCORES = ("robustness", "consistency", "responsiveness", "flip_rate", "degenerate_rate")


def _select(sums: StabilitySums, chosen: list[bool]) -> StabilitySums:
    index = torch.tensor(chosen)
    return StabilitySums(
        sums.same_similarity[index],
        sums.same_count[index],
        sums.changed_dissimilarity[index],
        sums.changed_count[index],
        sums.degenerate_count[index],
    )


def _headline(sums: StabilitySums) -> Report:
    return {
        "robustness": _plain(sums.robustness("vacuous")),
        "consistency": _plain(sums.consistency("vacuous")),
        "responsiveness": _plain(sums.responsiveness("vacuous")),
        "flip_rate": _plain(sums.flip_rate()),
        "degenerate_rate": _plain(sums.degenerate_rate()),
    }


def _row(sums: StabilitySums) -> Report:
    same, changed = int(sums.same_count), int(sums.changed_count)
    return {
        "robustness": _plain(sums.robustness()),
        "consistency": _plain(sums.consistency()),
        "responsiveness": _plain(sums.responsiveness()),
        "robustness_vacuous": _plain(sums.robustness("vacuous")),
        "consistency_vacuous": _plain(sums.consistency("vacuous")),
        "flip_rate": _plain(sums.flip_rate()),
        "degenerate_rate": _plain(sums.degenerate_rate()),
        "same_count": same,
        "changed_count": changed,
        "degenerate_count": int(sums.degenerate_count),
        "low_support": min(same, changed) < LOW_SUPPORT,
    }


def _plain(value: torch.Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
