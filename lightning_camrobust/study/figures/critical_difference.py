"""Mean ranks of methods on one axis, with bars over those that cannot be told apart."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.study.figures.points import MEASURES
from lightning_camrobust.study.figures.sheet import LABEL, SMALL, Heading, Sheet, new_sheet, text_width
from lightning_camrobust.study.figures.style import WIDE, Palette, own_settings
from lightning_camrobust.study.findings import RankTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points: of the critical difference above the axis, of a bar below it, of a line of labels.
ABOVE, BAR, ROW = 40.0, 6.0, 15.0
Place = Callable[[float], float]


@own_settings()
def draw_critical_difference(test: RankTest, *, palette: Palette, model: str = "", width: float = WIDE) -> "Figure":
    """Draw a critical-difference diagram: the better a method, the further left its mean rank stands.

    Thick bars join methods whose mean ranks are closer than the critical difference, which is drawn to scale.

    Args:
        test: Mean ranks and cliques.
        palette: Colours, with all methods of the report.
        model: Its name, for the title.
        width: In inches; all labels stand on the left where it is small.

    Returns:
        The figure.

    Source:
        Demšar (2006), Statistical comparisons of classifiers over multiple data sets, figure 1.
    """
    order = sorted(range(len(test.methods)), key=lambda index: test.mean_ranks[index])
    cliques = sorted((each for each in test.cliques if len(each) > 1), key=lambda each: _ends(test, each))
    margin = (
        max(
            text_width(f"{method}  {rank:.2f}", LABEL)
            for method, rank in zip(test.methods, test.mean_ranks, strict=True)
        )
        + 18
    )
    width = max(width, (margin + 130) / 72)
    both = width * 72 > 2 * margin + 160
    left = order[: (len(order) + 1) // 2] if both else order
    right = order[len(left) :]
    heading = Heading(
        title=f"Mean rank by {MEASURES[test.measure].lower()[:-2]}" + (f": {model}" if model else ""),
        subtitle=_summary(test),
        description=_in_words(test, order, cliques),
    )
    body = ABOVE + BAR * len(cliques) + 8 + ROW * max(len(left), len(right)) + 4
    sheet = new_sheet(heading, palette=palette, width=width, body=body)
    axis, end = sheet.top + ABOVE, sheet.width - (margin if both else 10)
    low, high = _range(test)

    def place(rank: float) -> float:
        return margin + (rank - low) / (high - low) * (end - margin)

    _draw_axis(sheet, place, low, high, axis)
    _draw_difference(sheet, test.critical_difference, place, low, high, axis)
    first = axis + 6 + BAR * len(cliques) + ROW / 2
    for line, index in enumerate(left):
        _draw_method(sheet, test, index, place, axis, first + ROW * line, at=margin - 8, side="right")
    for line, index in enumerate(reversed(right)):
        _draw_method(sheet, test, index, place, axis, first + ROW * line, at=end + 8, side="left")
    for line, clique in enumerate(cliques):
        best, worst = _ends(test, clique)
        y = axis + 6 + BAR * line
        sheet.line([place(best) - 3, place(worst) + 3], [y, y], linewidth=3, label="_clique")
    return sheet.figure


def _range(test: RankTest) -> tuple[float, float]:
    """Choose whole ranks that hold all mean ranks and, if it can be, the critical difference."""
    low, high = math.floor(min(test.mean_ranks)), math.ceil(max(test.mean_ranks))
    needed = 0.0 if math.isnan(test.critical_difference) else test.critical_difference
    while high - low < max(needed, 1.0) and (low > 1 or high < len(test.methods)):
        low, high = (low, high + 1) if high < len(test.methods) else (low - 1, high)
    return float(low), float(max(high, low + 1))


def _ends(test: RankTest, clique: Sequence[str]) -> tuple[float, float]:
    ranks = [test.mean_ranks[test.methods.index(method)] for method in clique]
    return min(ranks), max(ranks)


def _draw_axis(sheet: Sheet, place: Place, low: float, high: float, axis: float) -> None:
    sheet.line([place(low), place(high)], [axis, axis], linewidth=1.2)
    steps = 2 if high - low > 2 else 10
    for step in range(int(low) * steps, int(high) * steps + 1):
        rank, whole = step / steps, step % steps == 0
        x = place(rank)
        sheet.line([x, x], [axis, axis - (5 if whole else 3)], linewidth=1.0 if whole else 0.7)
        if whole:
            sheet.text(x, axis - 8, f"{rank:.0f}", fontsize=SMALL, ha="center")


def _draw_difference(sheet: Sheet, difference: float, place: Place, low: float, high: float, axis: float) -> None:
    y = axis - 26
    start = place(low)
    if math.isnan(difference) or difference > high - low:
        text = (
            "no critical difference is tabulated" if math.isnan(difference) else f"CD = {difference:.2f}: off the scale"
        )
        sheet.text(start, y, text, fontsize=SMALL, color=sheet.palette.muted)
        return
    stop = place(low + difference)
    sheet.line([start, stop], [y, y], linewidth=2, label="_critical difference")
    for x in (start, stop):
        sheet.line([x, x], [y - 3.5, y + 3.5], linewidth=1)
    sheet.text(stop + 5, y + 2.7, f"CD = {difference:.2f}", fontsize=SMALL)


def _draw_method(
    sheet: Sheet, test: RankTest, index: int, place: Place, axis: float, y: float, *, at: float, side: str
) -> None:
    method, rank = test.methods[index], test.mean_ranks[index]
    x, look = place(rank), sheet.palette.look(method)
    sheet.line([x, x, at], [axis, y, y], color=sheet.palette.muted, label=f"_rank {method}")
    sheet.line([at], [y], color=look.colour, marker=look.marker, markersize=5)
    away = -6 if side == "right" else 6
    text = f"{method}  {rank:.2f}" if side == "right" else f"{rank:.2f}  {method}"
    sheet.text(at + away, y + 3, text, ha=side)


def _summary(test: RankTest) -> str:
    p = "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"
    if math.isnan(test.p_value):
        p = "p is undefined"
    friedman = (
        f"Friedman: χ² = {test.statistic:.1f}, {p}; Kendall's W = {test.kendall_w:.2f}; {test.num_images} images."
    )
    return f"{friedman} Rank 1 is best. Bars join methods that are not told apart at level {test.alpha:g}."


def _in_words(test: RankTest, order: Sequence[int], cliques: Sequence[Sequence[str]]) -> str:
    ranks = ", ".join(f"{test.methods[index]} {test.mean_ranks[index]:.2f}" for index in order)
    groups = "; ".join(", ".join(each) for each in cliques) or "none"
    return (
        f"{_summary(test)} Mean ranks: {ranks}. Critical difference {test.critical_difference:.2f}. Groups: {groups}."
    )
