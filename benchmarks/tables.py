"""A measured table, as Markdown for people and as plain data for programs."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Table:
    """One question and what was measured.

    Attributes:
        key: Short name.
        title: The question.
        columns: Headings.
        rows: Cells, texts or numbers.
        text: What was done, and how to read the table.
        goal: What was aimed at, and whether it was reached.
    """

    key: str
    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    text: str = ""
    goal: str = ""

    def markdown(self) -> str:
        """Write the table."""
        lines = [f"## {self.title}", "", self.text, ""]
        lines += [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in self.rows]
        return "\n".join([*lines, "", f"Goal: {self.goal}" if self.goal else "", ""])

    def data(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def spread(ratio: tuple[float, float, float]) -> str:
    """Write a median with its quartiles."""
    middle, low, high = ratio
    return f"{middle:.3g} ({low:.3g} - {high:.3g})" if middle >= 10 else f"{middle:.3f} ({low:.3f} - {high:.3f})"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
