"""What can be said on the command line and in YAML, and its help. Nothing heavy is imported here."""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from lightning_camrobust.commands.naming import Named

# One number, or one a channel.
Channels: TypeAlias = float | list[float] | None


@dataclass
class ModelOptions:
    """A network, and what it takes.

    Args:
        network: Import path of its class or of a function that builds it, such as torchvision.models.resnet18 or
            my_script.py:Net; with arguments {class_path: ..., init_args: {...}}.
        weights: File with its weights: a state_dict or a Lightning checkpoint. Without one the network is taken as it
            is built; if that draws its weights at random, it must seed itself, as it is built more than once.
        target_layers: Layers that maps are drawn on, by dotted name, each measured for itself; a list of layers stands
            for their fused maps. Without any, the last one whose cells feed the prediction.
        mean: What the network's Normalize subtracts, in pixel units 0..1, one number or one a channel. Without mean and
            std it takes pixels in 0..1.
        std: What the network's Normalize divides by.
        size: Side of the square that the network takes, in pixels; images are brought to it.
        classifier: Dotted name of the part that maps images to logits, where that is not the whole module.
        entry: Which entry of the weights' file to load, where it holds several.
        prefix: Load only those entries of a state_dict that begin with this, and drop it from their names.
    """

    network: Named
    weights: str | None = None
    target_layers: list[str | list[str]] | None = None
    mean: Channels = None
    std: Channels = None
    size: int | None = None
    classifier: str | None = None
    entry: str | None = None
    prefix: str | None = None


@dataclass
class ImageOptions:
    """How images are read.

    Args:
        size: Shorter side in pixels, whose centre square is cut out; or two numbers such as [256, 224], to resize to
            one and cut out the other; by default the networks' own size. Needed where files differ in size.
        labels: Where the true classes are. Of files: folders (one a class), a CSV file, or a regular expression whose
            group is the class in a file's path, such as '^([0-9]+)_'. Of an .npz file: the array's name. none leaves
            them out; without this they are looked for. They serve accuracy and the tables by class.
        images: Name of the array of images, in an .npz file.
        mean: What the data set's own Normalize subtracted, if its images come normalised.
        std: What it divided by.
        num_images: Take so many only, evenly spaced.
        name: Of the data set, in the report.
        channels: 1 for grey, 3 for colour, where files differ.
        interpolation: How images are resized.
        split: Of a LightningDataModule: test, validate or predict; without one the first that it has.
    """

    size: int | list[int] | None = None
    labels: str | None = None
    images: str | None = None
    mean: Channels = None
    std: Channels = None
    num_images: int | None = None
    name: str | None = None
    channels: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    split: str | None = None


@dataclass
class TrainerOptions:
    """Settings of Lightning's Trainer, which runs the networks.

    Args:
        accelerator: Such as cpu, gpu, mps or auto.
        devices: How many, a list of which, or auto.
        precision: Such as 32-true, bf16-mixed or 64-true.
        strategy: Such as auto, ddp or ddp_spawn.
    """

    accelerator: str = "auto"
    devices: int | list[int] | str = 1
    precision: str = "32-true"
    strategy: str = "auto"


@dataclass
class GridOptions:
    """What is measured on every image.

    Args:
        methods: CAM methods, by name (docs/cam-methods.md lists them) or as {class_path: rise, init_args: {...}}. By
            default the six of the paper: gradcam, gradcam_plusplus, xgradcam, hirescam, eigencam and ablationcam.
        perturbations: What disturbs the images, by name (docs/perturbations.md) or as {class_path: ...}. By default
            gaussian_noise, shot_noise, impulse_noise, gaussian_blur, fog, contrast and jpeg.
        severities: Which of 1 (weak) to 5 (strong).
        readings: sensitivity also reads all maps under other settings (RBO's p, ties, segmenter, ...), to say whether
            the conclusion holds there; none saves that time.
        similarity: What the scores rest on, by name or {class_path: ...}.
        segmenter: How images are cut into segments, by name or {class_path: ...}.
        reduction: What stands for a segment of a map.
        target: Which class is explained: predicted on each image, original for the one predicted on the clean image, or
            a class number.
        severity_column: Which published column of severity values to take; auto goes by the image size.
        align_geometric: Whether clean maps are moved along where a perturbation moves the object.
        layer_fusion: How the maps of several layers become one, where several are asked for together.
        seed: Of the noise.
    """

    methods: list[Named] | None = None
    perturbations: list[Named] | None = None
    severities: list[int] = field(default_factory=lambda: [1, 3, 5])
    readings: Literal["sensitivity", "none"] = "sensitivity"
    similarity: Named = field(default_factory=lambda: Named("rbo"))
    segmenter: Named = field(default_factory=lambda: Named("quickshift"))
    reduction: Literal["mean", "sum", "max"] = "mean"
    target: int | Literal["predicted", "original"] = "predicted"
    severity_column: Literal["auto", "imagenet", "cifar"] = "auto"
    align_geometric: bool = False
    layer_fusion: Literal["mean", "max"] = "mean"
    seed: int = 0


