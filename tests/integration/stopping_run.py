"""A module that logs given numbers; as a script, a fit of it on two processes, for tests of stopping and keeping."""

import json
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from lightning_camrobust import CAMRobustnessEarlyStopping, StableCheckpoint
from lightning_camrobust.errors import ArgumentError


class Script:
    """The n-th validation logs the numbers of the n-th row; a row may be a function of the rank."""

    def __init__(self, rows, where):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.register_buffer("validations", torch.tensor(0))
        self.rows = rows
        self.where = where

    def training_step(self, batch, batch_idx):
        self.tell("training_step", on_step=True, on_epoch=False)
        self.tell("training_epoch", on_step=False, on_epoch=True)
        return self.net(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.tell("validation_step", on_step=False, on_epoch=True)

    def on_validation_epoch_end(self):
        self.validations += not self.trainer.sanity_checking

    def tell(self, where, **how):
        if self.trainer.sanity_checking or where != self.where:
            return
        row = self.rows[min(int(self.validations), len(self.rows) - 1)]
        for key, value in (row(self.global_rank) if callable(row) else row).items():
            self.log(key, torch.tensor(value), **how)

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Scripted(Script, pl.LightningModule):
    pass


class OtherScripted(Script, pytorch_lightning.LightningModule):
    pass


def scripted(rows, *, package=pl, where="validation_step"):
    return (Scripted if package is pl else OtherScripted)(rows, where)


def loaders(batches=2):
    return DataLoader(torch.ones(batches, 1)), DataLoader(torch.ones(1, 1))


def quiet(callbacks, *, epochs, package=pl, **settings):
    known = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "max_epochs": epochs,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1,
    }  # fmt: skip
    return package.Trainer(callbacks=callbacks, **{**known, **settings})


CASES = {
    # Equal numbers everywhere; the last two are no improvement.
    "agree": [{"score": value} for value in (0.1, 0.7, 0.6, 0.5, 0.9)],
    # Each process alone would count the other way; the mean of the guard is 0.6, then 0.4.
    "guard": [
        lambda rank: {"score": 0.7, "val_acc": [0.9, 0.3][rank]},
        lambda rank: {"score": 0.6, "val_acc": [0.3, 0.5][rank]},
        lambda rank: {"score": 0.6, "val_acc": [0.3, 0.9][rank]},
        lambda rank: {"score": 0.5, "val_acc": [0.9, 0.3][rank]},
        {"score": 0.9, "val_acc": 0.9},
    ],
    # The second process never logs the score, and logs a NaN of the guard once.
    "one logs": [
        lambda rank: {"val_acc": 0.9} if rank else {"score": 0.7, "val_acc": 0.9},
        lambda rank: {"val_acc": float("nan")} if rank else {"score": 0.6, "val_acc": 0.9},
        lambda rank: {"val_acc": 0.9} if rank else {"score": 0.6, "val_acc": 0.9},
        lambda rank: {"val_acc": 0.9} if rank else {"score": 0.5, "val_acc": 0.9},
        {"val_acc": 0.9, "score": 0.9},
    ],
    "keep": [
        lambda rank: {"score": [0.2, 0.4][rank], "val_acc": [0.5, 0.6][rank]},
        lambda rank: {"score": [0.9, 0.1][rank], "val_acc": [0.9, 0.8][rank]},
        lambda rank: {"score": [0.1, 0.9][rank], "val_acc": [0.2, 0.9][rank]},
    ],
    # The last, as it ends in an error.
    "misspelt": [{"scoer": 0.5}],
}


def run(folder, case):
    script = CASES[case]
    guard = {"guard": "val_acc", "guard_floor": 0.5} if case in ("guard", "one logs") else {}
    keeping = case == "keep"
    stopper = CAMRobustnessEarlyStopping("val_stable_accuracy" if keeping else "score", patience=2, **guard)
    name = "{epoch}-{val_acc:.2f}-{val_stable_accuracy:.3f}"
    keeper = StableCheckpoint(f"{folder}/kept", name, stability="score", rule="pareto")
    watching = [stopper, keeper] if keeping else [stopper]
    trainer = quiet(watching, epochs=len(script), devices=2, strategy="ddp", enable_checkpointing=keeping)
    error = None
    try:
        trainer.fit(scripted(script), *loaders(4))
    except ArgumentError as caught:
        error = str(caught)
    return {
        "epochs": trainer.current_epoch, "stopped": stopper.stopped_epoch, "verdicts": stopper.verdicts, "error": error,
        "front": [list(kept) for kept in keeper.front], "best": keeper.best_model_path, "rank": trainer.global_rank,
    }  # fmt: skip


def main(folder):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    told = {case: run(folder, case) for case in CASES}
    Path(folder, f"{told['agree']['rank']}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
