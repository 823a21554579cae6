"""Lay a figure out in points from its top left corner: heading, key, then free space for panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_camrobust.study.figures.style import Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 10.0
LABEL = 8.5
SMALL = 7.5
# Between lines of text, in units of their size.
LEADING = 1.35
SWATCH = 20.0
KEY_ROW = 14.0


@dataclass(frozen=True)
class Entry:
    """One line of a key.

    Attributes:
        label: What the sign means.
        look: Arguments of the `Line2D` that shows the sign.
    """

    label: str
    look: Mapping[str, Any]


@dataclass(frozen=True)
class Heading:
    """What stands above the panels.

    Attributes:
        title: What is shown; also the title for screen readers.
        subtitle: How to read it.
        description: The numbers in words, for screen readers.
        key: Signs and their meaning.
    """

    title: str
    subtitle: str = ""
    description: str = ""
    key: Sequence[Entry] = field(default=())


@dataclass(frozen=True)
class Sheet:
    """A figure with its heading drawn.

    Attributes:
        figure: The figure.
        ground: Axes over all of it, in points from the top left corner.
        palette: Its colours.
        width: In points.
        height: In points.
        top: Where the free space begins, in points from the top.
    """

    figure: "Figure"
    ground: "Axes"
    palette: Palette
    width: float
    height: float
    top: float

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        """Write on the ground, `x` and `y` in points; on the base line unless ``va`` is given."""
        settings: dict[str, Any] = {
            "fontsize": LABEL,
            "color": self.palette.ink,
            "rotation_mode": "anchor",
            "va": "baseline",
        }
        self.ground.text(x, y, text, **(settings | look))

    def line(self, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
        """Draw on the ground, in points."""
        settings: dict[str, Any] = {"color": self.palette.ink, "linewidth": 0.8, "solid_capstyle": "butt"}
        self.ground.plot(x, y, **(settings | look))

    def panel(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Add empty axes with a quiet look, all in points from the top left corner."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, facecolor="none")
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set(color=self.palette.muted, linewidth=0.8)
        axes.tick_params(
            labelsize=SMALL, labelcolor=self.palette.muted, color=self.palette.muted, length=2.5, width=0.8
        )
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        return axes


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Measure a line of text in points.

    Args:
        text: The line.
        size: Of the font, in points.
        bold: Whether it is bold.

    Returns:
        Its width in the font that ships with matplotlib, which is wider than most.

    Example:
        >>> text_width("gradcam", 9) > text_width("gradcam", 8)
        True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def wrap(text: str, size: float, width: float, *, bold: bool = False) -> list[str]:
    """Break text into lines at its blanks.

    Args:
        text: What to break.
        size: Of the font, in points.
        width: Largest width of a line in points; a longer word has a line of its own.
        bold: Whether it is bold.

    Returns:
        The lines; none for empty text.

    Example:
        >>> wrap("one two", 9, 25)
        ['one', 'two']
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def new_sheet(heading: Heading, *, palette: Palette, width: float, body: float) -> Sheet:
    """Start a figure.

    Args:
        heading: What stands on top.
        palette: Its colours.
        width: Of the figure, in inches.
        body: Height of the free space below the heading, in points.

    Returns:
        The sheet, with its heading drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = width * 72
    title = wrap(heading.title, TITLE, across - 4, bold=True)
    subtitle = wrap(heading.subtitle, SMALL, across - 4)
    rows = _flow(heading.key, across)
    top = (len(title) * TITLE + len(subtitle) * SMALL) * LEADING + KEY_ROW * len(rows) + 8
    figure = Figure(figsize=(width, (top + body) / 72), facecolor="none")
    FigureCanvasAgg(figure)
    # The one text that every matplotlib figure carries along; `as_svg` reads title and description from it.
    figure.set_label(f"{heading.title}\n{heading.description or heading.subtitle}")
    ground = figure.add_axes((0, 0, 1, 1), facecolor="none", xlim=(0, across), ylim=(top + body, 0), autoscale_on=False)
    ground.set_axis_off()
    sheet = Sheet(figure, ground, palette, across, top + body, top)
    y = 0.0
    for lines, size, look in ((title, TITLE, {"fontweight": "bold"}), (subtitle, SMALL, {"color": palette.muted})):
        for line in lines:
            y += size * LEADING
            sheet.text(1, y - 0.3 * size, line, fontsize=size, **look)
    _draw_key(sheet, rows, y + 4)
    return sheet


def _flow(entries: Sequence[Entry], across: float) -> list[list[tuple[float, Entry]]]:
    rows: list[list[tuple[float, Entry]]] = []
    x = across
    for entry in entries:
        needed = SWATCH + 4 + text_width(entry.label, SMALL)
        if x + needed > across or not rows:
            rows.append([])
            x = 1.0
        rows[-1].append((x, entry))
        x += needed + 12
    return rows


def _draw_key(sheet: Sheet, rows: list[list[tuple[float, Entry]]], top: float) -> None:
    for index, row in enumerate(rows):
        y = top + KEY_ROW * (index + 0.5)
        for x, entry in row:
            # Three points, so that the marker sits in the middle of the line.
            sheet.line([x, x + SWATCH / 2, x + SWATCH], [y, y, y], **({"markevery": [1]} | dict(entry.look)))
            sheet.text(x + SWATCH + 4, y + 0.36 * SMALL, entry.label, fontsize=SMALL)
