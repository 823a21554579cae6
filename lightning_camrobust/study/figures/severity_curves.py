"""Scores against severity, one small panel a perturbation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.curves import Curve, merge_curves
from lightning_camrobust.study.figures.points import (
    FLOOR_DASH,
    MEASURES,
    UNDEFINED,
    draw_points,
    floor_entry,
    is_thin,
    joint_limits,
    low_support_entry,
)
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Entry, Heading, new_sheet
from lightning_camrobust.study.figures.style import WIDE, Palette, own_settings
from lightning_camrobust.study.findings import Estimate, ModelFindings, ScoreRow
from lightning_camrobust.study.outcomes import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Measure = Literal["robustness", "consistency", "responsiveness"]
# Of the space between two severities, all methods together take this share.
SPREAD = 0.62
# Points: of the name above a panel, of the tick labels below, of those at the left.
ABOVE, BELOW, LEFT = 16.0, 16.0, 26.0


@own_settings()
def draw_severity_curves(
    model: ModelFindings, *, kind: Kind, palette: Palette, measure: Measure = "robustness", width: float = WIDE
) -> "Figure":
    """Draw a score of each method against severity, one panel a perturbation, all on one scale.

    Points stand beside each other, so that none hides another; methods with the same numbers throughout share a line.
    Whiskers are intervals. An undefined score leaves a gap. Points are hollow where a set has few pairs.

    Args:
        model: Whose scores.
        kind: Of the noises.
        palette: Colours, with all methods of the report.
        measure: The score. The chance floor is drawn for ``"robustness"`` only, the one it is known for.
        width: In inches.

    Returns:
        The figure.

    Raises:
        ArgumentError: If there are no scores of single severities of this kind, or the measure is unknown.
    """
    if measure not in MEASURES:
        raise ArgumentError(f"draw_severity_curves: `measure` must be one of {list(MEASURES)}, got {measure!r}.")
    rows = [row for row in model.scores if row.kind == kind and row.perturbation and row.severity is not None]
    if not rows:
        raise ArgumentError(
            f"draw_severity_curves: `model` must have scores by severity for kind {kind!r}, {model.model!r} has none. "
            f"Draw a kind that it was measured on: {sorted({row.kind for row in model.scores})}."
        )
    curves = merge_curves(rows, palette=palette)
    perturbations = list(dict.fromkeys(str(row.perturbation) for row in rows))
    columns = min(len(perturbations), max(2, int(width * 72 / 130)))
    lines = math.ceil(len(perturbations) / columns)
    # Many curves need a taller panel to be told apart.
    panel = 74.0 + 5 * max(len(curves) - 4, 0)
    row = ABOVE + panel + BELOW
    heading = Heading(
        title=f"{MEASURES[measure]} by severity, {kind} noise: {model.model}",
        subtitle=f"{model.target_layer}, {model.data}, {model.num_images} images. {_whiskers(rows, measure)}",
        description=_in_words(curves, perturbations, measure),
        key=_key(curves, rows, measure, palette),
    )
    sheet = new_sheet(heading, palette=palette, width=width, body=row * lines + 10)
    least = 0.0 if measure == "robustness" else None
    limits = joint_limits([getattr(row, measure) for row in rows], least=least)
    across = (sheet.width - LEFT) / columns
    for index, perturbation in enumerate(perturbations):
        line, column = divmod(index, columns)
        axes = sheet.panel(LEFT + column * across, sheet.top + ABOVE + row * line, across - 10, panel)
        axes.set_title(perturbation, fontsize=LABEL, color=palette.ink, loc="left", pad=4)
        axes.set(ylim=limits, autoscaley_on=False)
        axes.grid(axis="y", color=palette.grid, linewidth=0.6, clip_on=False)
        axes.tick_params(axis="x", length=0)
        axes.tick_params(axis="y", labelleft=column == 0)
        axes.locator_params(axis="y", nbins=4)
        _draw_panel(axes, curves, perturbation, measure, palette)
        if index + columns >= len(perturbations):  # the lowest panel of its column
            below = {"fontsize": SMALL, "color": palette.muted, "ha": "center"}
            sheet.text(
                LEFT + column * across + (across - 10) / 2, sheet.top + row * (line + 1) + 7, "severity", **below
            )
    return sheet.figure


def _draw_panel(axes: "Axes", curves: Sequence[Curve], perturbation: str, measure: Measure, palette: Palette) -> None:
    levels = sorted({level for curve in curves for name, level in curve.rows if name == perturbation})
    axes.set(xlim=(levels[0] - 0.5, levels[-1] + 0.5), xticks=levels, autoscalex_on=False)
    if measure == "robustness":
        _draw_floor(axes, curves, perturbation, palette)
    defined: set[int] = set()
    for index, curve in enumerate(curves):
        shift = SPREAD * ((index + 0.5) / len(curves) - 0.5)
        rows = [curve.rows.get((perturbation, level)) for level in levels]
        estimates = [UNDEFINED if row is None else getattr(row, measure) for row in rows]
        defined |= {level for level, each in zip(levels, estimates, strict=True) if not math.isnan(each.value)}
        draw_points(
            axes,
            [level + shift for level in levels],
            estimates,
            hollow=[row is not None and is_thin(row, measure) for row in rows],
            look=palette.look(curve.methods[0]),
            surface=palette.surface,
            name=curve.label,
            along="y",
            size=4.6,
        )
    height = sum(axes.get_ylim()) / 2
    upright: dict[str, Any] = {"color": palette.muted, "fontsize": SMALL, "ha": "center", "va": "center"}
    if not defined:
        axes.text((levels[0] + levels[-1]) / 2, height, "undefined", **upright)
    for level in levels if defined else ():
        if level not in defined:
            axes.text(level, height, "undefined", rotation=90, **upright)


def _whiskers(rows: Sequence[ScoreRow], measure: Measure) -> str:
    estimates: list[Estimate] = [getattr(row, measure) for row in rows]
    bare = any(math.isnan(each.low + each.high) and not math.isnan(each.value) for each in estimates)
    words = "Whiskers are confidence intervals"
    return f"{words}; a point without one rests on too few images for it." if bare else f"{words}."


def _draw_floor(axes: "Axes", curves: Sequence[Curve], perturbation: str, palette: Palette) -> None:
    floors = {level: row.chance_floor for (name, level), row in curves[0].rows.items() if name == perturbation}
    # A level at a time, since the floor is that of the images that could be scored there.
    x = [edge for level in sorted(floors) for edge in (level - 0.5, level + 0.5)]
    y = [floors[level] for level in sorted(floors) for _ in range(2)]
    if len(set(y)) == 1:
        x, y = [x[0], x[-1]], y[:2]
    if not all(math.isnan(floor) for floor in y):
        axes.plot(
            x, y, color=palette.muted, linewidth=1.0, linestyle=FLOOR_DASH, label="_floor", zorder=1, clip_on=False
        )


def _key(curves: Sequence[Curve], rows: Sequence[ScoreRow], measure: Measure, palette: Palette) -> list[Entry]:
    entries = []
    for curve in curves:
        look = palette.look(curve.methods[0])
        line = {
            "color": look.colour,
            "marker": look.marker,
            "linestyle": look.dash,
            "linewidth": 1.1,
            "markersize": 4.5,
        }
        entries.append(Entry(curve.label, line))
    if measure == "robustness":
        entries.extend(floor_entry(rows, palette=palette))
    if any(is_thin(row, measure) for row in rows):
        entries.append(low_support_entry(palette))
    return entries


def _in_words(curves: Sequence[Curve], perturbations: Sequence[str], measure: Measure) -> str:
    sentences = []
    for curve in curves:
        cells = []
        for perturbation in perturbations:
            levels = sorted(level for name, level in curve.rows if name == perturbation)
            values = [getattr(curve.rows[perturbation, level], measure).value for level in levels]
            cells.append(f"{perturbation} " + ", ".join("undefined" if math.isnan(v) else f"{v:.2f}" for v in values))
        sentences.append(f"{curve.label}: {'; '.join(cells)}.")
    return "Scores by rising severity. " + " ".join(sentences)
