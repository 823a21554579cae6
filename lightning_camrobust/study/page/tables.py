"""All numbers of a study as tidy tables: one CSV file a table, full precision, undefined as an empty cell."""

import csv
import io
import json
import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from lightning_camrobust.study.findings import Estimate, Findings, ModelFindings

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table on its way to a file.

    Attributes:
        name: Of the file, without ``.csv``.
        columns: Names.
        rows: Cells, in the order of the columns.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_csv(self) -> str:
        """Write the table: a header, then one line a row; floats with as many digits as bring the same one back.

        Example:
            >>> Table("t", ("name", "value"), (("a", 0.1), ("b", float("nan")))).as_csv().splitlines()
            ['name,value', 'a,0.1', 'b,']
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return text.getvalue()


def make_tables(findings: Findings) -> tuple[Table, ...]:
    """Lay out the findings as tables; those without a row are left out.

    Args:
        findings: Of a study.

    Returns:
        Tables named ``models``, ``scores``, ``pairs``, ``rank_tests``, ``mean_ranks``, ``settings``,
        ``setting_scores``, ``mixed_terms``, ``mixed_means``, ``differences``, ``class_changes``, ``image_changes`` and
        ``baselines_<study>_<table>``. An estimate takes three columns: its name, ``<name>_low`` and ``<name>_high``.

    Example:
        >>> make_tables(Findings("A study", verdict=(), models=()))
        ()
    """
    per_model = (_models, _scores, _pairs, _rank_tests, _mean_ranks, _settings, _setting_scores)
    made = [_table(make.__name__.strip("_"), make(findings)) for make in per_model]
    made += [_table(name, rows) for name, rows in (*_mixed(findings), *_differences(findings))]
    return tuple(table for table in (*made, *_baselines(findings)) if table.rows)


def _models(findings: Findings) -> list[Row]:
    return [
        {**_who(model), "num_images": model.num_images, "accuracy": model.accuracy, "seconds": model.seconds}
        for model in findings.models
    ]


def _scores(findings: Findings) -> list[Row]:
    return [
        {**_who(model), "images": images, **_flat(row)}
        for model in findings.models
        for images, rows in (("all", model.scores), ("correctly classified", model.correct_scores))
        for row in rows
    ]


def _pairs(findings: Findings) -> list[Row]:
    return [{**_ranked(model), **_flat(row)} for model in findings.models for row in model.pairs]


def _rank_tests(findings: Findings) -> list[Row]:
    return [
        {**_ranked(model), **_flat(test, leave_out=("methods", "mean_ranks"))}
        for model in findings.models
        for test in model.rank_tests
    ]


def _mean_ranks(findings: Findings) -> list[Row]:
    return [
        {**_ranked(model), "measure": test.measure, "method": method, "mean_rank": rank}
        for model in findings.models
        for test in model.rank_tests
        for method, rank in zip(test.methods, test.mean_ranks, strict=True)
    ]


def _settings(findings: Findings) -> list[Row]:
    return [
        {**_ranked(model), **_flat(row, leave_out=("robustness",)), "least_tau": model.stability.least_tau}
        for model in findings.models
        if model.stability is not None
        for row in model.stability.rows
    ]


def _setting_scores(findings: Findings) -> list[Row]:
    return [
        {**_ranked(model), "label": row.label, "method": method, "robustness": value}
        for model in findings.models
        if model.stability is not None
        for row in model.stability.rows
        for method, value in zip(model.stability.methods, row.robustness, strict=True)
    ]


def _mixed(findings: Findings) -> Iterable[tuple[str, list[Row]]]:
    fits = list(enumerate(findings.mixed, start=1))
    about = ("measure", "kind", "image_share", "num_images", "num_values")
    yield (
        "mixed_terms",
        [
            {"fit": place, **{name: getattr(fit, name) for name in about}, **_flat(row), "f_value": row.f_value}
            for place, fit in fits
            for row in fit.rows
        ],
    )
    yield (
        "mixed_means",
        [
            {
                **{"fit": place, "measure": fit.measure, "kind": fit.kind, "model": model, "method": method},
                **_estimate("mean", mean),
            }
            for place, fit in fits
            for (model, method), mean in fit.means.items()
        ],
    )


def _differences(findings: Findings) -> Iterable[tuple[str, list[Row]]]:
    compared = [
        (each, {"first_model": each.first, "second_model": each.second, "method": each.method, "kind": each.kind})
        for each in findings.differences
    ]
    # A row repeats the names of both models; its difference is second minus first, unlike that of two methods.
    again = ("first", "second")
    yield "differences", [{**who, **_flat(row, leave_out=again)} for each, who in compared for row in each.rows]
    yield "class_changes", [{**who, **_flat(row)} for each, who in compared for row in each.classes]
    yield (
        "image_changes",
        [
            {**who, "group": group, **_flat(row)}
            for each, who in compared
            for group, rows in (("worse", each.worse), ("better", each.better))
            for row in rows
        ],
    )


def _baselines(findings: Findings) -> Iterable[Table]:
    for place, study in enumerate(findings.baselines, start=1):
        tables: Any = study.get("tables") or ()
        for number, table in enumerate(tables, start=1):
            rows = tuple(tuple(row) for row in table["rows"])
            yield Table(f"baselines_{place}_{number}", tuple(map(str, table["columns"])), rows)


def _table(name: str, rows: list[Row]) -> Table:
    return Table(name, tuple(rows[0]) if rows else (), tuple(tuple(row.values()) for row in rows))


def _who(model: ModelFindings) -> Row:
    return {"model": model.model, "target_layer": model.target_layer, "data": model.data}


def _ranked(model: ModelFindings) -> Row:
    """Name a model, and the kind of noise that its methods are compared on."""
    return {**_who(model), "kind": model.ranked_kind}


def _flat(record: Any, leave_out: tuple[str, ...] = ()) -> Row:
    row: Row = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name in leave_out:
            continue
        row |= _estimate(each.name, value) if isinstance(value, Estimate) else {each.name: value}
    return row


def _estimate(name: str, estimate: Estimate) -> Row:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    return json.dumps(value, ensure_ascii=False)
