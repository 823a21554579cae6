"""Find the target layer: the module whose output a CAM is drawn on."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ModelError, NoSpatialLayerError
from lightning_camrobust.layout import Layout, find_layout, has_proportions
from lightning_camrobust.logits import as_logits


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    output: Tensor
    version: int
    layout: Layout
    proportioned: bool

    @property
    def width(self) -> int:
        """Number of channels."""
        return int(self.layout.to_map(self.output).shape[1])


# Beside so many branches a mean of maps says little.
_MOST_BRANCHES = 4


def find_target_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """Find the last layer with cells that feed the prediction, see :func:`find_target_layers`.

    Args:
        model: The network, in eval mode.
        images: A batch ``(b, c, H, W)`` float; only the first image is used.

    Returns:
        The module; of several branches the one that runs last.

    Raises:
        NoSpatialLayerError: If there is none.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> find_target_layer(net, torch.rand(1, 3, 8, 8)) is net[0]
        True
    """
    return find_target_layers(model, images)[0]


def find_target_layers(model: nn.Module, images: Tensor) -> list[nn.Module]:
    """Find the last layer with cells (more than one) that feed the prediction, one in each branch of the network.

    One image goes through the network once. Cells are those of a map ``(b, c, h, w)`` or ``(b, h, w, c)``, or patch
    tokens ``(b, n, c)``. Layers whose output the logits do not depend on, such as the decoder of an auxiliary task, are
    passed over, and so are those whose cells get no gradient, such as what follows the last attention of a transformer
    that reads its class token only. In a transformer the layer has the width of its tokens: not that of queries, keys
    and values. If several modules hand on the same tensor (a block and its last ReLU), the innermost one that runs only
    once is taken, so that its single output is the explained one.

    Branches run side by side up to the end: the logits depend on both layers, and neither layer on the other. Where
    something spatial brings them together again, that is the last layer, and the only one.

    Args:
        model: The network, in eval mode.
        images: A batch ``(b, c, H, W)`` float; only the first image is used.

    Returns:
        The modules, the one that runs last first; one, as a rule.

    Raises:
        NoSpatialLayerError: If there is none.

    Example:
        >>> class TwoEyes(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.left, self.right, self.head = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 5), nn.Linear(4, 3)
        ...     def forward(self, images):
        ...         seen = [eye(images).mean(dim=(2, 3)) for eye in (self.left, self.right)]
        ...         return self.head(torch.cat(seen, dim=1))
        >>> len(find_target_layers(TwoEyes(), torch.rand(1, 1, 8, 8)))
        2
    """
    with torch.enable_grad():
        image = images[:1].detach().clone().requires_grad_()
        calls, features, output = _record_calls(model, image)
        chosen = _last_that_feeds(calls, as_logits(output, batch_size=1))
        if not chosen and features is not None:
            # A head that begins at zero lets no gradient through; what it reads tells as much.
            chosen = _last_that_feeds(calls, features)
    if not chosen:
        raise NoSpatialLayerError(
            f"{type(model).__name__}: no layer with a spatial output (b, c, h, w), h*w > 1, or with patch tokens "
            "(b, n, c) feeds the prediction, so there is nothing to draw a class activation map on. Use a network with "
            "convolutions or patches, or name a layer with `target_layer=` if its output is spatial."
        )
    return chosen


def _record_calls(model: nn.Module, image: Tensor) -> tuple[list[_Call], Tensor | None, object]:
    """Return all calls that gave out cells, what the last linear layer read, and what the network returned."""
    calls: list[_Call] = []
    read: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[object, ...], output: object) -> Tensor | None:
        if isinstance(module, nn.Linear) and args and isinstance(args[0], Tensor) and args[0].dim() == 2:
            read[:] = [args[0]]
        layout = _cells(output, image)
        if layout is None or not isinstance(output, Tensor):
            return None
        if output.requires_grad:
            calls.append(_call(module, output, layout, image))
            return None
        # Computed under the user's own no_grad or detached: start a graph here, or nothing would seem to feed.
        leaf = output.detach().clone().requires_grad_()
        calls.append(_call(module, leaf, layout, image))
        with torch.enable_grad():
            return leaf.clone()

    handles = [module.register_forward_hook(hook) for name, module in model.named_modules() if name]
    try:
        output = _called(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return calls, read[-1] if read else None, output


def _called(model: nn.Module, image: Tensor) -> object:
    try:
        return model(image)
    except (TypeError, KeyError, AttributeError) as error:
        # A forward that takes the whole batch, or images and labels.
        raise ModelError(
            f"{type(model).__name__}: calling it with one tensor of images {tuple(image.shape)} failed: "
            f"{type(error).__name__}: {error}. The network is called with images alone: name the part that makes "
            "logits of images, CAMRobustnessCallback(classifier='model'), or pass a function, "
            "classifier=lambda module, images: module({'image': images})."
        ) from error


def _call(module: nn.Module, output: Tensor, layout: Layout, image: Tensor) -> _Call:
    # Tokens are recognised by their proportions; what looks like a map may be heads (b, heads, n, d) of attention.
    proportioned = output.dim() != 4 or has_proportions(layout.to_map(output).shape[2:], image)
    return _Call(module, output, output._version, layout, proportioned)


def _cells(output: object, image: Tensor) -> Layout | None:
    """Recognise a layout with more than one cell; many windows of one image are none."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() not in (3, image.dim()):
        return None
    if len(output) != 1:
        return None
    layout = find_layout(output, image)
    if layout is None:
        return None
    size = layout.to_map(output).shape[2:]
    return layout if size.numel() > 1 else None


