"""How figures look: colours that work on light and dark pages, and how a figure is written to a file or into a page."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.vector import slim_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: a column of a desktop page, and the screen of a phone.
WIDE = 7.5
NARROW = 3.7
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
# Strongest tint of a cell: ink on top of it stays readable, on light and on dark.
STRONGEST = 0.62


@dataclass(frozen=True)
class Look:
    """How one method is drawn, in every figure of a report.

    Attributes:
        colour: Hex.
        marker: Name of the marker; it tells methods apart where colours do not.
        dash: Line style; solid for the first ten methods.
    """

    colour: str
    marker: str
    dash: Any


@dataclass(frozen=True)
class Palette:
    """Colours of a report. Every colour is a hex of six digits that occurs once in all palettes.

    Attributes:
        ink: Text and axes.
        muted: Text of lesser weight.
        grid: Grid lines.
        surface: The page below; only the inside of hollow points is painted with it.
        warning: What fails a limit.
        cool: Tint of large values, and of positive ones.
        warm: Tint of negative values.
        categories: Ten colours of methods, chosen to differ for colour-blind readers too.
        methods: All methods of the report, in the order that colours are given out.

    Example:
        >>> palette = LIGHT.for_methods(["gradcam", "eigencam"])
        >>> palette.look("eigencam").marker
        's'
    """

    ink: str
    muted: str
    grid: str
    surface: str
    warning: str
    cool: str
    warm: str
    categories: tuple[str, ...]
    methods: tuple[str, ...] = ()

    def for_methods(self, methods: Sequence[str]) -> "Palette":
        """Give each method a look of its own; pass all methods of the report, so that looks are the same everywhere.

        Args:
            methods: Labels; repeated ones count once.

        Returns:
            A palette that knows them.
        """
        return replace(self, methods=tuple(dict.fromkeys(methods)))

    def look(self, method: str) -> Look:
        """Say how a method is drawn.

        Args:
            method: Label.

        Returns:
            Colour, marker and dash.

        Raises:
            ArgumentError: If the palette was not told of the method.
        """
        if method not in self.methods:
            raise ArgumentError(
                f"Palette: `method` must be one of {list(self.methods)}, got {method!r}. Name all methods of the "
                "report with `palette.for_methods(...)` before drawing."
            )
        turn, slot = divmod(self.methods.index(method), len(self.categories))
        # From the eleventh method on, colours come again with another marker and dash.
        marker = MARKERS[(slot + 3 * turn) % len(MARKERS)]
        return Look(self.categories[slot], marker, DASHES[turn % len(DASHES)])

    def sequential(self, fraction: float) -> tuple[str, float]:
        """Tint a cell by a value.

        Args:
            fraction: In [0, 1]; 0 is the bare page.

        Returns:
            Colour and opacity: a tint works on a light and on a dark page alike.

        Example:
            >>> LIGHT.sequential(0.0)[1]
            0.0
        """
        return self.cool, STRONGEST * min(max(fraction, 0.0), 1.0)

    def diverging(self, fraction: float) -> tuple[str, float]:
        """Tint a cell by a value with a sign.

        Args:
            fraction: In [-1, 1]; 0 is the bare page.

        Returns:
            Colour and opacity.

        Example:
            >>> LIGHT.diverging(-1.0) == (LIGHT.warm, STRONGEST)
            True
        """
        return (self.cool if fraction > 0 else self.warm), STRONGEST * min(abs(fraction), 1.0)

    def variables(self) -> dict[str, str]:
        """Name the colours as CSS variables of a page, such as ``--ink``, which figures made by `as_svg` obey.

        Returns:
            Values by name.

        Example:
            >>> DARK.variables()["--ink"] == DARK.ink
            True
        """
        roles = ("ink", "muted", "grid", "surface", "warning", "cool", "warm")
        named = {f"--{role}": str(getattr(self, role)) for role in roles}
        return named | {f"--method-{index}": colour for index, colour in enumerate(self.categories, start=1)}


LIGHT = Palette(
    ink="#1c2127",
    muted="#5b636d",
    grid="#d9dde2",
    surface="#fffffe",
    warning="#b42318",
    cool="#2f7fd3",
    warm="#d9822b",
    categories=(
        "#0a68f3",
        "#d84907",
        "#009d6e",
        "#743178",
        "#772313",
        "#2797de",
        "#5b3fb0",
        "#616972",
        "#88173e",
        "#56a351",
    ),
)
DARK = Palette(
    ink="#e8eaed",
    muted="#a2abb5",
    grid="#363c44",
    surface="#14171b",
    warning="#ff8b7f",
    cool="#3687dc",
    warm="#c97a2a",
    categories=(
        "#59ceff",
        "#ff8d1f",
        "#2d9264",
        "#b566a3",
        "#bfc678",
        "#87fffb",
        "#a791ff",
        "#b1b6c2",
        "#ff6f88",
        "#b3df5a",
    ),
)


@contextmanager
def own_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults and ours, whatever the user has set, and leave the user's settings as they were.

    Example:
        >>> with own_settings():
        ...     pass
    """
    import matplotlib.style

    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": "lightning_camrobust",
        "font.family": "sans-serif",
        "text.parse_math": False,
        "savefig.transparent": True,
        "hatch.linewidth": 0.6,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def save_figure(figure: "Figure", path: "str | Path") -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, on a transparent background, in the colours it was drawn with.

    Equal figures give equal bytes: neither a date nor a version is written.

    Args:
        figure: Made by one of the ``draw_...`` functions.
        path: Where to, without suffix; the folder exists.

    Returns:
        Paths of the PNG and the SVG.

    Raises:
        OSError: If the folder cannot be written to.
    """
    target = Path(path)
    png, svg = (target.parent / f"{target.name}.{suffix}" for suffix in ("png", "svg"))
    buffer = io.BytesIO()
    with own_settings():
        figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    png.write_bytes(buffer.getvalue())
    svg.write_bytes(slim_svg(_plain_svg(figure), prefix="g", title=str(figure.get_label()), variables={}).encode())
    return png, svg


def as_svg(figure: "Figure") -> str:
    """Write a figure as an ``<svg>`` element for a page.

    Its colours are CSS variables (see `Palette.variables`), with the colours it was drawn with where the page has none,
    so that one element follows a light and a dark theme. It shrinks with its column. Its ids hold a hash of what it
    shows, so that several figures share a page. Its title and description are there for screen readers.

    Args:
        figure: Made by one of the ``draw_...`` functions.

    Returns:
        The element.
    """
    plain = _plain_svg(figure)
    variables = {colour: name for palette in (LIGHT, DARK) for name, colour in palette.variables().items()}
    # No colour begins with a "g", so none is mistaken for an id.
    prefix = "g" + hashlib.sha256((str(figure.get_label()) + plain).encode()).hexdigest()[:6]
    return slim_svg(plain, prefix=prefix, title=str(figure.get_label()), variables=variables)


def _plain_svg(figure: "Figure") -> str:
    buffer = io.BytesIO()
    with own_settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode()
