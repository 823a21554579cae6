"""A study of tiny networks on random images; test_study_running.py starts it as a script and kills it."""

import functools
import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import nn

from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import StudyImage
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.running import run_study


def tiny_network(seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(4 * 25, classes),
    )  # fmt: skip
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return network


def tiny_model(seed=0, classes=3, **settings):
    usual = {"target_layers": ("0", "3"), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
    return StudyModel(functools.partial(tiny_network, seed, classes), **{**usual, **settings})


@dataclass(frozen=True)
class RandomImages:
    """Coarse random squares; the label of the first one is not known."""

    count: int = 7
    seed: int = 0
    name: str = "random squares"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(1000 * self.seed + index))
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        pixels = nn.functional.interpolate(coarse, size=(16, 16))[0]
        return StudyImage(pixels, index % 3 if index else -1, f"square {index}.png", index)

    def fingerprint(self):
        return f"{self.count} {self.seed}"


def make_grid(**settings):
    usual = {"methods": ("gradcam", "eigencam"), "perturbations": ("gaussian_noise", "contrast"),
             "severities": (2, 5), "segmenter": "grid", "readings": "none"}  # fmt: skip
    return StudyGrid(**{**usual, **settings})


def study(folder, *, count=7, models=None, images=None, grid=None, **settings):
    """Run the usual study: two models, two layers, three shards each."""
    models = {"tiny/a": tiny_model(), "b": tiny_model(1)} if models is None else models
    images = RandomImages(count) if images is None else images
    usual = {"shard_size": 3, "chunk_size": 2, "progress": False, "trainer": {"accelerator": "cpu"}}
    return run_study(folder, models, images, grid or make_grid(), **{**usual, **settings})


def start(action):
    """Run an action in a process of its own, which shares what was imported."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return process


def write_half_and_die(rows, path, *, write=pq.write_table, calls=[], **settings):  # noqa: B006
    calls.append(path)
    write(rows, path, **settings)
    if len(calls) == 2:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def half_written(folder, count):
    pq.write_table = write_half_and_die
    study(folder, count=count)


def whole(folder, count):
    began = time.perf_counter()
    assert os.waitpid(start(functools.partial(study, folder, count=count)), 0)[1] == 0
    return time.perf_counter() - began


def kill_again_and_again(folder, count, seed):
    """Run a study in one go; then another that is killed five times at random, and once in the middle of a file."""
    duration, moments, shards = whole(f"{folder}/whole", count), random.Random(seed), []
    for _ in range(5):
        process = start(functools.partial(study, f"{folder}/killed", count=count))
        time.sleep(moments.uniform(0.05, 0.6) * duration)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        shards.append(len(list(Path(folder, "killed", "shards").glob("*/*/*.parquet"))))
    # On a quick day the fifth kill comes too late; the second file written is the one to die in the middle of.
    for file in sorted(Path(folder, "killed", "shards").glob("*/*/*.parquet"))[-2:]:
        file.unlink()
    Path(folder, "killed", "results.parquet").unlink(missing_ok=True)
    status = os.waitpid(start(functools.partial(half_written, f"{folder}/killed", count)), 0)[1]
    unfinished = len(list(Path(folder, "killed", "shards").rglob("*.tmp")))
    whole(f"{folder}/killed", count)
    print(json.dumps({"shards": shards, "half written": os.WTERMSIG(status), "unfinished": unfinished}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    {"study": study, "kill": kill_again_and_again}[what](folder, **settings)
