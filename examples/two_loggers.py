"""Write scores and pictures to TensorBoard and to a CSV file at once, then read both back.

The callback needs no setting for this: it writes to whatever loggers the trainer has. The images are the 1797 digits
of scikit-learn, 8 x 8 pixels, enlarged; nothing is downloaded.
"""

import argparse
import csv
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback


class DigitClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def digit_loaders(num_images: int) -> tuple[DataLoader, DataLoader]:
    bunch = load_digits()
    images = interpolate(torch.from_numpy(bunch.images / 16).float()[:, None], scale_factor=4, mode="bilinear")
    digits = torch.from_numpy(bunch.target).long()
    training, validation = slice(0, num_images), slice(1400, None)
    return (
        DataLoader(TensorDataset(images[training], digits[training]), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(images[validation], digits[validation]), batch_size=100),
    )


def read_csv(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["epoch"], row["val_cam_robustness"]) for row in csv.DictReader(file) if row["val_cam_robustness"]]


def read_tensorboard(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    print("pictures in TensorBoard:", ", ".join(sorted(events.Tags()["images"])))
    return [(event.step, event.value) for event in events.Scalars("val_cam_robustness")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--num-images", type=int, default=1400, help="training images, of 1400 at most")
    parser.add_argument("--num-samples", type=int, default=32, help="validation images to probe")
    parser.add_argument("--folder", type=Path, default=Path("runs/two_loggers"), help="where both loggers write")
    arguments = parser.parse_args()
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    loggers = [TensorBoardLogger(arguments.folder, name="tensorboard"), CSVLogger(arguments.folder, name="csv")]
    callback = CAMRobustnessCallback(num_samples=arguments.num_samples)
    # Lightning warns if it logs more seldom than an epoch has steps.
    trainer = pl.Trainer(max_epochs=arguments.epochs, logger=loggers, callbacks=[callback], log_every_n_steps=1)
    trainer.fit(DigitClassifier(), *digit_loaders(arguments.num_images))

    board, table = (Path(logger.log_dir) for logger in loggers)
    print(
        "val_cam_robustness in metrics.csv:",
        *(f"  epoch {epoch}: {value}" for epoch, value in read_csv(table)),
        sep="\n",
    )
    print("and in TensorBoard:", *(f"  step {step}: {value:.6f}" for step, value in read_tensorboard(board)), sep="\n")
    print("pictures beside metrics.csv:", *(f"  {path.relative_to(table)}" for path in table.rglob("*.png")), sep="\n")


if __name__ == "__main__":
    main()
