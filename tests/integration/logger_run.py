"""Run digits with loggers that leave variables, threads or processes behind; test_logger_files.py starts it."""

import os
import random
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_camrobust import CAMRobustnessCallback, publishing
from tests.networks import DigitModule, digit_loader, trained

QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class QuietModule(DigitModule):
    def validation_step(self, batch, batch_idx):
        """Log nothing of its own, so that processes have nothing to synchronise."""


class Teller(pl.Callback):
    """Write down what a process wrote and knows."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        self.written, try_to = 0, publishing.Publisher._try

        def counted(publisher, logger, write, *what):
            self.written += write.__name__ == "publish"
            return try_to(publisher, logger, write, *what)

        publishing.Publisher._try = counted

    def teardown(self, trainer, pl_module, stage):
        (callback,) = [each for each in trainer.callbacks if isinstance(each, CAMRobustnessCallback)]
        told = {"written": self.written, "per_image": callback.report["per_image"]}
        torch.save(told, Path(self.folder, f"{trainer.global_rank}.pt"))


def two_processes(folder):
    callback = CAMRobustnessCallback(segmenter="grid", num_samples=24, chunk_size=8, log_images=1, mean=0.0, std=1.0)
    loggers = [TensorBoardLogger(folder, name="tb"), CSVLogger(folder, name="csv")]
    trainer = pl.Trainer(
        devices=2,
        strategy="ddp_spawn",
        accelerator="cpu",
        callbacks=[callback, Teller(folder)],
        logger=loggers,
        **QUIET,
    )
    trainer.validate(trained(QuietModule()), digit_loader(200, 33, batch_size=4), verbose=False)


def all_loggers(folder):
    # Newer MLflow wants to be asked for a store of plain files.
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    loggers = [
        WandbLogger(save_dir=folder, offline=True, prefix="run"),
        MLFlowLogger(tracking_uri=f"file:{folder}/mlruns", prefix="run"),
        CSVLogger(folder, name="csv"),
        TensorBoardLogger(folder, name="tb"),
    ]
    callback = CAMRobustnessCallback(segmenter="grid", num_samples=16, severities=5, log_images=2)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[callback], logger=loggers, log_every_n_steps=2, **QUIET
    )
    trainer.fit(trained(), digit_loader(count=48), digit_loader(200, 16))
    streams = [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))]
    streams.append(torch.tensor(random.getstate()[1]))
    told = {"report": callback.report, "mlflow": loggers[1].run_id, "streams": streams}
    torch.save(told, Path(folder, "told.pt"))
    import wandb

    wandb.finish()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    {"ddp": two_processes, "all": all_loggers}[sys.argv[2]](sys.argv[1])
