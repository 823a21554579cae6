import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(folder, *kill_in):
    command = [sys.executable, "-m", "tests.integration.resume_run", str(folder), *map(str, kill_in)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def history(done):
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("HISTORY")]
    return json.loads(line.removeprefix("HISTORY "))


def test_killed_in_validation_and_resumed_equals_uninterrupted(tmp_path):
    whole = history(run(tmp_path / "whole"))
    killed = run(tmp_path / "killed", 2)
    assert killed.returncode == -9
    resumed = history(run(tmp_path / "killed"))
    assert [row["epoch"] for row in whole] == [0, 1, 2, 3]
    assert resumed == whole
