"""Draw estimates as points with whiskers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_camrobust.study.figures.sheet import Entry
from lightning_camrobust.study.figures.style import Look, Palette
from lightning_camrobust.study.findings import LOW_SUPPORT_IMAGES, Estimate, ScoreRow
from lightning_camrobust.summary import LOW_SUPPORT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {
    "robustness": "Robustness RM",
    "consistency": "Consistency C",
    "responsiveness": "Responsiveness R",
    "flip_rate": "Flip rate",
}
FLOOR_DASH = (0, (3, 2))
UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def draw_points(
    axes: "Axes",
    places: Sequence[float],
    estimates: Sequence[Estimate],
    *,
    hollow: Sequence[bool],
    look: Look,
    surface: str,
    name: str,
    along: str = "x",
    size: float = 5.0,
) -> None:
    """Draw estimates of one method; undefined ones are left out.

    Args:
        axes: Where to.
        places: Where each estimate stands on the other axis.
        estimates: Values and intervals.
        hollow: Whether each point is hollow, for low support.
        look: Of the method.
        surface: Colour inside hollow points.
        name: Label of the method; artists carry it as ``"points gradcam"``, ``"hollow gradcam"`` and so on.
        along: ``"x"`` if values run along x (a forest), ``"y"`` if along y (a curve, whose points are joined).
        size: Of the markers, in points.
    """
    values = [each.value for each in estimates]

    def plot(what: str, places: Sequence[float], values: Sequence[float], **settings: Any) -> None:
        if any(not math.isnan(value) for value in values):
            pair = (values, places) if along == "x" else (places, values)
            axes.plot(*pair, color=look.colour, label=f"_{what} {name}", clip_on=False, **settings)

    # One broken line for all whiskers keeps the file small; an interval without an end is not drawn.
    whiskers = [(place, each) for place, each in zip(places, estimates, strict=True) if not math.isnan(sum(each))]
    ends = [end for _, each in whiskers for end in (each.low, each.high, math.nan)]
    # Among curves whiskers are many and thin.
    thin: dict[str, Any] = {"linewidth": 1.4, "solid_capstyle": "butt"}
    thin |= {"linewidth": 1.0, "alpha": 0.7} if along == "y" else {}
    plot("whiskers", [place for place, _ in whiskers for _ in range(3)], ends, **thin)
    if along == "y":
        plot("curve", places, values, linestyle=look.dash, dash_capstyle="butt", **thin)
    for what, chosen in (("points", False), ("hollow", True)):
        shown = [value if flag is chosen else math.nan for value, flag in zip(values, hollow, strict=True)]
        # A hollow point is as large as a filled one: half of its edge lies outside.
        ring = {"markersize": size - 1, "markerfacecolor": surface, "markeredgewidth": 1.0}
        disc = {"markersize": size, "markeredgewidth": 0.0}
        plot(what, places, shown, linestyle="none", marker=look.marker, **(ring if chosen else disc))


def joint_limits(estimates: Sequence[Estimate], *, least: float | None = None) -> tuple[float, float]:
    """Find limits of an axis that hold all values and intervals.

    Args:
        estimates: What is drawn.
        least: Where the axis begins; None to find out.

    Returns:
        Limits with a margin of 5%; 0 and 1 if nothing is defined.

    Example:
        >>> joint_limits([Estimate(0.5, 0.4, 1.4)], least=0.4)
        (0.4, 1.45)
    """
    numbers = [number for each in estimates for number in each if not math.isnan(number)]
    if not numbers:
        return 0.0, 1.0
    low, high = min(numbers), max(numbers)
    if least is not None:
        low = min(least, low)
    margin = 0.05 * (high - low) or 0.05
    return (low if low == least else low - margin), high + margin


def in_words(value: float, *, digits: int = 2) -> str:
    """Write a number for a figure.

    Args:
        value: Number or NaN.
        digits: After the point.

    Returns:
        Text; an en dash for NaN.

    Example:
        >>> in_words(0.128), in_words(float("nan"))
        ('0.13', '–')
    """
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def is_thin(row: ScoreRow, measure: str) -> bool:
    """Say whether a score rests on few pairs.

    Args:
        row: Scores with their counts.
        measure: ``"robustness"``, ``"consistency"``, ``"responsiveness"`` or ``"flip_rate"``.

    Returns:
        Whether a set that this very score is a mean of has fewer than 30 pairs, or pairs of fewer than 10 images. The
        images behind a flip rate are those of the larger set at least.
    """
    if measure == "robustness":
        return row.low_support
    pairs, images = {
        "consistency": (row.same_count, row.same_images),
        "responsiveness": (row.changed_count, row.changed_images),
        "flip_rate": (row.same_count + row.changed_count, max(row.same_images, row.changed_images)),
    }[measure]
    return pairs < LOW_SUPPORT or images < LOW_SUPPORT_IMAGES


def low_support_entry(palette: Palette, *, sign: str = "hollow") -> Entry:
    """Explain the sign of low support.

    Args:
        palette: Colours.
        sign: What it is called.

    Returns:
        A line of a key.
    """
    face = {"markerfacecolor": palette.surface, "markersize": 4.5}
    look = {"color": palette.muted, "marker": "o", "linestyle": "none"} | face
    return Entry(f"{sign}: fewer than {LOW_SUPPORT} pairs or {LOW_SUPPORT_IMAGES} images", look)


def floor_entry(rows: Sequence[ScoreRow], *, palette: Palette) -> list[Entry]:
    """Explain the dashed line of the chance floor.

    Args:
        rows: What is drawn.
        palette: Colours.

    Returns:
        A line of a key, with the value where it is the same everywhere; none if no floor is known.
    """
    floors = {f"{row.chance_floor:.3f}" for row in rows if not math.isnan(row.chance_floor)}
    if not floors:
        return []
    label = "chance floor of RM" + (f", {floors.pop()}" if len(floors) == 1 else "")
    return [Entry(label, {"color": palette.muted, "linestyle": FLOOR_DASH, "linewidth": 1.0})]
