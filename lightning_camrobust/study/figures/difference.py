"""Two models compared: differences of their scores around zero."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.points import MEASURES, draw_points, in_words, joint_limits
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Heading, Sheet, new_sheet, text_width
from lightning_camrobust.study.figures.style import WIDE, Palette, own_settings
from lightning_camrobust.study.findings import Estimate, ModelDifference, PairRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points: height of a line, of the head of the columns, of the ticks below, width of a number and of a p-value.
ROW, ABOVE, BELOW, VALUE, CHANCE = 15.0, 16.0, 34.0, 42.0, 46.0


@own_settings()
def draw_difference(differences: Sequence[ModelDifference], *, palette: Palette, width: float = WIDE) -> "Figure":
    """Draw how the scores of two models differ, second minus first, with intervals and adjusted p-values.

    Args:
        differences: Of the same two models under the same kind of noise, one a CAM method.
        palette: Colours, with all methods of the report.
        width: In inches.

    Returns:
        The figure.

    Raises:
        ArgumentError: If there is no difference, or they are not of the same models and kind.
    """
    subjects = {(each.first, each.second, each.kind) for each in differences}
    if len(subjects) != 1:
        raise ArgumentError(
            "draw_difference: `differences` must all be of the same two models and kind of noise, "
            f"got {sorted(subjects) or 'none'}. Draw one figure for each of them."
        )
    first = differences[0]
    measures = list(dict.fromkeys(row.measure for each in differences for row in each.rows))
    lines: list[tuple[str, str, PairRow | None]] = []
    for measure in measures:
        rows = [(each.method, row) for each in differences for row in each.rows if row.measure == measure]
        if len(differences) > 1:
            lines.append((MEASURES.get(measure, measure), "", None))
            lines.extend((method, method, row) for method, row in rows)
        else:
            lines.extend((MEASURES.get(measure, measure), method, row) for method, row in rows)
    of_method = f", {first.method}" if len(differences) == 1 else ""
    heading = Heading(
        title=f"{first.second} minus {first.first}",
        subtitle=f"{first.kind} noise{of_method}, {first.num_images} images measured on both. "
        "Whiskers are confidence intervals; p-values are adjusted by Holm.",
        description=" ".join([each.verdict for each in differences] + [_sentence(*line) for line in lines]),
    )
    sheet = new_sheet(heading, palette=palette, width=width, body=ABOVE + ROW * len(lines) + BELOW)
    _draw_lines(sheet, lines, first)
    return sheet.figure


def _draw_lines(sheet: Sheet, lines: Sequence[tuple[str, str, PairRow | None]], subject: ModelDifference) -> None:
    palette = sheet.palette
    many = any(row is None for _, _, row in lines)
    left = max(text_width(name, LABEL) for name, _, _ in lines) + (18 if many else 12)
    top = sheet.top + ABOVE
    axes = sheet.panel(left, top, sheet.width - left - VALUE - CHANCE, ROW * len(lines))
    estimates = [row.difference for _, _, row in lines if row is not None]
    limits = joint_limits([*estimates, Estimate(0.0, 0.0, 0.0)])
    axes.set(xlim=limits, ylim=(len(lines) - 0.5, -0.5), yticks=[], autoscale_on=False)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=palette.grid, linewidth=0.6)
    axes.axvline(0, color=palette.ink, linewidth=1.0, label="_zero", zorder=1)
    for name, x in (("difference", sheet.width - CHANCE), ("p", sheet.width - 1)):
        sheet.text(x, top - 4, name, fontsize=SMALL, color=palette.muted, ha="right")
    for line, (name, method, row) in enumerate(lines):
        y = top + ROW * (line + 0.5) + 3
        indent = 8 if many and row is not None else 0
        sheet.text(1 + indent, y, name, fontweight="bold" if row is None else "normal")
        if row is None:
            continue
        draw_points(
            axes,
            [line],
            [row.difference],
            hollow=[False],
            look=palette.look(method),
            surface=palette.surface,
            name=f"{row.measure} {method}",
            size=6.0,
        )
        value = in_words(row.difference.value, digits=3)
        value = f"+{value}" if row.difference.value > 0 else value
        sheet.text(sheet.width - CHANCE, y, value, fontsize=SMALL, ha="right")
        sheet.text(sheet.width - 1, y, _p_value(row.p_adjusted), fontsize=SMALL, ha="right")
    below = {"fontsize": SMALL, "color": palette.muted}
    sheet.text(left, sheet.height - 5, f"← {subject.first} larger", **below)
    sheet.text(sheet.width - 1, sheet.height - 5, f"{subject.second} larger →", ha="right", **below)


def _p_value(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _sentence(name: str, method: str, row: PairRow | None) -> str:
    if row is None or math.isnan(row.difference.value):
        return f"{name}:" if row is None else f"{name} is undefined."
    value, low, high = (in_words(number, digits=3) for number in row.difference)
    return f"{name} {value} ({low} to {high}), p {_p_value(row.p_adjusted)}."
