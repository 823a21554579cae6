"""Every CAM method under every disturbance, on trained CIFAR-10 networks: one table and one picture a network.

The data is one .npz file with `x_test` (N, 32, 32, 3) uint8 and `y_test`. For example:
python examples/cifar10_methods.py --data cifar10-subset.npz --resnet20 cifar10-resnet20.pt \
  --resnet56 cifar10-resnet56.pt --table docs/cifar-table.md --figures docs/images
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from finetune_cifar10 import MEAN, STD, Cifar10, ResNet20, load_weights
from torch import Tensor, nn

from lightning_camrobust import measure_stability
from lightning_camrobust.cams.cfcam import CFCAM
from lightning_camrobust.cams.rise import RISE
from lightning_camrobust.cams.scorecam import ScoreCAM
from lightning_camrobust.members import member_names

# These ask the network dozens of times an image and noise, so they get fewer images, at severity 3 only.
SLOW = (ScoreCAM(top_channels=16), "fusioncam", RISE(masks=200), "occlusion")
FAST = (
    "gradcam", "gradcam_plusplus", "xgradcam", "layercam", "gradcam_elementwise", "eigencam", "eigengradcam",
    "ablationcam", "finercam", "smooth", "fullgrad", "cfcam", CFCAM(paper_code=True), "randomcam",
)  # fmt: skip
# The wrapper disturbs nothing by itself.
NOISES = [name for name in member_names("perturb") if name != "transformed"]


def measure(network: nn.Module, images: Tensor, methods: tuple, severities: tuple[int, ...]) -> list[dict]:
    rows = []
    # One after the other, so that a long run shows where it is.
    for noise in NOISES:
        start = time.perf_counter()
        settings = {"severities": severities, "target_layer": "layer3.1", "mean": MEAN, "std": STD}
        rows += measure_stability(network, images, methods, noise, **settings, chunk_size=64).table()
        print(f"{noise}: {time.perf_counter() - start:.0f} s", flush=True)
    return rows


def as_table(rows: list[dict]) -> list[str]:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [f"| disturbance | same | changed | {' | '.join(methods)} |", "|---" * (len(methods) + 3) + "|"]
    for noise in dict.fromkeys(row["perturbation"] for row in rows):
        of_noise = [row for row in rows if row["perturbation"] == noise]
        counts = [max(row[key] for row in of_noise) for key in ("same_count", "changed_count")]
        name = f"{noise} (moves)" if of_noise[0]["geometric"] else noise
        lines.append(f"| {name} | {counts[0]} | {counts[1]} | {' | '.join(map(as_cell, of_noise))} |")
    return lines


def as_cell(row: dict) -> str:
    if row["robustness"] is None:
        return "C " + ("-" if row["consistency"] is None else f"{row['consistency']:.2f}")
    return f"{row['robustness']:.2f}" + ("?" if row["low_support"] else "")


def draw(rows: list[dict], title: str, file: Path) -> None:
    import matplotlib.pyplot as plt

    methods, noises = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "perturbation"))
    values = np.full((len(noises), len(methods)), np.nan)
    for row in rows:
        place = noises.index(row["perturbation"]), methods.index(row["method"])
        values[place] = np.nan if row["robustness"] is None else row["robustness"]
    figure, axes = plt.subplots(figsize=(9, 10), layout="constrained")
    axes.set_facecolor("0.85")
    image = axes.imshow(values, vmin=0, vmax=max(0.5, np.nanmax(values)), cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(methods)), methods, rotation=45, ha="right")
    axes.set_yticks(range(len(noises)), noises)
    for (down, right), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > 0.6 * image.norm.vmax else "white"
            axes.text(right, down, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="robustness RM = C R", shrink=0.5)
    axes.set_title(title)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def run(arguments: argparse.Namespace) -> dict:
    data = Cifar10(*(np.load(arguments.data)[key] for key in ("x_test", "y_test")), augment=False)
    found = {}
    for name, blocks in (("resnet20", 3), ("resnet56", 9)):
        if (weights := getattr(arguments, name)) is None:
            continue
        network = ResNet20(0.1, blocks=blocks).eval()
        load_weights(network, weights)
        print(name, flush=True)
        found[name] = {
            "fast": measure(network, data.images[: arguments.images], FAST, (1, 3, 5)),
            "slow": measure(network, data.images[: arguments.slow_images], SLOW, (3,)),
        }
        if arguments.rows:
            arguments.rows.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def page(found: dict, arguments: argparse.Namespace) -> str:
    parts = [
        "RM = C R, pooled over severities. `same` and `changed` count the pairs behind a row (a method may have a few "
        "less, where a map could not be ranked); `?` marks cells with fewer than 30 pairs in one of the sets; where no "
        "prediction changed, RM is undefined and `C` stands in its place. Maps are drawn on `layer3.1`: behind the "
        "last block follow only pooling and a linear layer, where several methods draw the same map."
    ]
    for name, rows in found.items():
        parts += [
            f"\n## {name}, {arguments.images} test images, severities 1, 3, 5\n",
            *as_table(rows["fast"]),
        ]
        parts += [f"\n## {name}, slow methods, {arguments.slow_images} images, severity 3\n", *as_table(rows["slow"])]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the .npz file")
    parser.add_argument("--resnet20", type=Path, help="weights of a ResNet-20")
    parser.add_argument("--resnet56", type=Path, help="weights of a ResNet-56")
    parser.add_argument("--images", type=int, default=128, help="how many test images the fast methods get")
    parser.add_argument("--slow-images", type=int, default=32, help="how many the slow ones get")
    parser.add_argument("--table", type=Path, help="where to write the tables, as Markdown")
    parser.add_argument("--rows", type=Path, help="where to write the rows, as JSON")
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = run(arguments)
    text = page(found, arguments)
    print(text)
    if arguments.table:
        arguments.table.write_text(text, encoding="utf-8")
    for name, rows in found.items():
        if arguments.figures:
            draw(rows["fast"], f"{name} on CIFAR-10", arguments.figures / f"cifar-{name}.png")


if __name__ == "__main__":
    main()