@dataclass
class RunOptions:
    """How a study is run and where its results go.

    Args:
        output: Folder of the results. If it holds a part of this very study already, the rest is measured.
        data: Images: a folder, an .npz file, or {class_path: ...} of a data set or LightningDataModule.
        models: Networks by name, in YAML: {small: {network: my.Net, weights: small.pt, mean: 0.5, std: 0.5}}.
        shard_size: Images in one file of results; an interruption loses one such file at most.
        chunk_size: Images that go through the network at once.
        num_workers: Processes that read images.
        overwrite: Whether to measure anew what the folder holds already.
        gallery: Images in each picture of the most and the least stable ones; 0 for no pictures, as where the images
            may not be passed on.
        progress: Whether to show how far it is, and the time that is left.
    """

    output: str | None = None
    data: Named | None = None
    models: dict[str, ModelOptions] | None = None
    shard_size: int = 32
    chunk_size: int = 16
    num_workers: int = 0
    overwrite: bool = False
    gallery: int = 4
    progress: bool = True


@dataclass
class BaselineOptions:
    """The critique of scores that remove pixels: how much a verdict owes to what takes their place.

    Args:
        num_images: Images that it rests on, evenly spaced, such as 16; 0 leaves it out, as it runs the network three
            times methods x baselines x steps for each image.
        baselines: What takes the place of removed pixels, by name (docs/perturbations.md); two or more.
        step_counts: Numbers of removal steps.
        seeds: Of random pixels, and of RISE's masks.
        rise: Whether RISE is judged as well, with several settings.
        masks: RISE's own number of masks.
    """

    num_images: int = 0
    baselines: list[str] | None = None
    step_counts: list[int] = field(default_factory=lambda: [10, 20])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    rise: bool = True
    masks: int = 200


@dataclass
class AnalysisOptions:
    """How results are analysed.

    Args:
        title: Of the page.
        resamples: Of every bootstrap over images.
        confidence: Of all intervals, between 0 and 1.
    """

    title: str | None = None
    resamples: int = 2000
    confidence: float = 0.95


# Whose messages speak of arguments in Python.
_SPEAKERS = re.compile(r"\b(run_study|StudyModel|StudyGrid|open_images)\b")
_ARGUMENT = re.compile(r"`(\w+)`|\b(\w+)=")


def flags_of(message: str, *, command: str) -> list[str]:
    """Name the flags behind the arguments that a message of the library speaks of.

    Args:
        message: Of an error.
        command: Which one was run, such as ``"study"``.

    Returns:
        Flags, in the order of the message; none where the message already names flags, or speaks of no argument.

    Example:
        >>> flags_of("run_study: name another folder, or start anew with overwrite=True.", command="study")
        ['--overwrite']
        >>> flags_of("StudyModel: wrong size. Pass to open_images the size=, or name classifier=", command="study")
        ['--image_options.size', '--classifier']
    """
    if not _SPEAKERS.search(message) or re.search(r"(?:^|\s)--\w", message):
        return []
    words = [backticks or keyword for backticks, keyword in _ARGUMENT.findall(message)]
    known = _flags(command, of_images="open_images" in message)
    return list(dict.fromkeys(known[word] for word in words if word in known))


def _flags(command: str, *, of_images: bool) -> dict[str, str]:
    """Map arguments to flags; what images and networks both have is that of the one a message is about."""
    if command == "show":
        return {each.name: f"--{each.name}" for each in fields(ModelOptions)} | {"channels": "--channels"}
    grid = {each.name: f"--{each.name}" for part in (GridOptions, ModelOptions, RunOptions) for each in fields(part)}
    images = {each.name: f"--image_options.{each.name}" for each in fields(ImageOptions)}
    if of_images:
        found = grid | images
    else:
        # `images` is then the data set itself, and `name` that of something else.
        found = {name: flag for name, flag in images.items() if name not in ("images", "name")} | grid
    # Several networks are described in YAML.
    return {name: flag for name, flag in found.items() if name != "models"} | {"trainer": "--trainer.devices"}


def given(options: Any) -> dict[str, Any]:
    """Return the fields of options that were said, that is, are not None.

    Example:
        >>> given(AnalysisOptions(resamples=500))
        {'resamples': 500, 'confidence': 0.95}
    """
    return {key: value for key, value in vars(options).items() if value is not None}
