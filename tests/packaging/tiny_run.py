"""Train one tiny epoch with the callback and TensorBoard, as a user would who has only what the package declares."""

import json
import sys
import warnings

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_camrobust
from lightning_camrobust import CAMRobustnessCallback

# Hints of Lightning to use more workers and longer epochs.
warnings.filterwarnings("ignore", module="lightning")


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
        )

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def digits(count):
    pictures, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pictures[:count]).float().reshape(-1, 1, 8, 8) / 16
    return DataLoader(TensorDataset(images, torch.from_numpy(labels[:count]).long()), batch_size=32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)  # now and then a network that has learnt nothing has flat maps only, and no score
    watch = CAMRobustnessCallback(perturbations=["shot_noise"], severities=[5], num_samples=16, log_images=1)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=TensorBoardLogger("."), callbacks=[watch], log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), digits(96), digits(32))
    found = {key: float(value) for key, value in trainer.callback_metrics.items()}
    json.dump({"file": lightning_camrobust.__file__, "python": sys.prefix, "found": found}, sys.stdout)
