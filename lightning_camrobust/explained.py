"""What is kept of a pass: the maps of all methods, drawn on one target layer or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.fusion import LayerFusion, fuse_layers
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.trace import trace
from lightning_camrobust.types import CAMMethod, Trace


@dataclass(frozen=True)
class Explained:
    """A pass without its images and activations, which are let go at once.

    Attributes:
        logits: ``(b, k)``.
        classes: The explained class, ``(b,)`` int64.
        maps: By method, ``(b, h, w)``.
        runs: How often each target layer runs in one forward.
    """

    logits: Tensor
    classes: Tensor
    maps: dict[str, Tensor]
    runs: tuple[int, ...]

    def decisions(self, *, multilabel: bool) -> Tensor:
        """Return the predicted class ``(b,)`` int64; in a multi-label task whether the explained one is on, bool."""
        if multilabel:
            return self.logits.gather(1, self.classes[:, None])[:, 0] > 0
        return self.logits.argmax(dim=1)


def explain(
    model: nn.Module,
    images: Tensor,
    methods: Mapping[str, CAMMethod],
    *,
    layers: Sequence[nn.Module],
    fusion: LayerFusion = "mean",
    classes: Tensor | Callable[[Tensor], Tensor] | None = None,
    runs: Sequence[int | None] | None = None,
    space: PixelSpace | None = None,
    disturb: Callable[[Trace], Trace] | None = None,
) -> Explained:
    """Run the network, once for each target layer, and draw the maps of all methods.

    Args:
        model: The network, in eval mode.
        images: ``(b, c, H, W)``, in the model's input units.
        methods: CAM methods by label.
        layers: The target layers, one or more.
        fusion: How the maps of several layers become one.
        classes: ``(b,)`` int64 to explain, or a function of the logits; None explains the predicted class.
        runs: How often each layer runs in one forward, where known.
        space: How inputs relate to pixels, where known.
        disturb: What is done to a trace before maps are drawn from it.

    Returns:
        The maps.

    Example:
        >>> from lightning_camrobust.cams.gradcam import GradCAM
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
        >>> explain(net, torch.rand(2, 1, 8, 8), {"gradcam": GradCAM()}, layers=[net[0], net[1]]).maps["gradcam"].shape
        torch.Size([2, 6, 6])
    """
    known = [None] * len(layers) if runs is None else runs
    passes: list[Explained] = []
    for layer, count in zip(layers, known, strict=True):
        # All layers explain the classes that the first pass decided on.
        classes = passes[0].classes if passes else classes
        pass_ = trace(model, images, target_layer=layer, classes=classes, runs=count, space=space)
        passes.append(_draw(pass_ if disturb is None else disturb(pass_), methods))
    return Explained(
        logits=passes[0].logits,
        classes=passes[0].classes,
        maps={label: fuse_layers([each.maps[label] for each in passes], how=fusion) for label in methods},
        runs=tuple(each.runs[0] for each in passes),
    )


def _draw(pass_: Trace, methods: Mapping[str, CAMMethod]) -> Explained:
    # Under autocast the arithmetic of maps would be done in half precision.
    with torch.autocast(pass_.images.device.type, enabled=False):
        maps = {label: method(pass_).detach() for label, method in methods.items()}
    return Explained(pass_.logits, pass_.classes, maps, (pass_.runs,))
