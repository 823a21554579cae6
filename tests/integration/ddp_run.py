"""Validate digits on several processes, each writing its result to a file; test_ddp.py starts it as a script."""

import json
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_camrobust import CAMRobustnessCallback
from tests.networks import DigitModule, digit_loader, digits, trained


class Stream(IterableDataset):
    """All digits on the first process, none on the others."""

    def __iter__(self):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        images, labels = digits()
        yield from zip(images[200:224], labels[200:224], strict=True) if rank == 0 else ()


class QuietModule(DigitModule):
    def validation_step(self, batch, batch_idx):
        """Log nothing: what is gathered is the callback's own."""


class FailsOnTheLastRank(QuietModule):
    def forward(self, images):
        if self.trainer.global_rank == self.trainer.world_size - 1:
            raise ZeroDivisionError("only this rank")
        return super().forward(images)


class Teller(pl.Callback):
    """Count collective operations, and write down what this process has as the result."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_start(self, trainer, pl_module):
        self.collectives = []
        for name in ("all_gather", "all_gather_into_tensor", "all_reduce", "broadcast"):
            setattr(torch.distributed, name, self.counted(name, getattr(torch.distributed, name)))

    def counted(self, name, operation):
        def run(*given, **named):
            self.collectives.append(name)
            return operation(*given, **named)

        return run

    def on_validation_epoch_end(self, trainer, pl_module):
        self.during_run = len(self.collectives)

    def on_validation_end(self, trainer, pl_module):
        (callback,) = [each for each in trainer.callbacks if isinstance(each, CAMRobustnessCallback)]
        scores = ("consistency", "responsiveness", "same_count", "changed_count")
        result = {
            "cells": [[cell[score] for score in scores] for cell in callback.report["cells"]],
            "logged": {key: float(value) for key, value in trainer.callback_metrics.items() if "seconds" not in key},
            "num_images": callback.report["num_images"],
            "collectives": self.during_run,
        }
        Path(self.folder, f"{trainer.global_rank}.json").write_text(json.dumps(result))


def main(folder, devices, strategy, case, batch_size, count, inputs):
    if case != "aloud":
        warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    module = trained(FailsOnTheLastRank() if case == "error" else QuietModule())
    streamed = case == "idle"
    loader = DataLoader(Stream(), batch_size) if streamed else digit_loader(200, count, batch_size=batch_size)
    if inputs == "normalised":
        images, labels = loader.dataset.tensors
        loader.dataset.tensors = ((images - 0.3) / 0.2, labels)
        module.net[0].weight.data *= 0.2
    known = {"mean": 0.0, "std": 1.0} if inputs == "known" else {}
    callback = CAMRobustnessCallback(segmenter="grid", num_samples=24, chunk_size=8, **known)
    trainer = pl.Trainer(
        devices=devices, strategy=strategy, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback, Teller(folder)],
    )  # fmt: skip
    trainer.validate(module, loader, verbose=False)


if __name__ == "__main__":
    folder, devices, strategy, case, batch_size, count, inputs = sys.argv[1:]
    main(folder, int(devices), strategy, case, int(batch_size), int(count), inputs)
