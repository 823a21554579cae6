"""Scores of one run against severity."""

from itertools import product
from typing import TYPE_CHECKING, Any

from lightning_camrobust.report.drawing import DPI, fitting_size, plain_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Inches: of the picture with up to three rows in its legend, and of a further row.
_WIDTH, _HEIGHT, _FURTHER_ROW = 3.5, 5.4, 0.16
# Once all ten colours are used up, lines come with another dash and marker.
_DASHES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_COLOURS = [f"C{index}" for index in range(10)]


@plain_style()
def draw_severity_curves(report: dict[str, Any]) -> "Figure":
    """Draw robustness, consistency and flip rate against severity, one line a perturbation, for the first method.

    Args:
        report: As in ``callback.report``.

    Returns:
        The figure, 700 pixels wide.
    """
    from matplotlib.figure import Figure

    method = report["pooled"][0]["method"]
    cells = [cell for cell in report["cells"] if cell["method"] == method]
    names = list(dict.fromkeys(cell["perturbation"] for cell in cells))
    columns = 2 if len(names) < 7 else 3
    further = _FURTHER_ROW * max(0, -(-len(names) // columns) - 3)
    height = _HEIGHT + further
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
    panels = (("robustness", "Robustness C x R"), ("consistency", "Consistency C"), ("flip_rate", "Flip rate"))
    lines: list[Line2D] = []
    negative = False
    for axes, (key, title) in zip(figure.subplots(3, 1), panels, strict=True):
        lines = _draw_lines(axes, cells, names, key)
        axes.set_title(title, fontsize=8)
        # Correlations can be negative, and one minus them above 1.
        values = [cell[key] for cell in cells if cell[key] is not None]
        low, high = min([0.0, *values]), max([1.0, *values])
        margin = 0.03 * (high - low)
        axes.set(ylim=(low - margin, high + margin), xlim=(0.7, 5.3), xticks=[1, 2, 3, 4, 5])
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        negative = negative or low < 0
    figure.subplots_adjust(
        left=0.15 if negative else 0.09,
        right=0.97,
        bottom=(0.15 * _HEIGHT + further) / height,
        top=1 - 0.105 * _HEIGHT / height,
        hspace=0.38,
    )
    # A column is a piece of line of 70 pixels, and a name.
    size = fitting_size("\n".join(names), 7.0, room=_WIDTH * DPI / columns - 70, dpi=DPI)
    place: dict[str, Any] = {"loc": "lower center", "ncols": columns, "frameon": False}
    below = figure.legend(handles=lines, fontsize=size, title="severity", **place)
    below.get_title().set_fontsize(7)
    images = "test images" if report.get("stage") == "test" else "images"
    figure.suptitle(
        f"{method}, {report['num_images']} {images}. Robustness has a point only\n"
        "where some predictions changed and some stayed.",
        fontsize=7.2,
        y=1 - 0.02 * _HEIGHT / height,
    )
    return figure


def _draw_lines(axes: "Axes", cells: list[dict[str, Any]], names: list[str], key: str) -> "list[Line2D]":
    lines = []
    looks = [(colour, *look) for look, colour in product(_DASHES, _COLOURS)]
    for index, name in enumerate(names):
        points = [(cell["severity"], cell[key]) for cell in cells if cell["perturbation"] == name]
        known = [(severity, value) for severity, value in points if value is not None]
        severities, values = zip(*known, strict=True) if known else ((), ())
        colour, dash, marker = looks[index % len(looks)]
        (line,) = axes.plot(severities, values, markersize=3, linewidth=1.2, label=name)
        line.set(color=colour, linestyle=dash, marker=marker)
        lines.append(line)
    return lines
