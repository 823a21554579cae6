"""Figures that explain the numbers. Matplotlib is imported when something is drawn, and pyplot never."""

from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_camrobust.report.tiles import panel_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lightning_camrobust.gallery import Gallery, Panel

# Sizes in pixels.
_DPI, _TILE, _GAP, _CAPTION = 110, 160, 8, 36
# Of pictures for loggers: 700 pixels are 3.5 inches.
DPI = 200
LEGEND = (
    "White outline: the segment ranked first. Green: prediction kept, a high {measure} is good. "
    "Red: prediction changed, a low {measure} is good."
)
_SAME, _CHANGED, _UNKNOWN = "#1a7f37", "#c02f1d", "#666666"


def draw_gallery(gallery: "Gallery", *, heading: str = "") -> "Figure":
    """Draw one row an image: clean image and its map, then noisy images and theirs.

    The segment that the map ranks first is outlined: at the default p it makes 89% of the overlap. All tiles are put
    together as one array of pixels: forty axes with a layout of their own took a second, this takes a tenth of it.

    Args:
        gallery: What to show.
        heading: A line above.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    num_rows, num_tiles = len(gallery.rows), 2 * len(gallery.rows[0])
    width = num_tiles * (_TILE + _GAP) + _GAP
    above = wrap(heading, width // 9) or [""]
    below = wrap(f"Maps: {gallery.method}. {LEGEND.format(measure=gallery.measure)}", width // 7)
    start, end = 12 + 18 * len(above), 16 + 15 * len(below)
    height = start + num_rows * (_TILE + _CAPTION) + end
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    sheet = np.ones((height, width, 3), dtype=np.float32)
    for row, panels in enumerate(gallery.rows):
        top = start + _CAPTION + row * (_TILE + _CAPTION)
        for column, panel in enumerate(panels):
            left = _GAP + 2 * column * (_TILE + _GAP)
            for tile, edge in zip(panel_tiles(panel, side=_TILE), (left, left + _TILE + _GAP), strict=True):
                sheet[top : top + _TILE, edge : edge + _TILE] = tile
            said, colour = caption(panel, panels[0], gallery.measure)
            middle, bottom = (left + _TILE / 2) / width, 1 - (top - 3) / height
            figure.text(middle, bottom, panel.title, fontsize=8, ha="center", va="bottom")
            middle += (_TILE + _GAP) / width
            figure.text(middle, bottom, said, fontsize=8, color=colour, ha="center", va="bottom")
    figure.figimage(sheet, origin="upper")
    figure.text(0.5, 1 - 6 / height, "\n".join(above), fontsize=11, ha="center", va="top")
    figure.text(0.5, 7 / height, "\n".join(below), fontsize=8.5, ha="center", va="bottom")
    return figure


def draw_severity_curves(report: dict[str, Any]) -> "Figure":
    """Draw robustness, consistency and flip rate against severity, one line a perturbation, for the first method.

    Args:
        report: As in ``callback.report``.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    method = report["pooled"][0]["method"]
    cells = [cell for cell in report["cells"] if cell["method"] == method]
    figure = Figure(figsize=(3.5, 5.4), dpi=DPI)
    figure.subplots_adjust(left=0.09, right=0.97, bottom=0.15, top=0.895, hspace=0.38)
    panels = (("robustness", "Robustness C x R"), ("consistency", "Consistency C"), ("flip_rate", "Flip rate"))
    lines: list[Line2D] = []
    for axes, (key, title) in zip(figure.subplots(3, 1), panels, strict=True):
        lines = _draw_lines(axes, cells, key)
        axes.set_title(title, fontsize=8)
        axes.set(ylim=(-0.03, 1.03), xlim=(0.7, 5.3), xticks=[1, 2, 3, 4, 5])
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    columns = 2 if len(lines) < 7 else 3
    below = figure.legend(handles=lines, loc="lower center", ncols=columns, fontsize=7, frameon=False, title="severity")
    below.get_title().set_fontsize(7)
    figure.suptitle(
        f"{method}, {report['num_images']} images. Robustness has a point only\n"
        "where some predictions changed and some stayed.",
        fontsize=7.2,
    )
    return figure


def _draw_lines(axes: "Axes", cells: list[dict[str, Any]], key: str) -> "list[Line2D]":
    lines = []
    for name in dict.fromkeys(cell["perturbation"] for cell in cells):
        points = [(cell["severity"], cell[key]) for cell in cells if cell["perturbation"] == name]
        known = [(severity, value) for severity, value in points if value is not None]
        severities, values = zip(*known, strict=True) if known else ((), ())
        lines += axes.plot(severities, values, marker="o", markersize=3, linewidth=1.2, label=name)
    return lines


def figure_to_pixels(figure: "Figure") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Render a figure without any window system.

    Args:
        figure: What was drawn.

    Returns:
        ``(height, width, 3)`` uint8.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure_to_pixels(Figure(figsize=(2, 1), dpi=10)).shape
        (10, 20, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png_bytes(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Write a picture as PNG.

    Args:
        pixels: ``(height, width, 3)`` uint8.

    Returns:
        What a file would hold.

    Example:
        >>> png_bytes(np.zeros((2, 3, 3), dtype=np.uint8))[1:4]
        b'PNG'
    """
    from matplotlib.image import imsave

    held = BytesIO()
    imsave(held, pixels, format="png")
    return held.getvalue()


def caption(panel: "Panel", clean: "Panel", measure: str) -> tuple[str, str]:
    """Say what was predicted on a copy, and how far its map agrees with that of the clean copy.

    Args:
        panel: The copy.
        clean: The clean one of the same image.
        measure: What maps were compared by.

    Returns:
        One or two lines, and their colour.
    """
    if panel is clean:
        return f"class {panel.predicted}", "black"
    verdict = "same" if panel.same else "changed"
    if panel.similarity is None:
        return f"class {panel.predicted} {verdict}\nnot rankable", _UNKNOWN
    return f"class {panel.predicted} {verdict}\n{measure} {panel.similarity:.2f}", _SAME if panel.same else _CHANGED
