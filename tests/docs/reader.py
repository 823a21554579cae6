"""What a reader of the documentation has at hand: images of his own and a small trained network on them."""

import functools
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate


def build_network():
    """Two classes of colour digits of 16 x 16 pixels; its last convolution is called as in many networks."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            layer4=nn.Conv2d(8, 8, 3, padding=1),
            last=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(8, 2),
        )
    )


@functools.lru_cache(maxsize=1)
def _digits():
    bunch = load_digits(n_class=2)
    small = torch.from_numpy(bunch.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    return interpolate(small, scale_factor=2, mode="nearest"), torch.from_numpy(bunch.target).long()


@functools.lru_cache(maxsize=1)
def _trained():
    # Of its own stream, so that importing this module draws nothing from the reader's.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network()
    images, labels = _digits()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()


def save_photos(folder, *, count, size):
    """Write images as PNG files, one folder a class, as a data set of the reader's own would lie there."""
    from PIL import Image

    for index, (image, label) in enumerate(zip(*_digits(), strict=True)):
        if index == count:
            break
        place = folder / f"class_{label.item()}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = interpolate(image[None], size=(size, size))[0].mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{index:03d}.png")


model = _trained()
images, labels = (each[:8] for each in _digits())
pixels = images
mean = std = 0.5
