"""How much a map moves when nothing was disturbed: the noise floor of networks that are random in eval mode."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.explain import resolve_methods
from lightning_camrobust.explained import explain
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import LayerChoice, resolve_target_layers
from lightning_camrobust.members import label_members
from lightning_camrobust.types import CAMMethod


def cam_noise_floor(
    model: nn.Module,
    images: Tensor,
    methods: Sequence[str | CAMMethod] | str | CAMMethod = ("gradcam",),
    *,
    target_layer: LayerChoice = None,
    repeats: int = 8,
) -> dict[str, Tensor]:
    """Explain the same images several times and say how far their maps spread.

    A head that samples, such as a quantum circuit measured with finitely many shots, gives another map in each call. A
    stability below this floor is the head's own noise and not a reaction to the disturbance. The class explained is the
    one predicted in the first call.

    Args:
        model: A classifier, run in eval mode; it is left as it was found.
        images: ``(b, c, H, W)`` float, in the model's input units.
        methods: CAM methods, names or instances.
        target_layer: As in :func:`~lightning_camrobust.explain.compute_cams`.
        repeats: How often to explain, 2 at least.

    Returns:
        For each method ``(b,)`` float64: standard deviation over the calls, averaged over cells, as a share of the
        largest cell of the mean map. Exactly 0 for a deterministic network; NaN where the mean map is all zero.

    Raises:
        ArgumentError: If an argument is unusable.
        ModelError: If the network cannot be explained.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> cam_noise_floor(net, torch.rand(2, 3, 8, 8), "hirescam")["hirescam"].tolist()
        [0.0, 0.0]
    """
    check_images(images)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 2:
        raise ArgumentError(f"cam_noise_floor: `repeats` must be a whole number of at least 2, got {repeats!r}.")
    members = resolve_methods(methods)
    named = dict(zip(label_members(members), members, strict=True))
    with observe_only(model):
        inputs = images.detach().clone()
        layers = resolve_target_layers(model, target_layer, inputs)
        first = explain(model, inputs, named, layers=layers)
        passes = [first.maps]
        for _ in range(repeats - 1):
            passes.append(explain(model, inputs, named, layers=layers, classes=first.classes).maps)
    return {label: _spread(torch.stack([maps[label] for maps in passes]).double()) for label in named}


def _spread(maps: Tensor) -> Tensor:
    """Return ``(b,)`` for maps ``(repeats, b, h, w)``."""
    # Around the first one and not around the mean, whose rounding would make equal maps differ.
    offset = maps - maps[:1]
    spread = offset.std(dim=0, correction=0).flatten(1).mean(dim=1)
    largest = maps.mean(dim=0).flatten(1).amax(dim=1)
    return torch.where(largest > 0, spread / largest, torch.full_like(spread, torch.nan))
