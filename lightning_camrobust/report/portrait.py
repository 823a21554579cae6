"""The gallery for a narrow card: loggers show pictures 350 pixels wide, and captions have to survive that."""

from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from lightning_camrobust.report.drawing import DPI, caption, explain_picture, fitting_size, plain_style
from lightning_camrobust.report.tiles import Tile, panel_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_camrobust.gallery import Gallery, Panel

# Sizes in pixels of a picture that TensorBoard shows at half its width, without smoothing; text is then ten high.
_WIDTH, _GAP, _LINE, _ACROSS, _FONT = 700, 12, 24, 2, 7.2
_PANEL = (_WIDTH - _GAP) // _ACROSS - _GAP
_TILE = (_PANEL - _GAP // 2) // 2


@plain_style()
def draw_portrait(gallery: "Gallery", *, heading: str = "") -> "Figure":
    """Draw two images beside each other, each with its clean copy on top and the noisy ones below it.

    A copy is a pair of tiles, the image and its map, below two lines that say what it is, what was predicted and how
    far the map agrees with the clean one. Where that is too long for two lines it takes three.

    Args:
        gallery: What to show.
        heading: A line above.

    Returns:
        The figure, 700 pixels wide.

    Example:
        >>> import torch
        >>> from lightning_camrobust.gallery import Gallery, Panel
        >>> clean = Panel(torch.rand(1, 8, 8), torch.rand(2, 2), torch.ones(8, 8, dtype=torch.bool), 3, "clean")
        >>> draw_portrait(Gallery([[clean]], "gradcam")).get_size_inches().tolist()[0]
        3.5
    """
    from matplotlib.figure import Figure

    above = wrap(heading, 60) or [""]
    below = wrap(explain_picture(gallery), 70)
    said = [[caption(panel, panels[0], gallery.measure) for panel in panels] for panels in gallery.rows]
    joined = [[(words.replace("\n", ", "), ink) for words, ink in each] for each in said]
    said = joined if all(_size(words) == _FONT for each in joined for words, _ in each) else said
    lines = 1 + max(len(words.split("\n")) for each in said for words, _ in each)
    room = lines * _LINE + 8
    row_height = room + _TILE + 8
    start, band = 16 + _LINE * len(above), len(gallery.rows[0]) * row_height + 2 * _GAP
    height = start + -(-len(gallery.rows) // _ACROSS) * band + 16 + _LINE * len(below)
    sheet = np.ones((height, _WIDTH, 3), dtype=np.float32)
    figure = Figure(figsize=(_WIDTH / DPI, height / DPI), dpi=DPI)
    for index, panels in enumerate(gallery.rows):
        left = _GAP + (index % _ACROSS) * (_PANEL + _GAP)
        for row, panel in enumerate(panels):
            top = start + (index // _ACROSS) * band + row * row_height
            _place(sheet, panel, left=left, top=top + room)
            words, ink = said[index][row]
            written = [(panel.title, "black"), *((line, ink) for line in words.split("\n"))]
            # Shorter texts stand close to their tiles as well.
            for line, (words, ink) in enumerate(written, start=lines - len(written)):
                height_of_line = 1 - (top + 6 + line * _LINE) / height
                figure.text(left / _WIDTH, height_of_line, words, color=ink, va="top", fontsize=_size(words))
    figure.figimage(sheet, origin="upper")
    figure.text(_GAP / _WIDTH, 1 - 6 / height, "\n".join(above), fontsize=_FONT, va="top")
    figure.text(_GAP / _WIDTH, 6 / height, "\n".join(below), fontsize=_FONT - 0.5, va="bottom")
    return figure


def _size(words: str) -> float:
    return fitting_size(words, _FONT, room=_PANEL, dpi=DPI)


def _place(sheet: Tile, panel: "Panel", *, left: int, top: int) -> None:
    for tile, edge in zip(panel_tiles(panel, side=_TILE), (left, left + _TILE + _GAP // 2), strict=True):
        sheet[top : top + _TILE, edge : edge + _TILE] = tile
