"""Figures that explain the numbers. Matplotlib is imported when something is drawn, and pyplot never."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_camrobust.report.tiles import panel_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_camrobust.gallery import Gallery, Panel

# Sizes in pixels, and of text in points.
_DPI, _TILE, _GAP, _CAPTION, _FONT = 110, 160, 8, 36, 8.0
# Of pictures for loggers: 700 pixels are 3.5 inches.
DPI = 200
_SAME, _CHANGED, _UNKNOWN = "#1a7f37", "#c02f1d", "#666666"


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw with matplotlib's own defaults, whatever the user has set, and leave the user's settings as they were.

    Example:
        >>> with plain_style():
        ...     pass
    """
    import matplotlib.style

    # A name may hold dollar signs.
    with matplotlib.style.context(["default", {"text.parse_math": False}]):
        yield


@plain_style()
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
    below = wrap(explain_picture(gallery), width // 7)
    start, end = 12 + 18 * len(above), 16 + 15 * len(below)
    height = start + num_rows * (_TILE + _CAPTION) + end
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    sheet = np.ones((height, width, 3), dtype=np.float32)
    for row, panels in enumerate(gallery.rows):
        top = start + _CAPTION + row * (_TILE + _CAPTION)
        for column, panel in enumerate(panels):
            left = _GAP + 2 * column * (_TILE + _GAP)
            said = ((panel.title, "black"), caption(panel, panels[0], gallery.measure))
            for index, (tile, (words, ink)) in enumerate(zip(panel_tiles(panel, side=_TILE), said, strict=True)):
                edge = left + index * (_TILE + _GAP)
                sheet[top : top + _TILE, edge : edge + _TILE] = tile
                middle, bottom = (edge + _TILE / 2) / width, 1 - (top - 3) / height
                size = fitting_size(words, _FONT, room=_TILE + _GAP // 2, dpi=_DPI)
                figure.text(middle, bottom, words, fontsize=size, color=ink, ha="center", va="bottom")
    figure.figimage(sheet, origin="upper")
    figure.text(0.5, 1 - 6 / height, "\n".join(above), fontsize=11, ha="center", va="top")
    figure.text(0.5, 7 / height, "\n".join(below), fontsize=8.5, ha="center", va="bottom")
    return figure


@plain_style()
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


@plain_style()
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


def fitting_size(words: str, fontsize: float, *, room: float, dpi: float) -> float:
    """Shrink a font until the longest line fits.

    Args:
        words: One or more lines.
        fontsize: In points, if it fits.
        room: Pixels there are.
        dpi: Of the figure.

    Returns:
        Size in points.

    Example:
        >>> fitting_size("clean", 8.0, room=160, dpi=110), fitting_size("clean", 8.0, room=16, dpi=110) < 4
        (8.0, True)
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    agg: Any = RendererAgg
    renderer = agg(1, 1, dpi)
    font = FontProperties(size=fontsize)
    width = max(renderer.get_text_width_height_descent(line, font, False)[0] for line in words.split("\n"))
    # Letters are set on whole pixels, so the width does not shrink quite as the size does.
    return fontsize if width <= room else 0.97 * fontsize * room / width


def explain_picture(gallery: "Gallery") -> str:
    """Say what outlines and colours mean, and whether all perturbations are shown.

    Args:
        gallery: What is shown.

    Returns:
        A few sentences.
    """
    words = (
        f"Maps: {gallery.method}. White outline: the segment ranked first. Green: prediction kept, a high "
        f"{gallery.measure} is good. Red: prediction changed, a low {gallery.measure} is good."
    )
    shown = len(gallery.rows[0]) - 1
    if gallery.num_perturbations is None or shown == gallery.num_perturbations:
        return words
    return f"{words} {shown} of {gallery.num_perturbations} perturbations are shown."


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
