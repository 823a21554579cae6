"""Run the callback, with no argument, on one network."""

import math
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.zoo.networks import Entry, build
from lightning_camrobust import CAMRobustnessCallback

# In a random transformer that reads its class token, it is a coin toss whether all cells speak against the class.
_SEEDS = 5
_SILENT = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Classifier(pl.LightningModule):
    """Nobody's module: a network and a validation step that does nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return whatever the network returns."""
        return self.network(images)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Measure nothing."""


def photographs(side: int) -> Tensor:
    """Two of scikit-image's photographs, ``(2, 3, side, side)`` in [0, 1]."""
    from skimage import data
    from skimage.transform import resize

    pictures = [data.astronaut()[:400, 50:450], data.chelsea()[:, 75:375]]
    return torch.from_numpy(np.stack([resize(each, (side, side)) for each in pictures])).permute(0, 3, 1, 2).float()


def measure(entry: Entry) -> dict[str, Any]:
    """Validate one network with random weights under ``CAMRobustnessCallback()``.

    Args:
        entry: Which network.

    Returns:
        A row of plain data: ``score`` finite, or None with an ``error``.
    """
    row: dict[str, Any] = {"key": entry.key, "library": entry.library, "family": entry.family, "network": entry.network}
    start = time.perf_counter()
    try:
        for seed in range(_SEEDS):
            network, side = build(entry, seed=seed)
            row |= {"parameters": sum(each.numel() for each in network.parameters()), "side": side, "seed": seed}
            row |= _validate(network, side)
            if row["score"] is not None:
                break
    except Exception as error:
        # The point of the sweep is to see what goes wrong, whatever it is.
        row |= {"score": None, "error": f"{type(error).__name__}: {error}"}
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def _validate(network: nn.Module, side: int) -> dict[str, Any]:
    callback = CAMRobustnessCallback()
    trainer = pl.Trainer(accelerator="cpu", devices=1, callbacks=[callback], **_SILENT)
    loader = DataLoader(TensorDataset(photographs(side)), batch_size=2)
    with warnings.catch_warnings():
        # Lightning advises on workers; that no map could be ranked is told by the missing score.
        warnings.simplefilter("ignore")
        trainer.validate(Classifier(network), loader, verbose=False)
    report = callback.report or {}
    score = report.get("robustness")
    finite = score is not None and math.isfinite(score)
    return {
        "layer": ", ".join(each.removeprefix("network.") for each in str(report.get("target_layer", "")).split(", ")),
        "score": score if finite else None,
        "degenerate_rate": report.get("degenerate_rate"),
        "error": None if finite else "no map could be ranked: all of them are flat",
    }
