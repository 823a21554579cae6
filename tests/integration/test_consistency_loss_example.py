"""examples/regularise_cifar10.py on few digits: what it trains, keeps and prints."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = [
    *("--epochs", "1", "--train-images", "100", "--test-images", "12"),
    *("--seeds", "0", "--copies", "1", "--agreement", "2", "--folder", "results"),
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run_it(*arguments):
        monkeypatch.setattr(sys, "argv", ["regularise_cifar10.py", *arguments])
        runpy.run_path(str(EXAMPLES / "regularise_cifar10.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_it


def test_every_way_is_trained_once_and_shown(run, tmp_path):
    printed = run(*SMALL)
    ways = ("copies0-maps0", "copies1-maps0", "copies1-maps2")
    files = sorted((tmp_path / "results").iterdir())
    assert [file.name for file in files] == [f"test-{way}-seed0.npz" for way in ways]
    for way in ways:
        assert sum(way in line for line in printed.splitlines()) == 6, way  # one line a noise
    written = [file.stat().st_mtime_ns for file in files]
    assert run(*SMALL) == printed
    assert [file.stat().st_mtime_ns for file in files] == written


def test_scores_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    example = runpy.run_path(str(EXAMPLES / "regularise_cifar10.py"))
    similarity = np.full((4, 6), np.nan)
    similarity[:, 0] = 0.5, 1.0, 0.25, np.nan
    same = np.ones((4, 6), dtype=bool)
    same[2, 0] = False
    found = {"similarity": similarity, "same_class": same, "rankable": ~np.isnan(similarity)}
    value, drawn = example["scores_of_resamples"]([found], ["gaussian_noise"])
    np.testing.assert_allclose(value, [0.75 * 0.75, 0.75, 0.75, 1 / 3])
    assert drawn.shape == (2000, 4)


def test_a_missing_file_is_said(run, capsys):
    with pytest.raises(SystemExit):
        run("--data", "nowhere.npz")
    assert "--data nowhere.npz is not a file" in capsys.readouterr().err
