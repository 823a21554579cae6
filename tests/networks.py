"""Small networks and Lightning modules for the tests, on real digits."""

import functools

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset


@functools.lru_cache(maxsize=1)
def digits():
    """1797 real handwritten digits of scikit-learn, enlarged to 16 x 16, (n, 1, 16, 16) in [0, 1], and their labels."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16).float()[:, None]
    return interpolate(images, scale_factor=2, mode="nearest"), torch.from_numpy(bunch.target).long()


def digit_loader(start=0, count=96, *, batch_size=16, shuffle=False):
    images, labels = digits()
    dataset = TensorDataset(images[start : start + count], labels[start : start + count])
    generator = torch.Generator().manual_seed(1) if shuffle else None
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, generator=generator)


def small_cnn(channels=1, classes=10):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(12, classes),
    )


class DigitModule(pl.LightningModule):
    """A classifier with dropout, batch norm and momentum: all that a careless observer would disturb."""

    def __init__(self, lr=0.05):
        super().__init__()
        self.net = small_cnn()
        self.lr = lr

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", cross_entropy(self(images), labels))

    def test_step(self, batch, batch_idx):
        images, labels = batch
        self.log("test_loss", cross_entropy(self(images), labels))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class VGGLike(nn.Module):
    """Convolutions, then a head that keeps the place of things: flatten and two linear layers."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(16 * 64, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, images):
        return self.classifier(torch.flatten(self.features(images), 1))


class _Block(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, width - width_in

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        half = self.missing // 2
        return torch.relu(y + nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)))


class ResNetCIFAR(nn.Module):
    """ResNet-20 (three blocks a stage) or ResNet-56 (nine), He et al. 2016, in the CIFAR variant."""

    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        stages = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for index, (before, after, stride) in enumerate(stages, start=1):
            rest = [_Block(after, after, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{index}", nn.Sequential(_Block(before, after, stride), *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean(dim=(2, 3)))


@functools.lru_cache(maxsize=1)
def _trained_state():
    torch.manual_seed(0)
    module = DigitModule()
    optimizer = module.configure_optimizers()
    for _ in range(3):
        for images, labels in digit_loader(400, 1200, batch_size=32):
            optimizer.zero_grad()
            cross_entropy(module(images), labels).backward()
            optimizer.step()
    return {key: value.clone() for key, value in module.state_dict().items()}


def trained(module=None):
    """A digit module that knows digits, so that noise changes some predictions and not others."""
    module = DigitModule() if module is None else module
    module.load_state_dict(_trained_state())
    return module
