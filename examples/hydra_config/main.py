"""Hydra builds callbacks and trainer from a file; every setting can be changed from the shell.

Run `python examples/hydra_config/main.py`, or with a change: `... callback.num_samples=32`.
The images are the 1797 digits of scikit-learn, enlarged; nothing is downloaded.
"""

import warnings

import hydra
import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset


class DigitClassifier(pl.LightningModule):
    def __init__(self, width: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def digit_loaders(num_images: int) -> tuple[DataLoader, DataLoader]:
    bunch = load_digits()
    images = interpolate(torch.from_numpy(bunch.images / 16).float()[:, None], scale_factor=4, mode="bilinear")
    digits = torch.from_numpy(bunch.target).long()
    training, validation = slice(0, num_images), slice(1400, None)
    return (
        DataLoader(TensorDataset(images[training], digits[training]), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(images[validation], digits[validation]), batch_size=100),
    )


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config: DictConfig) -> None:
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(config.seed)
    callback = hydra.utils.instantiate(config.callback)
    others = [hydra.utils.instantiate(each) for each in config.others.values()]
    trainer = hydra.utils.instantiate(config.trainer, callbacks=[callback, *others])
    trainer.fit(DigitClassifier(**config.model), *digit_loaders(config.num_images))
    for row in callback.history:
        print(f"epoch {row['epoch']}: consistency {as_text(row['consistency'])}, flip rate {as_text(row['flip_rate'])}")


if __name__ == "__main__":
    main()
