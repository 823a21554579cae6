"""The ranking of methods under each setting, beside its agreement with the main one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.study.figures.heatmap import draw_column_names, draw_tint
from lightning_camrobust.study.figures.points import draw_points, in_words, joint_limits
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Entry, Heading, Sheet, new_sheet, text_width
from lightning_camrobust.study.figures.style import WIDE, Look, Palette, own_settings
from lightning_camrobust.study.findings import Estimate, ReadingRow, Stability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points: height of a line, least and largest width of a cell, width of the value of tau, least width of its panel.
ROW, LEAST, MOST, VALUE, PANEL = 16.0, 12.5, 34.0, 30.0, 50.0
# A cell with room for "10=".
ROOMY = 17.0


@own_settings()
def draw_settings(stability: Stability, *, palette: Palette, model: str = "", width: float = WIDE) -> "Figure":
    """Draw the rank of each method under each setting, and Kendall's tau with the main setting.

    Cells are tinted where a method moves away from its rank under the main setting. Settings whose tau is below the
    limit, or undefined, are written in bold. Methods that tie share their best rank, marked by "=" where cells
    are wide enough.

    Args:
        stability: Rankings, the main setting first.
        palette: Colours.
        model: Its name, for the title.
        width: In inches; tau is given as a number only where it is small.

    Returns:
        The figure.
    """
    rows = stability.rows
    ranks = [shared_ranks(row.robustness) for row in rows]
    order = sorted(range(len(stability.methods)), key=lambda place: (math.isnan(ranks[0][place]), ranks[0][place]))
    names = [stability.methods[place] for place in order]
    head = max(text_width(name, LABEL) for name in names) * math.sqrt(0.5) + 14
    left = max(
        max(text_width(row.label, SMALL, bold=True) for row in rows) + 8, text_width(names[0], LABEL) * math.sqrt(0.5)
    )
    width = max(width, (left + LEAST * len(names) + VALUE) / 72)
    heading = Heading(
        title="Ranking of methods under other settings" + (f": {model}" if model else ""),
        subtitle=_verdict(stability),
        description=_in_words(stability),
        key=_key(palette),
    )
    sheet = new_sheet(heading, palette=palette, width=width, body=head + ROW * len(rows) + 20)
    top = sheet.top + head
    free = sheet.width - left - VALUE
    beside = (free - 2.5 * PANEL) / len(names)
    size = min(beside if beside >= ROOMY else free / len(names), MOST)
    draw_column_names(sheet, names, left=left, top=top, size=size)
    for line, row in enumerate(rows):
        y = top + ROW * line
        failing = line > 0 and not row.tau >= stability.least_tau
        look = {"color": palette.warning, "fontweight": "bold"} if failing else {}
        sheet.text(1, y + ROW / 2 + 2.7, row.label, fontsize=SMALL, **look)
        moved = [ranks[0][place] - ranks[line][place] for place in order]
        _draw_ranks(sheet, [ranks[line][place] for place in order], moved, x=left, y=y, size=size)
        tau = "main" if line == 0 else in_words(row.tau)
        sheet.text(sheet.width - 1, y + ROW / 2 + 2.7, tau, **({"fontsize": SMALL, "ha": "right"} | look))
    sheet.text(sheet.width - 1, top - 5, "τ", ha="right")
    start = left + size * len(names) + 14
    if sheet.width - VALUE - start >= PANEL:
        _draw_taus(sheet, stability, left=start, top=top)
    return sheet.figure


def shared_ranks(values: Sequence[float]) -> list[float]:
    """Rank values, the largest first; equal ones share the best of their ranks.

    Args:
        values: NaN where undefined.

    Returns:
        Ranks from 1; NaN where undefined.

    Example:
        >>> shared_ranks([0.5, 0.7, 0.5, float("nan")])
        [2.0, 1.0, 2.0, nan]
    """
    return [math.nan if math.isnan(value) else 1.0 + sum(other > value for other in values) for value in values]


def _draw_ranks(
    sheet: Sheet, ranks: Sequence[float], moved: Sequence[float], *, x: float, y: float, size: float
) -> None:
    most = max(len(ranks) - 1, 1) / 2
    for place, (rank, steps) in enumerate(zip(ranks, moved, strict=True)):
        if steps and not math.isnan(steps):
            tint = sheet.palette.diverging(steps / most)
            draw_tint(sheet, tint, x=x + size * place, y=y, width=size, height=ROW)
        text = "–" if math.isnan(rank) else f"{rank:.0f}" + ("=" if size >= ROOMY and ranks.count(rank) > 1 else "")
        sheet.text(x + size * (place + 0.5), y + ROW / 2 + 2.7, text, fontsize=SMALL, ha="center")


def _draw_taus(sheet: Sheet, stability: Stability, *, left: float, top: float) -> None:
    palette, rows = sheet.palette, stability.rows
    axes = sheet.panel(left, top, sheet.width - VALUE - left, ROW * len(rows))
    estimates = [Estimate(row.tau, row.tau_interval.low, row.tau_interval.high) for row in rows[1:]]
    whole = Estimate(0.0, stability.least_tau, 1.0)
    axes.set(xlim=joint_limits([*estimates, whole]), ylim=(len(rows) - 0.5, -0.5), yticks=[], autoscale_on=False)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color=palette.grid, linewidth=0.6)
    axes.axvline(stability.least_tau, color=palette.warning, linestyle=(0, (3, 2)), linewidth=1.0, label="_limit")
    axes.set_title("Kendall's τ with main", fontsize=LABEL, color=palette.ink, loc="left", pad=4)
    for line, (row, estimate) in enumerate(zip(rows[1:], estimates, strict=True), start=1):
        colour = palette.ink if row.tau >= stability.least_tau else palette.warning
        look = Look(colour, "o" if row.tau >= stability.least_tau else "X", "solid")
        draw_points(
            axes, [line], [estimate], hollow=[False], look=look, surface=palette.surface, name=row.label, size=6.0
        )


def _verdict(stability: Stability) -> str:
    limit = f"limit: τ at least {stability.least_tau:g}"
    failing = sum(not row.tau >= stability.least_tau for row in stability.rows[1:])
    if stability.stable:
        return f"Stable ({limit})."
    if stability.change == "chance":
        return f"Only methods not told apart change places: {failing} of {len(stability.rows) - 1} settings ({limit})."
    return f"Not stable: {failing} of {len(stability.rows) - 1} settings, in bold, fail ({limit})."


def _key(palette: Palette) -> list[Entry]:
    square = {"marker": "s", "markersize": 8, "linestyle": "none", "markeredgewidth": 0}
    tints = (("ranks better than under the main setting", 0.8), ("worse", -0.8))
    looks = [(label, *palette.diverging(value)) for label, value in tints]
    return [Entry(label, square | {"color": colour, "alpha": opacity}) for label, colour, opacity in looks]


def _in_words(stability: Stability) -> str:
    def sentence(row: ReadingRow) -> str:
        return f"{row.label}: {', '.join(row.ranking)}; tau {in_words(row.tau).replace('–', 'undefined')}."

    return f"{_verdict(stability)} Rankings, best first. " + " ".join(sentence(row) for row in stability.rows)
