"""Which figures a report has, how they are called and what stands below them."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_camrobust.study.figures.critical_difference import draw_critical_difference
from lightning_camrobust.study.figures.difference import draw_difference
from lightning_camrobust.study.figures.forest import draw_forest
from lightning_camrobust.study.figures.heatmap import draw_heatmap
from lightning_camrobust.study.figures.settings import draw_settings
from lightning_camrobust.study.figures.severity_curves import draw_severity_curves
from lightning_camrobust.study.figures.style import LIGHT, NARROW, WIDE, Palette, as_svg, save_figure
from lightning_camrobust.study.findings import Findings, ModelDifference, ModelFindings
from lightning_camrobust.study.page.sentences import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Illustration:
    """One figure.

    Attributes:
        group: What it shows, such as ``"forest"``; also the start of its file's name.
        place: Which model, fit or comparison it belongs to, counted from 0.
        stem: Of its files, without suffix.
        caption: What a reader should see in it.
        figure: As drawn for light pages.
        narrow: The same for the screen of a phone; None where the wide one is scrolled there.
    """

    group: str
    place: int
    stem: str
    caption: str
    figure: "Figure"
    narrow: "Figure | None" = None

    @property
    def svg(self) -> str:
        """The figure as an element of the page, which follows the page's colours."""
        return as_svg(self.figure)

    @property
    def narrow_svg(self) -> str:
        """The same for a phone; empty if there is none."""
        return "" if self.narrow is None else as_svg(self.narrow)


def draw_illustrations(findings: Findings) -> tuple[Illustration, ...]:
    """Draw all figures of a report.

    Args:
        findings: Of a study.

    Returns:
        Figures in the colours of light pages; none for what was not measured.
    """
    methods = [row.method for model in findings.models for row in model.scores]
    palette = LIGHT.for_methods([*methods, *(each.method for each in findings.differences)])
    drawn = [each for place, model in enumerate(findings.models) for each in _of_model(model, place, palette)]
    for place, group in enumerate(group_differences(findings.differences)):
        first = group[0]
        stem = file_stem("difference", place + 1, first.second, first.first, first.kind)
        caption = f"{first.second} minus {first.first}, with intervals; right of zero the second is higher."
        drawn.append(_both("difference", place, stem, caption, partial(draw_difference, group, palette=palette)))
    return tuple(drawn)


def group_differences(differences: Sequence[ModelDifference]) -> list[list[ModelDifference]]:
    """Bring together the differences of the same two models under the same kind of noise, one a CAM method.

    Args:
        differences: In any order.

    Returns:
        Groups, in the order of their first member.
    """
    groups: dict[tuple[str, str, str], list[ModelDifference]] = {}
    for each in differences:
        groups.setdefault((each.first, each.second, each.kind), []).append(each)
    return list(groups.values())


def save_illustrations(illustrations: tuple[Illustration, ...], folder: Path) -> None:
    """Save figures as PNG and SVG.

    Args:
        illustrations: Figures.
        folder: Where to; made if there is a figure.

    Raises:
        OSError: If a file cannot be written.
    """
    for each in illustrations:
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(each.figure, folder / each.stem)


def file_stem(*words: object) -> str:
    """Make the name of a file from labels of the user.

    Args:
        words: Any text.

    Returns:
        Lower-case letters, digits, dots, minus signs and underscores only.

    Example:
        >>> file_stem("forest", 1, "../My Net!")
        'forest_1_my-net'
    """
    cleaned = [re.sub(r"[^a-z0-9._]+", "-", str(word).lower()).strip("-._") for word in words]
    return "_".join(word[:40] for word in cleaned if word)


def _of_model(model: ModelFindings, place: int, palette: Palette) -> Iterator[Illustration]:
    def stem(group: str, more: str = "") -> str:
        return file_stem(group, place + 1, model.model, more)

    for kind, noises in KINDS.items():
        rows = [row for row in model.scores if row.kind == kind]
        of_kind: dict[str, Any] = {"kind": kind, "palette": palette}
        if any(row.perturbation is None and row.severity is None for row in rows):
            caption = f"{noises}, pooled: each score with its interval."
            yield _both("forest", place, stem("forest", kind), caption, partial(draw_forest, model, **of_kind))
        if len({row.severity for row in rows if row.perturbation and row.severity is not None}) > 1:
            caption = f"{noises}: robustness RM by severity."
            draw = partial(draw_severity_curves, model, **of_kind)
            yield _both("severity", place, stem("severity", kind), caption, draw)
        if len({row.perturbation for row in rows if row.perturbation and row.severity is None}) > 1:
            caption = f"{noises}: robustness RM of each method under each perturbation, over all severities."
            yield _both("heatmap", place, stem("heatmap", kind), caption, partial(draw_heatmap, model, **of_kind))
    yield from _of_rankings(model, place, palette)


def _of_rankings(model: ModelFindings, place: int, palette: Palette) -> Iterator[Illustration]:
    named: dict[str, Any] = {"palette": palette, "model": model.model}
    noises = "Noises" if model.ranked_kind is None else KINDS[model.ranked_kind]
    for test in model.rank_tests:
        if any(math.isnan(rank) for rank in test.mean_ranks):
            continue  # no image has a value for every method; the text says so
        group = f"ranks_{test.measure}"
        stem = file_stem(group, place + 1, model.model)
        caption = f"{noises}: mean ranks by {test.measure}, best on the left."
        yield _both(group, place, stem, caption, partial(draw_critical_difference, test, **named))
    if model.stability is not None:
        stem = file_stem("settings", place + 1, model.model)
        caption = f"{noises}: rank of each method under each setting, tinted where it leaves that of the main setting."
        yield _both("settings", place, stem, caption, partial(draw_settings, model.stability, **named))


def _both(group: str, place: int, stem: str, caption: str, draw: "Callable[..., Figure]") -> Illustration:
    return Illustration(group, place, stem, caption, draw(width=WIDE), draw(width=NARROW))