def _last_that_feeds(calls: list[_Call], logits: Tensor) -> list[nn.Module]:
    """Choose among the calls whose cells get a gradient from ``logits`` ``(1, n)``."""
    if not logits.requires_grad or not calls:
        return []
    gradients = _gradients(logits, calls)
    feeding = [call for call, gradient in zip(calls, gradients, strict=True) if gradient is not None]
    reached = [
        call
        for call, gradient in zip(calls, gradients, strict=True)
        if gradient is not None and bool((call.layout.to_map(gradient) != 0).any())
    ]
    if not reached:
        return []
    candidates = _of_the_networks_kind(reached, feeding[-1])
    times_run = Counter(id(call.module) for call in calls)
    chosen: list[nn.Module] = []
    # Tokens that run side by side are of different sizes, and exchange what they know.
    while candidates and len(chosen) < (_MOST_BRANCHES if feeding[-1].layout.size is None else 1):
        last = candidates[-1]
        chosen.append(_innermost(last, reached, times_run))
        # A backbone that runs once for each of several inputs is one layer: its last run is explained.
        candidates = [call for call in _beside(last, candidates) if call.module not in chosen]
    return chosen


def _gradients(outputs: Tensor, calls: list[_Call]) -> tuple[Tensor | None, ...]:
    # Unequal weights, since the gradient of a plain sum vanishes where outputs add up to a constant.
    flat = outputs.flatten()
    score = (flat * torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)).sum()
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        score, [call.output for call in calls], retain_graph=True, allow_unused=True
    )
    return found


def _innermost(last: _Call, reached: list[_Call], times_run: Counter[int]) -> nn.Module:
    # An in-place ReLU hands on the very tensor it was given; the version tells the two states of it apart.
    same_tensor = [call for call in reached if call.output is last.output and call.version == last.version]
    once = [call for call in same_tensor if times_run[id(call.module)] == 1]
    return (once or same_tensor)[0].module


def _beside(last: _Call, candidates: list[_Call]) -> list[_Call]:
    """Keep the candidates that ``last`` was not computed from."""
    others = [call for call in candidates if call.output is not last.output]
    if not others:
        return []
    return [call for call, gradient in zip(others, _gradients(last.output, others), strict=True) if gradient is None]


def _of_the_networks_kind(reached: list[_Call], final: _Call) -> list[_Call]:
    """Leave out gates and, in a transformer, what lies inside a block, as far as anything is left."""
    if final.layout.size is None:
        # A map of one channel weighs features; it has none.
        return [call for call in reached if call.width > 1] or reached
    alike = [call for call in reached if call.width == final.width and call.proportioned] or reached
    return [call for call in alike if not isinstance(call.module, nn.Linear)] or alike
