"""Grey 12-bit scans as in medicine: one channel, rare positives, batches as dicts, a head with a single logit.

The scan is real: a stained section of colon tissue (scikit-image, immunohistochemistry), cut into tiles and reduced to
one grey channel of 0 to 4095, as a scanner would store it. The label is a stand-in: whether the tile's share of brown
stain, which only the colour picture shows, is among the highest fifth. Nothing is downloaded.
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from skimage.color import rgb2gray, rgb2hed
from skimage.data import immunohistochemistry
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import BinaryAUROC

from lightning_camrobust import CAMRobustnessCallback

WHITE = 4095  # 12 bits


class Tiles(Dataset):
    """Tiles of 32 pixels from some columns of the section; every item is a dict, pixels are whole numbers."""

    def __init__(self, columns: slice, *, stride: int, limit: int | None = None) -> None:
        section = immunohistochemistry()[:, columns]
        grey = torch.from_numpy((rgb2gray(section) * WHITE).round()).to(torch.int32)
        brown = torch.from_numpy(rgb2hed(section)[..., 2].copy()).float()
        tiles = grey.unfold(0, 32, stride).unfold(1, 32, stride).reshape(-1, 1, 32, 32)
        stain = brown.unfold(0, 32, stride).unfold(1, 32, stride).reshape(len(tiles), -1).mean(dim=1)
        order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(0))[:limit]
        self.tiles, self.stained = tiles[order], (stain > stain.quantile(0.8))[order].float()

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"patient": f"tile-{index:04}", "scan": self.tiles[index], "stained": self.stained[index]}


class StainDetector(pl.LightningModule):
    def __init__(self, share_of_positives: float) -> None:
        super().__init__()
        self.register_buffer("positive_weight", torch.tensor((1 - share_of_positives) / share_of_positives))
        self.area_under_curve = BinaryAUROC()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32 * 4, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit an image, ``(b,)``; positive where it is above 0."""
        return self.net(images).squeeze(1)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self(scans_of(batch))
        return binary_cross_entropy_with_logits(logits, batch["stained"], pos_weight=self.positive_weight)

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        # With rare positives the accuracy of a network that always says no is high; the area under the curve is 0.5.
        self.area_under_curve.update(self(scans_of(batch)), batch["stained"].int())
        self.log("val_auroc", self.area_under_curve, on_epoch=True, prog_bar=True, batch_size=len(batch["stained"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def scans_of(batch: dict[str, Tensor]) -> Tensor:
    """What the network sees, ``(b, 1, H, W)`` float in [-1, 1]; the callback's `prepare_batch` as well."""
    return batch["scan"].float() / WHITE * 2 - 1


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--num-images", type=int, help="training tiles; all 589 by default")
    parser.add_argument("--num-samples", type=int, default=48, help="validation tiles to probe, of 96 at most")
    parser.add_argument("--folder", type=Path, default=Path("runs/grey_scans"), help="where TensorBoard files go")
    arguments = parser.parse_args()
    # Small images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    # Neighbouring tiles overlap, so training and validation come from different parts of the section.
    training = Tiles(slice(0, 320), stride=16, limit=arguments.num_images)
    validation = Tiles(slice(320, 512), stride=32)
    watch = CAMRobustnessCallback(
        num_samples=arguments.num_samples,
        prepare_batch=scans_of,
        mean=0.5,  # (scan / 4095 - 0.5) / 0.5, so that black is -1 and white 1
        std=0.5,
        perturbations=("gaussian_noise", "shot_noise", "brightness", "contrast"),
    )
    trainer = pl.Trainer(
        max_epochs=arguments.epochs, callbacks=[watch], default_root_dir=arguments.folder, log_every_n_steps=1
    )
    trainer.fit(
        StainDetector(float(training.stained.mean())),
        DataLoader(training, batch_size=32, shuffle=True),
        DataLoader(validation, batch_size=32),
    )
    print(f"{training.stained.mean():.0%} of {len(training)} training tiles are positive")
    print(f"val_auroc {float(trainer.callback_metrics['val_auroc']):.3f}")
    for cell in watch.report["cells"]:
        if cell["severity"] == 3:
            scores = ", ".join(f"{name} {as_text(cell[name])}" for name in ("robustness", "consistency", "flip_rate"))
            print(f"{cell['perturbation']:<15} severity 3: {scores}")


if __name__ == "__main__":
    main()
