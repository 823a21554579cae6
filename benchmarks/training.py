"""(d, h) The callback's share of an epoch, the first one apart."""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, relu
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import pictures
from benchmarks.tables import Table
from lightning_camrobust import CAMRobustnessCallback

EPOCHS, TRAINING_IMAGES, VALIDATION_IMAGES = 3, 10_000, 2_000
HOOKS = (
    "setup", "on_train_start", "on_validation_start", "on_validation_batch_start", "on_validation_epoch_end",
    "on_validation_end",
)  # fmt: skip


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.more = stride, outer - inner

    def forward(self, features: Tensor) -> Tensor:
        """Run the block."""
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(features)))))
        shortcut = features[:, :, :: self.stride, :: self.stride]
        return relu(residual + pad(shortcut, (0, 0, 0, 0, self.more // 2, self.more // 2)))


class ResNet20(pl.LightningModule):
    """The CIFAR ResNet with 20 layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.linear(self.blocks(self.stem(images)).mean(dim=(2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss."""
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Log the accuracy."""
        self.log("val_accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), 0.02, momentum=0.9)


class Stopwatch(pl.Callback):
    """Time epochs, and what a callback spends in its own hooks."""

    def __init__(self, watched: pl.Callback) -> None:
        self.epochs: list[float] = []
        self.spent: list[float] = []
        self._start = 0.0
        self._hooks = 0.0
        for name in HOOKS:
            setattr(watched, name, self._timed(getattr(watched, name)))

    def _timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return hook(*args, **kwargs)
            finally:
                self._hooks += time.perf_counter() - start

        return timed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self._close()
        self._start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the last one."""
        self._close()

    def _close(self) -> None:
        if self._start:
            self.epochs.append(time.perf_counter() - self._start)
            self.spent.append(self._hooks)
        self._hooks = 0.0


def measure(*, device: str, cifar: Path | None) -> Table:
    """Train three epochs with the callback's defaults and TensorBoard."""
    training, validation, origin = _loaders(cifar)
    callback = CAMRobustnessCallback(mean=0.5, std=0.25)
    watch = Stopwatch(callback)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu" if device == "cpu" else "gpu",
            devices=1,
            max_epochs=EPOCHS,
            logger=TensorBoardLogger(folder),
            callbacks=[watch, callback],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(ResNet20(), training, validation)
    table = Table(
        key="training",
        title="Share of a training epoch",
        columns=["epoch", "whole epoch, s", "in the callback, s", "of this probing, s", "share"],
        text=f"ResNet-20 on {origin}: {TRAINING_IMAGES} training images (a fifth of CIFAR-10), {VALIDATION_IMAGES} "
        "validation images, batch 128, the callback's defaults (32 images, 12 noises) with TensorBoard pictures. "
        "Seconds in the callback are all of its hooks, drawing included. The first epoch cuts the images into "
        "segments, which are kept.",
    )
    for epoch, (whole, spent) in enumerate(zip(watch.epochs, watch.spent, strict=True), start=1):
        probing = callback.history[epoch - 1]["seconds"]
        table.rows.append([epoch, whole, spent, probing, f"{spent / whole:.2%}"])
    worst = max(spent / whole for whole, spent in zip(watch.epochs[1:], watch.spent[1:], strict=True))
    table.goal = f"at most 5% from the second epoch on: {worst:.2%}, {'reached' if worst <= 0.05 else 'missed'}."
    return table


def _loaders(cifar: Path | None) -> tuple[DataLoader[Any], DataLoader[Any], str]:
    if cifar is None:
        # Cost does not depend on what is shown.
        photos = pictures(64, side=32)
        images = photos.repeat(-(-(TRAINING_IMAGES + VALIDATION_IMAGES) // 64), 1, 1, 1)
        labels = torch.arange(len(images)) % 10
        data, origin = (images, labels), "photographs of CIFAR-10's size"
    else:
        arrays = np.load(cifar)
        pixels = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = torch.from_numpy(np.concatenate([arrays["y_train"], arrays["y_test"]])).long()
        data, origin = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, labels), "CIFAR-10"
    images, labels = (data[0] - 0.5) / 0.25, data[1]
    end = TRAINING_IMAGES + VALIDATION_IMAGES
    parts = [
        TensorDataset(images[part].contiguous(), labels[part])
        for part in (slice(0, TRAINING_IMAGES), slice(TRAINING_IMAGES, end))
    ]
    return DataLoader(parts[0], batch_size=128, shuffle=True), DataLoader(parts[1], batch_size=250), origin
