"""One process and several give the same numbers, by Lightning's own engine on gloo."""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "tests.integration.ddp_run", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@functools.cache
def results(devices, strategy, case, batch_size, count, inputs):
    with tempfile.TemporaryDirectory() as folder:
        done = run(folder, devices, strategy, case, batch_size, count, inputs)
        assert done.returncode == 0, done.stderr[-3000:]
        found = {int(file.stem): json.loads(file.read_text()) for file in Path(folder).iterdir()}
    assert len(found) == devices  # each process told its result: none is quietly missing
    return found


def largest_difference(one, other):
    pairs = [pair for cells in zip(one["cells"], other["cells"], strict=True) for pair in zip(*cells, strict=True)]
    assert one["logged"].keys() == other["logged"].keys()
    pairs += [(one["logged"][key], other["logged"][key]) for key in one["logged"]]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) for a, b in pairs if a is not None)


@pytest.mark.parametrize("batch_size", [4, 16])
@pytest.mark.parametrize(
    ("devices", "strategy", "case", "count", "inputs"),
    [
        (2, "ddp", "even", 32, "raw"),
        (3, "ddp_spawn", "even", 33, "known"),
        (2, "ddp_spawn", "uneven", 17, "known"),  # 17 images: one is repeated to fill the shards, and counted once
        (3, "ddp_spawn", "uneven", 29, "normalised"),
        (2, "ddp_spawn", "idle", 24, "raw"),
        (3, "ddp_spawn", "idle", 24, "known"),
    ],
)
def test_several_processes_equal_one(devices, strategy, case, batch_size, count, inputs):
    alone = results(1, "auto", case, 4, count, inputs)[0]
    together = results(devices, strategy, case, batch_size, count, inputs)
    assert {result["num_images"] for result in (alone, *together.values())} == {min(24, count)}
    assert sum(cell[3] for cell in alone["cells"]) > 0  # some predictions changed, so that both sets are compared
    difference = max(largest_difference(alone, result) for result in together.values())
    print(f"{devices} x {strategy}, {case}, batch {batch_size}, {count} images: largest difference {difference:.1e}")
    assert difference <= 1e-9


def test_one_synchronisation_a_validation():
    assert results(2, "ddp_spawn", "uneven", 4, 17, "known")[0]["collectives"] == 1
    # Unknown constants are settled among all processes once, before the first number.
    assert results(2, "ddp_spawn", "even", 4, 32, "raw")[0]["collectives"] == 2


def test_an_error_on_one_rank_ends_all():
    done = run(".", 2, "ddp_spawn", "error", 4, 24, "raw")
    assert done.returncode != 0
    assert "only this rank" in done.stderr


def test_nobody_is_told_to_synchronise_what_is_equal_everywhere(tmp_path):
    done = run(tmp_path, 2, "ddp_spawn", "aloud", 16, 32, "known")
    assert done.returncode == 0
    assert "Using `DistributedSampler`" in done.stderr  # warnings do come through
    assert "sync_dist" not in done.stderr
