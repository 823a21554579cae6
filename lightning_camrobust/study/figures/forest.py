"""Scores of all methods with their intervals, below each other."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.points import (
    FLOOR_DASH,
    MEASURES,
    draw_points,
    floor_entry,
    in_words,
    is_thin,
    joint_limits,
    low_support_entry,
)
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Entry, Heading, Sheet, new_sheet, text_width
from lightning_camrobust.study.figures.style import WIDE, Palette, own_settings
from lightning_camrobust.study.findings import Estimate, ModelFindings, ScoreRow
from lightning_camrobust.study.outcomes import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("robustness", "consistency", "responsiveness")
# Points: of a line, of the name above a panel, of the tick labels below, of a value at the right.
ROW, ABOVE, BELOW, VALUE = 15.0, 16.0, 20.0, 26.0


@own_settings()
def draw_forest(model: ModelFindings, *, kind: Kind, palette: Palette, width: float = WIDE) -> "Figure":
    """Draw RM, C and R of each method, pooled over all noises of a kind, the most robust method first.

    Args:
        model: Whose scores.
        kind: Of the noises.
        palette: Colours, with all methods of the report.
        width: In inches; the three panels stand below each other where it is small.

    Returns:
        The figure.

    Raises:
        ArgumentError: If there are no pooled scores of this kind.
    """
    pooled = [row for row in model.scores if row.kind == kind and row.perturbation is None and row.severity is None]
    if not pooled:
        raise ArgumentError(
            f"draw_forest: `model` must have pooled scores for kind {kind!r}, {model.model!r} has none. "
            f"Draw a kind that it was measured on: {sorted({row.kind for row in model.scores})}."
        )
    rows = sorted(pooled, key=lambda row: (math.isnan(row.robustness.value), -row.robustness.value))
    names = max(text_width(row.method, LABEL) for row in rows) + 10
    stacked = width * 72 < names + 3 * 110
    panel = ABOVE + ROW * len(rows) + BELOW
    heading = Heading(
        title=f"Scores under {kind} noise: {model.model}",
        subtitle=f"{model.target_layer}, {model.data}, {model.num_images} images; pooled over all {kind} noises. "
        "Whiskers are confidence intervals.",
        description=" ".join(_sentence(row) for row in rows),
        key=_key(rows, palette),
    )
    sheet = new_sheet(heading, palette=palette, width=width, body=panel * (len(SHOWN) if stacked else 1))
    across = sheet.width - names if stacked else (sheet.width - names) / len(SHOWN)
    for index, measure in enumerate(SHOWN):
        top = sheet.top + (index * panel if stacked else 0)
        if stacked or index == 0:
            for line, row in enumerate(rows):
                sheet.text(1, top + ABOVE + ROW * (line + 0.5) + 3, row.method)
        _draw_panel(sheet, rows, measure, left=names + (0 if stacked else index * across), top=top, across=across)
    return sheet.figure


def _draw_panel(
    sheet: Sheet, rows: Sequence[ScoreRow], measure: str, *, left: float, top: float, across: float
) -> None:
    palette = sheet.palette
    axes = sheet.panel(left, top + ABOVE, across - VALUE - 8, ROW * len(rows))
    axes.set_title(MEASURES[measure], fontsize=LABEL, color=palette.ink, loc="left", pad=4)
    estimates: list[Estimate] = [getattr(row, measure) for row in rows]
    floors = [row.chance_floor for row in rows] if measure == "robustness" else []
    known = [Estimate(floor, floor, floor) for floor in floors]
    limits = joint_limits([*estimates, *known], least=0.0 if measure == "robustness" else None)
    axes.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), yticks=[], autoscale_on=False)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color=palette.grid, linewidth=0.6)
    if not all(math.isnan(floor) for floor in floors):
        x = [floor for floor in floors for _ in range(2)]
        y = [line + side for line in range(len(rows)) for side in (-0.5, 0.5)]
        axes.plot(x, y, color=palette.muted, linestyle=FLOOR_DASH, linewidth=1.0, label="_floor", zorder=1)
    for line, (row, estimate) in enumerate(zip(rows, estimates, strict=True)):
        draw_points(
            axes,
            [line],
            [estimate],
            hollow=[is_thin(row, measure)],
            look=palette.look(row.method),
            surface=palette.surface,
            name=row.method,
            size=6.0,
        )
        middle = top + ABOVE + ROW * (line + 0.5) + 3
        sheet.text(left + across - 8, middle, in_words(estimate.value, digits=3), fontsize=SMALL, ha="right")


def _key(rows: Sequence[ScoreRow], palette: Palette) -> list[Entry]:
    support = [low_support_entry(palette)] if any(is_thin(row, measure) for row in rows for measure in SHOWN) else []
    return floor_entry(rows, palette=palette) + support


def _sentence(row: ScoreRow) -> str:
    value, low, high = row.robustness
    if math.isnan(value):
        return f"{row.method}: RM is undefined."
    rest = f"C {in_words(row.consistency.value, digits=3)}, R {in_words(row.responsiveness.value, digits=3)}"
    return f"{row.method}: RM {value:.3f} ({in_words(low, digits=3)} to {in_words(high, digits=3)}), {rest}."
