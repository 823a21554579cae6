"""The results as a table, a row a part, and the survivors."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tests.mutation.choosing import PARTS, files_of

HEAD = """| part | files | mutants | killed | by timeout | survived | broken | share killed | 95% interval |
|---|---|---|---|---|---|---|---|---|"""


def report(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write the table and the list of survivors in Markdown."""
    rows = list(rows)
    controls, rows = _apart(rows)
    lines = [HEAD]
    for part in PARTS:
        files = set(files_of(part))
        lines.append(_row(part, [each for each in rows if each["file"] in files]))
    lines.append(_row("all", rows))
    survivors = [each for each in rows if each["verdict"] in ("survived", "no tests")]
    lines += ["", *map(_line, survivors)]
    broken = [each for each in rows if each["verdict"] == "broken"]
    lines += ["", f"Broken: {len(broken)} runs ended without a test that failed, and count as not killed."]
    lines += [f"{_line(each)} (code {each['code']})" for each in broken]
    passed = sum(each["verdict"] in ("survived", "no tests") for each in controls)
    lines += ["", f"Controls: {passed} of {len(controls)} unchanged files pass the tests that killed their mutants."]
    failed = [each for each in controls if each["verdict"] not in ("survived", "no tests")]
    lines += [f"- failed: {each['file']} {each['verdict']} {each['killer']}" for each in failed]
    return "\n".join(lines)


def _apart(rows: list[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    return [each for each in rows if each["number"] < 0], [each for each in rows if each["number"] >= 0]


def _line(row: Mapping[str, Any]) -> str:
    return f"- {row['file']}:{row['line']} #{row['number']} {row['name']}"


def wilson(killed: int, count: int) -> tuple[float, float]:
    """Bound a share at 95% by Wilson's interval, which stays within 0 and 1.

    Example:
        >>> [round(each, 3) for each in wilson(90, 100)]
        [0.826, 0.945]
    """
    if not count:
        return 0.0, 1.0
    z, share = 1.959964, killed / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def _row(part: str, rows: list[Mapping[str, Any]]) -> str:
    timeouts, broken = (sum(each["verdict"] == verdict for each in rows) for verdict in ("timeout", "broken"))
    killed = timeouts + sum(each["verdict"] == "killed" for each in rows)
    low, high = wilson(killed, len(rows))
    share = f"{killed / len(rows):.1%}" if rows else "-"
    files = len({each["file"] for each in rows})
    return (
        f"| {part} | {files} | {len(rows)} | {killed} | {timeouts} | {len(rows) - killed - broken} | {broken} | "
        f"{share} | {low:.1%} to {high:.1%} |"
    )
