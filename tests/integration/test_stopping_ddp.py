"""Two processes stop and keep alike, whatever each of them logged; all cases in one launch, on gloo."""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@functools.cache
def results():
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.integration.stopping_run", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(2)]
        files = sorted(path.name for path in Path(folder, "kept").iterdir())
    for case, told in found[0].items():
        assert {**told, "rank": 1} == found[1][case], case
    return found[0], files


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("agree", ["improved", "improved", "not improved", "patience exhausted"]),
        ("guard", ["improved", "guard missed", "not improved", "patience exhausted"]),
        ("one logs", ["improved", "guard missed", "not improved", "patience exhausted"]),
    ],
)
def test_two_processes_stop_alike(case, expected):
    told = results()[0][case]
    assert [row["reason"] for row in told["verdicts"]] == expected
    assert told["epochs"] == 4
    assert told["stopped"] == 3
    if case == "agree":
        # The very numbers, no means of two.
        assert [row["value"] for row in told["verdicts"]] == torch.tensor([0.1, 0.7, 0.6, 0.5]).tolist()


def test_a_missing_key_is_refused_on_both():
    assert "`monitor` must be the key of a value" in results()[0]["misspelt"]["error"]


def test_two_processes_keep_alike():
    """Means of two: accuracies 0.55, 0.85, 0.55 and stabilities 0.3, 0.5, 0.5, so the second beats both others."""
    told, files = results()
    ((path, accuracy, stability),) = told["keep"]["front"]
    assert (accuracy, stability) == pytest.approx((0.85, 0.5))
    assert path == told["keep"]["best"]
    assert [Path(path).name] == files == ["epoch=1-val_acc=0.85-val_stable_accuracy=0.675.ckpt"]
    # The stopper beside it sees the number of the same validation.
    assert [row["value"] for row in told["keep"]["verdicts"]] == pytest.approx([0.425, 0.675, 0.525])
