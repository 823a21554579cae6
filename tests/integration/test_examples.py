"""Every example runs with small settings, and prints and writes what its first lines promise."""

import copy
import re
import runpy
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image
from skimage import data

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [
    # As an error this would send jsonargparse on to the next type of a union, and what it writes would be right.
    pytest.mark.filterwarnings(r"ignore:\s*Unable to serialize.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),  # of torch, about Lightning's own use of it
    pytest.mark.filterwarnings("ignore:The number of training batches .* smaller than the logging interval.*"),
]
PROGRAMS = sorted(str(path.relative_to(EXAMPLES).with_suffix("")) for path in EXAMPLES.rglob("*.py"))
SMALL = ("--epochs", "1", "--num-images", "256", "--num-samples", "4")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example as a program, in this process and in an empty folder; returns what it printed."""

    def run_it(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for the folder of a program
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_it


def photo_tiles(count):
    """Real pictures of 32 x 32 pixels, (count, 32, 32, 3) uint8."""
    photo = data.astronaut()[:512, :512]
    return photo.reshape(16, 32, 16, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:count]


def test_quickstart(run, tmp_path):
    printed = run("quickstart", *SMALL)
    assert re.search(r"epoch 0: robustness (\d\.\d{3}|undefined), flip rate \d\.\d{3}", printed)
    assert re.search(r"  val_cam_robustness = \d\.\d{3}\n", printed)
    assert list((tmp_path / "runs" / "quickstart").rglob("events.out.tfevents*"))


def test_two_loggers_agree(run):
    printed = run("two_loggers", *SMALL)
    (in_csv,) = re.findall(r"epoch 0: ([\d.]+)", printed)
    (in_tensorboard,) = re.findall(r"step \d+: ([\d.]+)", printed)
    assert float(in_csv) == pytest.approx(float(in_tensorboard), abs=1e-6)
    assert "pictures in TensorBoard: cam" in printed


def test_own_cam_method(run):
    printed = run("own_cam_method", *SMALL)
    for noise in ("gaussian_noise", "impulse_noise"):
        rows = {line.split()[0]: line.split()[2:] for line in printed.splitlines() if noise in line}
        assert rows["SharpCAM"] == rows["gradcam"]
        assert "SharpCAM_2" in rows


def test_own_perturbation(run):
    printed = run("own_perturbation", *SMALL)
    assert re.findall(r"DeadRows +severity (\d): flip rate [\d.]+, consistency", printed) == ["1", "3", "5"]


def test_vision_transformer(run):
    printed = run("vit", *SMALL)
    assert "explained layer: backbone.blocks.3.norm1" in printed
    assert re.findall(r"^(\w+) +robustness", printed, re.MULTILINE) == ["gradcam", "attention_rollout"]


def test_grey_scans(run):
    printed = run("grey_scans", *SMALL)
    assert re.search(r"^(1\d|2\d)% of 256 training tiles are positive$", printed, re.MULTILINE)
    assert re.findall(r"^(\w+) +severity 3: robustness", printed, re.MULTILINE) == [
        "gaussian_noise",
        "shot_noise",
        "brightness",
        "contrast",
    ]


def test_checkpoint_audit(run, tmp_path):
    printed = run("checkpoint_audit", *SMALL)
    assert {file.name for file in (tmp_path / "runs" / "audit").iterdir()} == {"plain.ckpt", "noise_trained.ckpt"}
    assert len(re.findall(r"^(?:plain|noise_trained) +\w+ +\w+ +robustness", printed, re.MULTILINE)) == 12
    assert re.search(r"gradcam: second minus first [+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\], \w+", printed)


def test_fine_tuning_freezes_and_unfreezes(run):
    printed = run(
        "finetune_textures", "--epochs", "2", "--unfreeze-at", "1", "--num-images", "32", "--num-samples", "4"
    )
    assert "epoch 0 (backbone frozen): robustness" in printed
    assert "epoch 1 (backbone unfrozen): robustness" in printed


def test_demo(run, tmp_path):
    printed = run("demo", *SMALL, "--folder", str(tmp_path / "runs"))
    assert "Does it keep looking at the same place?" in printed
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_cifar_example_on_other_pictures(run, tmp_path):
    tiles = photo_tiles(96)
    labels = np.arange(96) % 10
    np.savez(tmp_path / "tiles.npz", x_train=tiles[:64], y_train=labels[:64], x_test=tiles[64:], y_test=labels[64:])
    printed = run("finetune_cifar10", "--data", "tiles.npz", "--epochs", "1", "--num-samples", "4")
    assert "Most stable checkpoint: " in printed


def test_imagenet_example(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, photo in (("0285_n02124075", data.chelsea()), ("0967_n07920052", data.coffee())):
        Image.fromarray(photo).save(folder / f"{name}.jpg")
    settings = ("--num-samples", "2", "--methods", "gradcam", "--severities", "3", "--table", "table.md")
    printed = run("imagenet_checkpoint", "--images", str(folder), *settings)
    assert "accuracy" in printed
    assert "| gradcam | impulse_noise |" in (tmp_path / "table.md").read_text()


def test_study_example(run, tmp_path):
    run("study_digits", "--epochs", "1", "--num-test", "20", "--folder", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"plain.pt", "noise_trained.pt", "test.npz"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, about Lightning's own use of it
@pytest.mark.filterwarnings("ignore:StableCheckpoint kept no checkpoint.*")  # after so little training
def test_lightning_cli(run, tmp_path):
    settings = ("--trainer.max_epochs", "1", "--data.num_images", "256", "--trainer.log_every_n_steps", "1")
    config = EXAMPLES / "cli_yaml" / "config.yaml"
    run("cli_yaml/main", "fit", "--config", str(config), *settings)
    (saved,) = tmp_path.rglob("config.yaml")
    assert "Unable to serialize" not in saved.read_text()
    assert yaml.safe_load(saved.read_text())["trainer"]["callbacks"][0]["init_args"]["methods"][0] == "gradcam"
    (table,) = tmp_path.rglob("metrics.csv")
    assert "val_cam_robustness" in table.read_text()


def test_hydra(run, tmp_path):
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    small = ("num_images=256", "callback.num_samples=8", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    printed = run("hydra_config/main", *small, *quiet)
    assert re.search(r"epoch 0: consistency (\d\.\d{3}|undefined), flip rate", printed)
    assert list((tmp_path / "runs" / "hydra_config").rglob("*.ckpt"))


def test_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stored = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert (EXAMPLES / "tour.ipynb").stat().st_size < 400_000
    fresh = copy.deepcopy(stored)
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, after in zip(stored.cells, fresh.cells, strict=True):
        # What libraries say on stderr depends on their versions.
        kinds = [
            [output.output_type for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1]
    printed = "".join(output.get("text", "") for cell in fresh.cells for output in cell.get("outputs", ()))
    assert "explained layer: features.9" in printed
    assert re.search(r"robustness of these four pairs: [\d.]+\n", printed)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(run, name):
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")


def test_readme_lists_every_example():
    table = (EXAMPLES / "README.md").read_text()
    files = [path for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")]
    assert [path.name for path in files if f"({path.name})" not in table] == []
    for link in re.findall(r"\]\(([^)]+)\)", table):
        assert (EXAMPLES / link).exists(), link
    for name, options in re.findall(r"`python examples/(\S+\.py)([^`]*)`", table):
        text = (EXAMPLES / name).read_text()
        assert all(option in text for option in re.findall(r"--\w+", options) if name[:3] != "cli"), name
