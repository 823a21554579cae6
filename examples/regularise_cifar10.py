"""Does training for steady maps raise their robustness at equal accuracy? ResNet-20 on CIFAR-10, four ways to train.

Ways: as it is; with noisy copies in the cross-entropy; with CAMConsistencyLoss; with both. All noisy ways see the very
same copies, so that what the loss adds is told apart from what the copies add. Results are kept in --folder, one file
a way and seed, and files that are there are not made again. Without --data it runs on scikit-learn's digits, small.

python examples/regularise_cifar10.py --data cifar10-subset.npz --weights cifar10-resnet20.pt
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from finetune_cifar10 import MEAN, STD, Cifar10, ResNet20, load_weights
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_camrobust import CAMConsistencyLoss, measure_stability
from lightning_camrobust.study.statistics.resampling import Resampling

SEEN = "gaussian_noise"
NOISES = (SEEN, "shot_noise", "impulse_noise", "defocus_blur", "contrast", "jpeg")
SEVERITIES = (4,)


class Way(NamedTuple):
    noisy_copies: float
    agreement: float

    def __str__(self) -> str:
        return f"copies{self.noisy_copies:g}-maps{self.agreement:g}"


class Images(NamedTuple):
    training: Cifar10
    tuning: Cifar10
    test: Cifar10


class Regularised(ResNet20):
    def __init__(
        self, way: Way, *, learning_rate: float, blocks: int, severity: int, batch_norm: str, seed: int
    ) -> None:
        super().__init__(learning_rate, blocks=blocks)
        self.way = way
        self.agree = CAMConsistencyLoss(
            perturbation=SEEN, severity=severity, batch_norm=batch_norm, target_layer="layer3", mean=MEAN, std=STD,
            seed=seed,
        )  # fmt: skip

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        if self.way == Way(0, 0):
            return cross_entropy(self(images), labels)
        step = self.agree(self, images)
        loss = cross_entropy(step.logits, labels) + self.way.agreement * step.disagreement
        return loss + self.way.noisy_copies * cross_entropy(step.noisy_logits, labels)


def load_images(arguments: argparse.Namespace) -> Images:
    if arguments.data is None:
        pixels, labels = load_digits()
        # Nothing past the first 1000 is trained on; the last 400 or fewer are reported.
        unseen, classes, first = pixels[1000:], labels[1000:], min(arguments.train_images, 1000)
    else:
        arrays = np.load(arguments.data)
        pixels, labels, unseen, classes = (arrays[f"{of}_{part}"] for part in ("train", "test") for of in "xy")
        first = arguments.train_images
    second, last = 200, 200 + arguments.test_images
    return Images(
        Cifar10(pixels[:first], labels[:first], augment=True),
        # Weights of the loss are chosen on images that are neither trained on nor reported.
        Cifar10(unseen[:second], classes[:second], augment=False),
        Cifar10(unseen[second:last], classes[second:last], augment=False),
    )


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = (bunch.images * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    # Cifar10 crops at random inside a frame of 32 pixels.
    return np.repeat(np.pad(grey, ((0, 0), (8, 8), (8, 8)))[..., None], 3, axis=3), bunch.target


def train(way: Way, images: Images, arguments: argparse.Namespace, *, seed: int) -> Regularised:
    # Another way draws the same weights, batches and crops.
    pl.seed_everything(seed)
    blocks = 3 if arguments.data else 1
    settings = {"severity": arguments.severity, "batch_norm": arguments.batch_norm, "seed": seed}
    network = Regularised(way, learning_rate=arguments.learning_rate, blocks=blocks, **settings)
    if arguments.weights:
        load_weights(network, arguments.weights)
    if arguments.epochs:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_epochs=arguments.epochs, accelerator="cpu", enable_model_summary=False, **quiet)
        trainer.fit(network, DataLoader(images.training, batch_size=100, shuffle=True))
    return network.eval()


def measure(network: Regularised, images: Cifar10) -> dict[str, np.ndarray]:
    with torch.no_grad():
        found = [network(part).argmax(dim=1) for part in torch.split(images.images, 250)]
    measured = measure_stability(
        network, images.images, "gradcam", NOISES, severities=SEVERITIES, target_layer="layer3", mean=MEAN, std=STD,
        seed=2024,
    )  # fmt: skip
    fields = ("similarity", "same_class", "rankable")
    pairs = {name: getattr(measured.comparison, name).numpy() for name in fields}
    return {"correct": (torch.cat(found) == images.labels).numpy(), **pairs}


def result(way: Way, images: Images, arguments: argparse.Namespace, *, seed: int, part: str) -> dict[str, np.ndarray]:
    file = arguments.folder / f"{part}-{way}-seed{seed}.npz"
    if not file.is_file():
        start = time.process_time()
        network = train(way, images, arguments, seed=seed)
        seconds = time.process_time() - start
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, seconds=seconds, **measure(network, getattr(images, part)))
    return dict(np.load(file))


def pair_sums(found: dict[str, np.ndarray], noises: list[str]) -> np.ndarray:
    """Sum up each image's pairs of some noises: similarity and count of kept, dissimilarity and count of changed."""
    cells = [index for index in range(len(NOISES) * len(SEVERITIES)) if NOISES[index // len(SEVERITIES)] in noises]
    value, same, rankable = (found[name][:, cells] for name in ("similarity", "same_class", "rankable"))
    kept, changed = same & rankable, ~same & rankable
    parts = (np.where(kept, value, 0), kept, np.where(changed, 1 - value, 0), changed)
    return np.stack([each.sum(axis=1) for each in parts], axis=1).astype(float)


def scores(sums: np.ndarray) -> np.ndarray:
    """Turn sums ``(..., 4)`` into RM, C, R and flip rate ``(..., 4)``."""
    with np.errstate(invalid="ignore"):
        kept, changed = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
        return np.stack([kept * changed, kept, changed, sums[..., 3] / (sums[..., 1] + sums[..., 3])], axis=-1)


def scores_of_resamples(founds: list[dict[str, np.ndarray]], noises: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Average scores over seeds: as measured ``(4,)``, and for each resample of the images ``(resamples, 4)``."""
    sums = np.stack([pair_sums(found, noises) for found in founds])
    weights = np.concatenate(list(Resampling(sums.shape[1]).weights()))
    return scores(sums.sum(axis=1)).mean(axis=0), scores(np.einsum("ri,sif->rsf", weights, sums)).mean(axis=1)


def show(results: dict[Way, list[dict[str, np.ndarray]]], *, title: str) -> None:
    table = Table("noise", "way", "accuracy", "RM [95%]", "C", "R", "flips", "RM - copies only [95%]", box=SIMPLE)
    table.title = title
    ways = list(results)
    rival = ways[1] if len(ways) > 1 else ways[0]
    for noise in NOISES:
        _, rival_drawn = scores_of_resamples(results[rival], [noise])
        for way, founds in results.items():
            value, drawn = scores_of_resamples(founds, [noise])
            accuracy = np.mean([found["correct"].mean() for found in founds])
            low, high = np.nanpercentile(drawn[:, 0], [2.5, 97.5])
            better = np.nanpercentile(drawn[:, 0] - rival_drawn[:, 0], [2.5, 50, 97.5])
            difference = "" if way == rival else "{1:+.3f} [{0:+.3f}, {2:+.3f}]".format(*better)
            interval = f"{value[0]:.3f} [{low:.3f}, {high:.3f}]"
            rest = (f"{each:.3f}" for each in value[1:])
            table.add_row(noise, str(way), f"{accuracy:.3f}", interval, *rest, difference)
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=".npz file with x_train, y_train, x_test, y_test; digits without it")
    parser.add_argument("--weights", type=Path, help="state dict to start from; without it training starts from zero")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.01, help="the first one; falls to 0 along a cosine")
    parser.add_argument("--train-images", type=int, default=2000, help="use the first so many of x_train")
    parser.add_argument(
        "--test-images", type=int, default=400, help="report on so many of x_test, behind the first 200"
    )
    parser.add_argument("--severity", type=int, default=3, help="of the noise in training")
    parser.add_argument("--batch-norm", choices=("running", "batch", "learn"), default="learn", help="of noisy copies")
    parser.add_argument("--agreement", type=float, nargs="*", default=[3.0], help="weights of the disagreement")
    parser.add_argument("--copies", type=float, nargs="+", default=[0, 1], help="weights of noisy copies beside them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=("tuning", "test"), default="test", help="images to measure on")
    parser.add_argument("--folder", type=Path, default=Path("runs/regularise"), help="where results are kept")
    arguments = parser.parse_args()
    for name in ("data", "weights"):
        file = getattr(arguments, name)
        if file is not None and not file.is_file():
            parser.error(f"--{name} {file} is not a file")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    images = load_images(arguments)
    ways = [
        Way(0, 0),
        Way(1, 0),
        *(Way(copies, weight) for copies in arguments.copies for weight in arguments.agreement),
    ]
    results = {
        way: [result(way, images, arguments, seed=seed, part=arguments.part) for seed in arguments.seeds]
        for way in ways
    }
    show(results, title=f"{arguments.part}: {len(arguments.seeds)} seeds, severities {SEVERITIES}")


if __name__ == "__main__":
    main()
