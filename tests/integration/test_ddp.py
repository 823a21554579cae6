"""One process and several give the same numbers, by Lightning's own engine on gloo."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "tests.integration.ddp_run", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@functools.cache
def results(devices, strategy, case, batch_size, count, inputs):
    done = run(devices, strategy, case, batch_size, count, inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    found = {int(rank): json.loads(text) for _, rank, text in lines}
    assert len(found) == devices  # each process told its result: none is quietly missing
    return found


def largest_difference(one, other):
    pairs = [pair for cells in zip(one["cells"], other["cells"], strict=True) for pair in zip(*cells, strict=True)]
    assert one["logged"].keys() == other["logged"].keys()
    pairs += [(one["logged"][key], other["logged"][key]) for key in one["logged"]]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) for a, b in pairs if a is not None)


@pytest.mark.parametrize(
    ("devices", "strategy", "case", "batch_size", "count", "inputs"),
    [
        (2, "ddp_spawn", "even", 4, 32, "raw"),
        (2, "ddp", "even", 16, 32, "raw"),
        (3, "ddp_spawn", "uneven", 4, 29, "normalised"),
        (3, "ddp_spawn", "uneven", 16, 17, "raw"),  # 17 images on 3 processes: one is repeated, and counted once
        (2, "ddp_spawn", "uneven", 4, 17, "known"),
        (2, "ddp_spawn", "idle", 4, 24, "raw"),
        (3, "ddp_spawn", "idle", 16, 24, "raw"),
    ],
)
def test_several_processes_equal_one(devices, strategy, case, batch_size, count, inputs, record_property):
    alone = results(1, "auto", case, 4, count, inputs)[0]
    together = results(devices, strategy, case, batch_size, count, inputs)
    share = -(-24 // devices) if case == "idle" else 24
    assert together[0]["num_images"] == min(share, count)
    if case == "idle":
        # A stream has no positions: each process may give its share of num_samples, and the idle one gives nothing.
        assert all(result == together[0] | {"collectives": result["collectives"]} for result in together.values())
        return
    assert sum(cell[3] for cell in alone["cells"]) > 0  # some predictions changed, so that both sets are compared
    difference = max(largest_difference(alone, result) for result in together.values())
    print(f"{devices} x {strategy}, {case}, batch {batch_size}, {count} images: largest difference {difference:.1e}")
    assert difference <= 1e-9


def test_one_synchronisation_a_validation():
    assert results(2, "ddp_spawn", "uneven", 4, 17, "known")[0]["collectives"] == 1
    # Unknown constants are settled among all processes once, before the first number.
    assert results(2, "ddp_spawn", "even", 4, 32, "raw")[0]["collectives"] == 2


def test_an_error_on_one_rank_ends_all():
    done = run(2, "ddp_spawn", "error", 4, 24, "raw")
    assert done.returncode != 0
    assert "only this rank" in done.stderr
