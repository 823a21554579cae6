"""A score of every method under every perturbation, as a table of tinted cells."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.points import MEASURES, in_words, is_thin, low_support_entry
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Entry, Heading, Sheet, new_sheet, text_width
from lightning_camrobust.study.figures.style import WIDE, Palette, own_settings
from lightning_camrobust.study.findings import ModelFindings, ScoreRow
from lightning_camrobust.study.outcomes import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points: of a cell, and the least width that holds "0.23".
HEIGHT, LEAST, MOST = 20.0, 24.0, 56.0
# What is left of a cell where it has to be narrow, with room for ".23".
NARROWEST = 15.0


@own_settings()
def draw_heatmap(
    model: ModelFindings, *, kind: Kind, palette: Palette, measure: str = "robustness", width: float = WIDE
) -> "Figure":
    """Draw a score of each method under each perturbation, over all severities.

    The tint runs from 0 to the largest score. Cells without a score are hatched; a small ring marks low support.

    Args:
        model: Whose scores.
        kind: Of the noises.
        palette: Colours, with all methods of the report.
        measure: ``"robustness"``, ``"consistency"``, ``"responsiveness"`` or ``"flip_rate"``.
        width: In inches; perturbations stand below each other where they do not fit beside each other.

    Returns:
        The figure.

    Raises:
        ArgumentError: If there are no scores of single perturbations of this kind, or the measure is unknown.
    """
    if measure not in MEASURES:
        raise ArgumentError(f"draw_heatmap: `measure` must be one of {list(MEASURES)}, got {measure!r}.")
    cells = {
        (row.method, row.perturbation): row
        for row in model.scores
        if row.kind == kind and row.perturbation is not None and row.severity is None
    }
    if not cells:
        raise ArgumentError(
            f"draw_heatmap: `model` must have scores by perturbation for kind {kind!r}, {model.model!r} has none. "
            f"Draw a kind that it was measured on: {sorted({row.kind for row in model.scores})}."
        )
    methods = sorted({method for method, _ in cells}, key=palette.methods.index)
    perturbations = list(dict.fromkeys(str(perturbation) for _, perturbation in cells))
    upright = width * 72 - _widest(methods) < LEAST * len(perturbations)
    lines, columns = (perturbations, methods) if upright else (methods, perturbations)
    table = [[cells.get((column, line) if upright else (line, column)) for column in columns] for line in lines]
    return _draw(model, table, lines, columns, kind=kind, measure=measure, palette=palette, width=width)


def _draw(
    model: ModelFindings,
    table: Sequence[Sequence[ScoreRow | None]],
    lines: Sequence[str],
    columns: Sequence[str],
    *,
    kind: Kind,
    measure: str,
    palette: Palette,
    width: float,
) -> "Figure":
    values = [[math.nan if row is None else getattr(row, measure).value for row in line] for line in table]
    most = max((value for line in values for value in line if not math.isnan(value)), default=math.nan)
    head = _widest(columns) * math.sqrt(0.5) + 8
    left = max(_widest(lines), _widest(columns[:1]) * math.sqrt(0.5))
    width = max(width, (left + NARROWEST * len(columns) + 1) / 72)
    heading = Heading(
        title=f"{MEASURES[measure]} by perturbation, {kind} noise: {model.model}",
        subtitle=f"{model.target_layer}, {model.data}, {model.num_images} images; all severities pooled.",
        description=_in_words(values, lines, columns),
        key=_key(table, measure, most, palette),
    )
    sheet = new_sheet(heading, palette=palette, width=width, body=head + HEIGHT * len(lines) + 4)
    size = min((sheet.width - left - 1) / len(columns), MOST)
    top = sheet.top + head
    draw_column_names(sheet, columns, left=left, top=top, size=size)
    for index, line in enumerate(lines):
        y = top + HEIGHT * index
        sheet.text(1, y + HEIGHT / 2 + 3, line)
        for place, (row, value) in enumerate(zip(table[index], values[index], strict=True)):
            thin = row is not None and is_thin(row, measure)
            _draw_cell(sheet, value, most, thin=thin, x=left + size * place, y=y, size=size)
    return sheet.figure


def _widest(names: Sequence[str]) -> float:
    return max(text_width(name, LABEL) for name in names) + 8


def draw_column_names(sheet: Sheet, names: Sequence[str], *, left: float, top: float, size: float) -> None:
    """Write names over columns of cells, slanted so that they need no more than their height.

    Args:
        sheet: Where to.
        names: Of the columns.
        left: Where the first column begins, in points.
        top: Where the cells begin, in points.
        size: Width of a column, in points.
    """
    for place, name in enumerate(names):
        sheet.text(left + size * (place + 0.5) + 2, top - 5, name, rotation=-45, ha="right")


def draw_tint(sheet: Sheet, tint: tuple[str, float], *, x: float, y: float, width: float, height: float) -> None:
    """Fill a cell.

    Args:
        sheet: Where to.
        tint: Colour and opacity.
        x: Its left edge, in points.
        y: Its top edge.
        width: Its width.
        height: Its height.
    """
    from matplotlib.patches import Rectangle

    place = (x + 0.5, y + 0.5)
    cell = Rectangle(place, width - 1, height - 1, facecolor=tint[0], alpha=tint[1], edgecolor="none")
    sheet.ground.add_patch(cell)


def _draw_cell(sheet: Sheet, value: float, most: float, *, thin: bool, x: float, y: float, size: float) -> None:
    from matplotlib.patches import Rectangle

    palette = sheet.palette
    text = in_words(value)
    if math.isnan(value):
        cell = Rectangle((x + 0.5, y + 0.5), size - 1, HEIGHT - 1, facecolor="none", linewidth=0)
        cell.set(edgecolor=palette.grid, hatch="////")
        sheet.ground.add_patch(cell)
    else:
        fraction = value / most if most > 0 else 0.0
        draw_tint(sheet, palette.sequential(fraction), x=x, y=y, width=size, height=HEIGHT)
    # Narrow cells have no room for the zero before the point.
    text = text if size >= LEAST else text.replace("0.", ".", 1)
    sheet.text(x + size / 2, y + HEIGHT / 2 + 3.2, text, fontsize=SMALL, ha="center")
    if thin and not math.isnan(value):
        look = {"marker": "o", "markersize": 2.6, "markerfacecolor": palette.surface, "color": palette.ink}
        sheet.line([x + size - 3.2], [y + 3.6], **look, markeredgewidth=0.8)


def _key(table: Sequence[Sequence[ScoreRow | None]], measure: str, most: float, palette: Palette) -> list[Entry]:
    entries = []
    if not math.isnan(most):
        colour, opacity = palette.sequential(1.0)
        square = {"color": colour, "alpha": opacity, "marker": "s", "markersize": 8, "linestyle": "none"}
        entries.append(Entry(f"strongest tint {most:.2f}, none 0", square | {"markeredgewidth": 0}))
    rows = [row for line in table for row in line]
    defined = [row for row in rows if row is not None and not math.isnan(getattr(row, measure).value)]
    if len(defined) < len(rows):
        entries.append(Entry("undefined", {"color": palette.ink, "marker": "_", "markersize": 4, "linestyle": "none"}))
    if any(is_thin(row, measure) for row in defined):
        entries.append(low_support_entry(palette, sign="ring"))
    return entries


def _in_words(values: Sequence[Sequence[float]], lines: Sequence[str], columns: Sequence[str]) -> str:
    sentences = []
    for line, row in zip(lines, values, strict=True):
        cells = ", ".join(f"{column} {in_words(value)}" for column, value in zip(columns, row, strict=True))
        sentences.append(f"{line}: {cells}.".replace("–", "undefined"))
    return " ".join(sentences)
