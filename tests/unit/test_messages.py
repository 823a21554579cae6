"""What the callback tells of the layer it chose: its name, and how fine the maps are."""

import logging

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.messages import chosen_layer

CAUTION = "That is very coarse"


class Pooled(pl.LightningModule):
    """A convolution whose maps have as many rows and columns as asked for."""

    def __init__(self, rows, columns):
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d((rows, columns)), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * rows * columns, 3)
        )

    def forward(self, images):
        return self.net(images)

    def validation_step(self, batch, batch_idx):
        self(batch)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize(("rows", "columns", "coarse"), [(2, 2, True), (3, 4, True), (4, 4, False), (7, 6, False)])
def test_a_run_tells_how_fine_its_maps_are(rows, columns, coarse, caplog, tmp_path):
    callback = CAMRobustnessCallback(num_samples=4, perturbations="gaussian_noise", log_images=0)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=tmp_path,
    )
    with caplog.at_level(logging.INFO):
        trainer.validate(Pooled(rows, columns), DataLoader(torch.rand(4, 3, 16, 16), batch_size=4), verbose=False)
    told = [each for each in caplog.messages if "explains layer" in each]
    assert len(told) == 1
    assert f"'net.1', the last one whose cells feed the prediction; maps have {rows} x {columns} cells. " in told[0]
    assert (CAUTION in told[0]) == coarse


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_the_layer_is_told_with_and_without_a_size(names):
    assert "cells." not in chosen_layer(names)
    assert CAUTION not in chosen_layer(names, (16, 1))
    assert CAUTION in chosen_layer(names, (3, 3))
