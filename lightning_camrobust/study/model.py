"""A network of a study: how it is built, loaded, identified and checked against the data."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_camrobust.batches import find_classifier
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.layers import LayerChoice, layer_by_name
from lightning_camrobust.logits import as_logits
from lightning_camrobust.pixels import make_pixel_space
from lightning_camrobust.study.architecture import flat_names, name_layers, new_network
from lightning_camrobust.study.checkpoints import read_weights
from lightning_camrobust.study.weights import load_weights, names_fit


@dataclass(frozen=True)
class StudyModel:
    """A classifier to be measured.

    Attributes:
        network: The network, or a function without arguments that builds it. An instance is copied, never changed.
        weights: Checkpoint to load: a state dict (.pt, .pth, .bin), a dict that holds one, a Lightning .ckpt, or
            .safetensors, of the network or of the classifier in it. None keeps the network's own; a function that
            draws them at random must seed itself, as it is called more than once.
        target_layers: Layers to draw maps on, measured one after the other: each a dotted name within the classifier, a
            module of it (kept as its name), a list of such (fused), or None for the last spatial one.
        mean: What the network's own Normalize subtracts, in pixel units [0, 1]; None if it takes pixels.
        std: What it divides by.
        size: Side of the images it takes; None if that does not matter.
        classifier: Dotted name of the part that maps images to logits; None if calling the network does.
        entry: Which entry of the checkpoint holds the weights; None if only one does.
        prefix: Load only the names of the checkpoint that begin with this; None loads all.

    Example:
        >>> model = StudyModel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), target_layers=("0",))
        >>> model.build().training
        False
    """

    network: nn.Module | Callable[[], nn.Module]
    weights: str | Path | None = None
    target_layers: Sequence[LayerChoice] = (None,)
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    size: int | None = None
    classifier: str | None = None
    entry: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        _check_network(self)
        make_pixel_space(self.mean, self.std)
        if self.size is not None and (isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1):
            raise ArgumentError(
                f"StudyModel: `size` must be a whole number of pixels above 0 or None, got {self.size!r}."
            )
        object.__setattr__(self, "target_layers", name_layers(self.target_layers, self.network, self.classifier))

    def build(self) -> nn.Module:
        """Build the classifier.

        Returns:
            A network from images to logits, on the CPU, in eval mode, with the weights loaded. Each call gives a new
            one, apart from a factory that returns the same object again.

        Raises:
            ArgumentError: If the checkpoint cannot be read.
            ModelError: If the network cannot be built or copied, or the weights do not fit.
            UnknownNameError: If it has no part or layer of the given name.
        """
        network = new_network(self.network).cpu()
        classifier = find_classifier(network, self.classifier)
        if self.weights is not None:
            weights = read_weights(self.weights, entry=self.entry)
            whole = classifier is network or names_fit(network, weights, prefix=self.prefix)
            only_part = not whole and names_fit(classifier, weights, prefix=self.prefix)
            owner = classifier if only_part else network
            load_weights(owner, weights, file=str(self.weights), prefix=self.prefix)
        for name in flat_names(self.target_layers):
            layer_by_name(classifier, name)
        return classifier.eval()


def fingerprint(network: nn.Module) -> str:
    """Identify a network by its parameters and buffers.

    Args:
        network: Any; devices and train or eval mode do not matter.

    Returns:
        SHA-256 over names, shapes, dtypes and bytes, in hexadecimal digits.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> second.load_state_dict(first.state_dict())
        <All keys matched successfully>
        >>> fingerprint(first) == fingerprint(second)
        True
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name}\0{value!r}\0".encode())
            continue
        dense = value.detach().cpu().to_dense() if value.is_sparse else value.detach().cpu()
        digest.update(f"{name}\0{tuple(dense.shape)}\0{dense.dtype}\0".encode())
        digest.update(dense.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def num_classes(network: nn.Module, pixels: Tensor) -> int:
    """Count the classes of a classifier, by one forward pass.

    Args:
        network: From images to logits, in eval mode.
        pixels: Images ``(b, c, H, W)``; only the first is used.

    Returns:
        Width of the logits; 2 for a single logit.

    Raises:
        ModelError: If the network does not take such images, or does not return finite logits.

    Example:
        >>> num_classes(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.rand(2, 3, 2, 2))
        5
    """
    shape = " x ".join(map(str, pixels.shape[1:]))
    try:
        with torch.no_grad():
            output = network(pixels[:1])
    except Exception as error:
        raise ModelError(
            f"StudyModel: {type(network).__name__} does not take images of {shape} (channels x height x width): "
            f"{(str(error).splitlines() or [''])[0][:200]}. Pass to open_images the size= and channels= that the "
            "network was trained with, or name with classifier= the part that takes images."
        ) from error
    logits = as_logits(output, batch_size=1)
    if not bool(logits.isfinite().all()):
        raise ModelError(
            f"StudyModel: {type(network).__name__} returns NaN or infinity for the first image. Check the weights, and "
            "mean= and std= of the network."
        )
    return logits.shape[1]


def check_labels(labels: Iterable[int], num_classes: int, *, model: str, data: str) -> None:
    """Check that the labels of a data set are classes of a network.

    Args:
        labels: True classes, -1 where not known.
        num_classes: Width of the logits.
        model: Name of the network, for the message.
        data: Name of the data set, for the message.

    Raises:
        ArgumentError: If a label is no class of the network.

    Example:
        >>> check_labels([0, 9, -1], 10, model="resnet20", data="cifar10")
    """
    largest = max((int(label) for label in labels), default=-1)
    if largest >= num_classes:
        raise ArgumentError(
            f"StudyModel: class count mismatch: {data!r} has label {largest}, but {model!r} has {num_classes} classes "
            f"(0..{num_classes - 1}). Take the network or the labels that belong together; labels that count from 1 "
            "must be made to count from 0; labels='none' leaves them out."
        )


def _check_network(model: StudyModel) -> None:
    if not callable(model.network):
        raise ArgumentError(
            "StudyModel: `network` must be an nn.Module, or a function without arguments that returns one, got "
            f"{type(model.network).__name__}. Pass for example network=torchvision.models.resnet18."
        )
    if model.weights is not None and not isinstance(model.weights, (str, Path)):
        raise ArgumentError(
            f"StudyModel: `weights` must be the path of a checkpoint or None, got {type(model.weights).__name__}. Load "
            "a state dict into the network yourself and leave weights out."
        )
    if model.weights is None and (model.entry is not None or model.prefix is not None):
        raise ArgumentError("StudyModel: `entry` and `prefix` speak of a checkpoint, but `weights` is None.")
