"""Sweep over torchvision and timm: `python -m benchmarks.zoo --results zoo.jsonl --table docs/zoo.md`.

Each result is written as soon as it is there, and a network that has one is not run again, so the sweep may be stopped
and started at any time. Each network runs in a process of its own.
"""

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.zoo.measure import measure
from benchmarks.zoo.networks import Entry, timm_entries, torchvision_entries
from benchmarks.zoo.table import as_markdown


def main() -> None:
    """Run what has no result yet, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="result file, one JSON row a network")
    parser.add_argument("--table", type=Path, help="where to write the table, as Markdown")
    parser.add_argument("--limit-s", type=float, default=900, help="seconds after which a network is given up")
    parser.add_argument("--only", default="", help="part of the names to run, such as timm/vit")
    asked = parser.parse_args()
    done = read(asked.results)
    entries = [each for each in [*torchvision_entries(), *chosen_of_timm(asked.results)] if asked.only in each.key]
    for number, entry in enumerate(entries, start=1):
        if entry.key in done:
            continue
        row = measure_apart(entry, limit_s=asked.limit_s)
        done[entry.key] = row
        with asked.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{number}/{len(entries)} {entry.key}: {row.get('score') or row.get('error')}", flush=True)
    if asked.table:
        asked.table.write_text(as_markdown(list(done.values())), encoding="utf-8")


def chosen_of_timm(results: Path) -> list[Entry]:
    """Read from beside the result file which members were chosen, or choose them."""
    choice = results.with_suffix(".timm.json")
    if not choice.exists():
        choice.write_text(json.dumps([asdict(each) for each in timm_entries()], indent=1), encoding="utf-8")
    return [Entry(**each) for each in json.loads(choice.read_text(encoding="utf-8"))]


def read(results: Path) -> dict[str, dict[str, Any]]:
    """Read the result file; a line that was cut off counts as missing."""
    rows: dict[str, dict[str, Any]] = {}
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["key"]] = row
    return rows


def measure_apart(entry: Entry, *, limit_s: float) -> dict[str, Any]:
    """Measure in a forked process, which takes its memory and its mistakes with it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(measure(entry)))
    process.start()
    sender.close()
    row: dict[str, Any] = {"key": entry.key, "library": entry.library, "family": entry.family, "network": entry.network}
    try:
        if not receiver.poll(limit_s):
            return {**row, "score": None, "error": f"not done within {limit_s:g} s"}
        return dict(receiver.recv())
    except EOFError:
        process.join()
        return {**row, "score": None, "error": f"the process ended with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    main()
