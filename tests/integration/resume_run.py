"""Fit digits and print the history; with a number, end by kill -9 in the validation of that epoch."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_camrobust import CAMRobustnessCallback
from tests.networks import DigitModule, digit_loader


class Killer(pl.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class WithoutDropout(DigitModule):
    """Nothing drawn in training, since a resumed run does not take up the global random stream where it was."""

    def __init__(self):
        super().__init__()
        self.net[9] = torch.nn.Identity()


def main(folder, kill_in):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    pl.seed_everything(1)
    watch = CAMRobustnessCallback(segmenter="grid", num_samples=24, severities=(3,))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, num_sanity_val_steps=0,
        callbacks=[watch, ModelCheckpoint(folder, save_last=True), *([] if kill_in is None else [Killer(kill_in)])],
    )  # fmt: skip
    last = Path(folder) / "last.ckpt"
    trainer.fit(WithoutDropout(), digit_loader(), digit_loader(200, 40), ckpt_path=str(last) if last.exists() else None)
    kept = ("epoch", "step", "robustness", "consistency", "flip_rate", "num_images")
    print("HISTORY " + json.dumps([{key: row[key] for key in kept} for row in watch.history]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
