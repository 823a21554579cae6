"""Class activation maps of a batch, by any number of methods, from one pass of the network."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.explained import explain
from lightning_camrobust.fusion import LayerFusion, check_layer_fusion
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import LayerChoice, resolve_target_layers
from lightning_camrobust.members import label_members, resolve_member
from lightning_camrobust.pixels import make_pixel_space
from lightning_camrobust.types import CAMMethod


def compute_cams(
    model: nn.Module,
    images: Tensor,
    methods: Sequence[str | CAMMethod] | str | CAMMethod = ("gradcam",),
    *,
    target_layer: LayerChoice = None,
    layer_fusion: LayerFusion = "mean",
    classes: Tensor | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Explain a batch of images; the network is left as it was found.

    Args:
        model: A classifier mapping ``(b, c, H, W)`` to logits ``(b, k)``, run in eval mode whatever mode it is in.
        images: ``(b, c, H, W)`` float, in the model's input units, on the model's device; or volumes
            ``(b, c, D, H, W)``, whose maps are ``(b, d, h, w)``.
        methods: Names of files in ``lightning_camrobust/cams/`` (docs/cam-methods.md lists them), such as
            ``"gradcam"``; ``"pytorch_grad_cam:<ClassName>"``; or ready-made instances.
        target_layer: A module, its dotted name, a list of such, or None for the last layer whose cells feed the
            prediction.
        layer_fusion: How the maps of several layers become one, ``"mean"`` or ``"max"``; each is scaled to [0, 1].
        classes: ``(b,)`` int64, the class to explain in each image; None explains the predicted one.
        mean: What Normalize subtracted, in pixel units [0, 1]; for methods that fill pixels in. None recognises the
            range when one of them asks.
        std: What Normalize divided by.

    Returns:
        A map ``(b, h, w)`` for each method, under its name: at the target layer's own resolution, ReLU applied, not
        normalised, detached, float32 (float64 for a float64 network), on the images' device.

    Raises:
        ArgumentError: If an argument is unusable.
        ModelError: If the network cannot be explained this way.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> maps = compute_cams(net, torch.rand(5, 3, 8, 8), ("gradcam", "hirescam"))
        >>> {name: tuple(each.shape) for name, each in maps.items()}
        {'gradcam': (5, 6, 6), 'hirescam': (5, 6, 6)}
    """
    members = resolve_methods(methods)
    check_images(images, volumes=True)
    check_layer_fusion(layer_fusion)
    named, space = dict(zip(label_members(members), members, strict=True)), make_pixel_space(mean, std)
    with observe_only(model):
        inputs = images.detach().clone()
        layers = resolve_target_layers(model, target_layer, inputs)
        return explain(model, inputs, named, layers=layers, fusion=layer_fusion, classes=classes, space=space).maps


def resolve_methods(methods: Sequence[str | CAMMethod] | str | CAMMethod) -> list[CAMMethod]:
    """Turn names and instances into CAM methods.

    Args:
        methods: One name or instance, or several.

    Returns:
        Ready-made members, in the order given.

    Raises:
        ArgumentError: If there is none, or one is unknown.

    Example:
        >>> resolve_methods("gradcam")
        [GradCAM()]
    """
    given = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    if not given:
        raise ArgumentError("`methods` must name at least one CAM method, got none. Pass for example ('gradcam',).")
    return [resolve_member("cams", each) for each in given]
