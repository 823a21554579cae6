"""Fine-tune a ResNet-20 on CIFAR-10 and keep the checkpoint that looks most steadily at the same place.

The data is one .npz file with `x_train` and `x_test` (N, 32, 32, 3) uint8, `y_train` and `y_test`. For example:
python examples/finetune_cifar10.py --data cifar10-subset.npz --weights cifar10-resnet20.pt
"""

import argparse
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, relu
from torch.utils.data import DataLoader, Dataset

from lightning_camrobust import CAMRobustnessCallback

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - width_in

    def forward(self, features: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(features)))))
        # Option A of He et al. 2016: the shortcut subsamples and adds zero channels on both sides, without parameters.
        shortcut = features[:, :, :: self.stride, :: self.stride]
        return relu(residual + pad(shortcut, (0, 0, 0, 0, self.new_channels // 2, self.new_channels // 2)))


def stage(width_in: int, width: int, blocks: int) -> nn.Sequential:
    first = Block(width_in, width, stride=width // width_in)
    return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))


class ResNet20(pl.LightningModule):
    def __init__(self, learning_rate: float, *, blocks: int = 3) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = stage(16, 16, blocks), stage(16, 32, blocks), stage(32, 64, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = relu(self.bn1(self.conv1(images)))
        return self.linear(self.layer3(self.layer2(self.layer1(features))).mean(dim=(2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        accuracy = (self(images).argmax(dim=1) == labels).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[dict]]:
        optimizer = torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9, weight_decay=1e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Cifar10(Dataset):
    def __init__(self, images: np.ndarray, labels: np.ndarray, *, augment: bool) -> None:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        self.images = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        self.labels = torch.from_numpy(labels).long()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augment:
            flip, down, right = (int(torch.randint(limit, ())) for limit in (2, 9, 9))
            image = pad(image.flip(2) if flip else image, (4, 4, 4, 4))[:, down : down + 32, right : right + 32]
        return image, self.labels[index]


class AccuracyHistory(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.values.append(float(trainer.callback_metrics["val_accuracy"]))


def load_data(file: Path, *, train_images: int) -> tuple[DataLoader, DataLoader]:
    arrays = np.load(file)
    training = Cifar10(arrays["x_train"][:train_images], arrays["y_train"][:train_images], augment=True)
    validation = Cifar10(arrays["x_test"], arrays["y_test"], augment=False)
    return DataLoader(training, batch_size=128, shuffle=True), DataLoader(validation, batch_size=250)


def load_weights(network: ResNet20, file: Path) -> None:
    state = torch.load(file, map_location="cpu", weights_only=True)
    # Checkpoints keep the weights under "state_dict"; networks trained in DataParallel carry a prefix.
    state = state.get("state_dict", state)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})


def run(arguments: argparse.Namespace) -> None:
    pl.seed_everything(0)
    training, validation = load_data(arguments.data, train_images=arguments.train_images)
    network = ResNet20(arguments.learning_rate)
    if arguments.weights:
        load_weights(network, arguments.weights)
    # Behind the last block come only pooling and a linear layer, where HiResCAM would equal Grad-CAM exactly.
    methods = ("gradcam", "gradcam_plusplus")
    watch = CAMRobustnessCallback(methods, num_samples=arguments.num_samples, mean=MEAN, std=STD, prog_bar=True)
    accuracy = AccuracyHistory()
    keep = ModelCheckpoint(monitor="val_cam_robustness", mode="max", filename="{epoch}-{val_cam_robustness:.3f}")
    logger = TensorBoardLogger(arguments.folder, name="cifar10")
    trainer = pl.Trainer(max_epochs=arguments.epochs, devices=1, logger=logger, callbacks=[watch, accuracy, keep])
    if arguments.validate_only:
        trainer.validate(network, validation, verbose=False)
    else:
        trainer.fit(network, training, validation)
    show(watch, accuracy)
    console = Console()
    if keep.best_model_path:
        console.print(f"Most stable checkpoint: {keep.best_model_path}", soft_wrap=True)
    console.print(f"Curves and pictures:    tensorboard --logdir {logger.log_dir}", soft_wrap=True)


def show(watch: CAMRobustnessCallback, accuracy: AccuracyHistory) -> None:
    columns = ("robustness", "consistency", "responsiveness", "flip_rate", "seconds")
    headings = (name.replace("_", "\n") for name in ("epoch", "val_accuracy", *columns))
    table = Table(*headings, box=SIMPLE, pad_edge=False, title="Does it keep looking at the same place?")
    table.caption = "Flip rate 0: no prediction changed, so responsiveness counts as 1 and robustness says too much."
    for row, share in zip(watch.history, accuracy.values, strict=True):
        scores = ("undefined" if row[name] is None else f"{row[name]:.3f}" for name in columns)
        table.add_row(str(row["epoch"]), f"{share:.3f}", *scores)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=".npz file with x_train, y_train, x_test, y_test; required")
    parser.add_argument("--weights", type=Path, help="state dict to start from; without it training starts from zero")
    parser.add_argument("--validate-only", action="store_true", help="probe the weights as they are, train nothing")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.02, help="the first one; falls to 0 along a cosine")
    parser.add_argument("--train-images", type=int, default=10000, help="use the first so many of x_train")
    parser.add_argument("--num-samples", type=int, default=64, help="validation images to probe")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where TensorBoard files and checkpoints go")
    arguments = parser.parse_args()
    if arguments.data is None or not arguments.data.is_file():
        found = "was not given" if arguments.data is None else f"{arguments.data} is not a file"
        parser.error(
            f"--data {found}. Expected is a CIFAR-10 .npz file with x_train and x_test (N, 32, 32, 3) uint8, y_train "
            "and y_test, for example --data ../shared/data/cifar10-subset.npz"
        )
    if arguments.validate_only and not arguments.weights:
        parser.error("--validate-only needs --weights: there is nothing to look at in an untrained network")
    if arguments.weights and not arguments.weights.is_file():
        parser.error(f"--weights {arguments.weights} is not a file; expected is the state dict of a CIFAR ResNet-20")
    # Two cores and tiny images: worker processes would only slow it down.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    run(arguments)


if __name__ == "__main__":
    main()
