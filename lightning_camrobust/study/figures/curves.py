"""Bring the scores of methods into curves; methods with the same numbers share one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_camrobust.study.figures.style import Palette
from lightning_camrobust.study.findings import ScoreRow


@dataclass(frozen=True)
class Curve:
    """What one or several methods score.

    Attributes:
        methods: Labels; several where all their numbers are the same.
        rows: By perturbation and severity.
    """

    methods: tuple[str, ...]
    rows: dict[tuple[str, int], ScoreRow]

    @property
    def label(self) -> str:
        """All methods, as in an equation."""
        return " = ".join(self.methods)


def merge_curves(rows: Sequence[ScoreRow], *, palette: Palette) -> list[Curve]:
    """Bring rows into one curve a method, and methods with the same numbers into one curve.

    Args:
        rows: One a method, perturbation and severity.
        palette: Its order of methods is kept.

    Returns:
        The curves. Two methods share one only if scores, intervals and counts agree in every row.
    """
    by_method: dict[str, dict[tuple[str, int], ScoreRow]] = {}
    for row in rows:
        palette.look(row.method)
        by_method.setdefault(row.method, {})[str(row.perturbation), int(row.severity or 0)] = row
    curves: list[Curve] = []
    for method in sorted(by_method, key=palette.methods.index):
        mine = by_method[method]
        twin = next((index for index, curve in enumerate(curves) if _same_numbers(curve.rows, mine)), None)
        if twin is None:
            curves.append(Curve((method,), mine))
        else:
            curves[twin] = Curve((*curves[twin].methods, method), curves[twin].rows)
    return curves


def _same_numbers(first: dict[tuple[str, int], ScoreRow], second: dict[tuple[str, int], ScoreRow]) -> bool:
    def numbers(row: ScoreRow) -> list[float]:
        estimates = (row.robustness, row.consistency, row.responsiveness)
        return [number for each in estimates for number in each] + [row.same_count, row.changed_count]

    def close(one: float, other: float) -> bool:
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=0, abs_tol=1e-9)

    return first.keys() == second.keys() and all(
        close(one, other)
        for cell in first
        for one, other in zip(numbers(first[cell]), numbers(second[cell]), strict=True)
    )
