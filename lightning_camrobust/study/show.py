"""One image through all CAM methods, as one picture."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.errors import ArgumentError, CAMRobustnessError
from lightning_camrobust.gallery import Panel, collect_gallery
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import LayerChoice, layer_name, resolve_target_layers
from lightning_camrobust.looking import Looker
from lightning_camrobust.members import member_names
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan, make_plan
from lightning_camrobust.probe import probe
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.report.tiles import Tile, panel_tiles
from lightning_camrobust.study.model import num_classes
from lightning_camrobust.types import CAMMethod, Perturbation, Segmenter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# These run the network dozens to hundreds of times for one image.
SLOW_METHODS = ("fusioncam", "occlusion", "rise", "scorecam")
# Names of libraries rather than of methods.
_ADAPTERS = ("pytorch_grad_cam",)
# A tile, its caption, and the caption's colour.
_Captioned = tuple[Tile, str, str]
# Sizes in pixels.
_DPI, _TILE, _GAP, _CAPTION, _COLUMNS = 110, 190, 10, 40, 6
_SAME, _CHANGED, _UNKNOWN = "#1a7f37", "#c02f1d", "#555555"


@dataclass(frozen=True)
class MethodView:
    """One image as one method explains it.

    Attributes:
        method: Label.
        panels: The clean image, and its noisy copy if one was asked for; empty if the method failed.
        seconds: Time that it took.
        failure: Why there are no panels.
    """

    method: str
    panels: tuple[Panel, ...]
    seconds: float
    failure: str = ""


@dataclass(frozen=True)
class ImageView:
    """One image as several methods explain it.

    Attributes:
        views: By method, in the order asked for.
        target_layer: Name of the layer, or layers, that maps are drawn on.
        noise: Perturbation and severity of the noisy copy, or an empty string.
    """

    views: tuple[MethodView, ...]
    target_layer: str
    noise: str


def choose_methods(names: Sequence[str | CAMMethod]) -> tuple[list[str | CAMMethod], list[str]]:
    """Read what a user says about methods.

    Args:
        names: ``["fast"]`` for all that take a few passes of the network, ``["all"]`` for all there are, or methods by
            name or ready-made.

    Returns:
        The methods; and the names of those left out because they are slow.

    Raises:
        ArgumentError: If there is none.

    Example:
        >>> choose_methods(["fast"])[1]
        ['fusioncam', 'occlusion', 'rise', 'scorecam']
    """
    known = [name for name in member_names("cams") if name not in _ADAPTERS]
    if list(names) == ["all"]:
        return list(known), []
    if list(names) == ["fast"]:
        slow = [name for name in known if name in SLOW_METHODS]
        return [name for name in known if name not in slow], slow
    if not names:
        raise ArgumentError("show: `methods` must name at least one CAM method, got none. Pass 'fast', 'all' or names.")
    return list(names), []


def view_image(
    model: nn.Module,
    image: Tensor,
    methods: Sequence[str | CAMMethod],
    *,
    space: PixelSpace,
    target_layer: LayerChoice = None,
    perturbation: str | Perturbation | None = None,
    severity: int = 3,
    segmenter: str | Segmenter = "quickshift",
    seed: int = 0,
    skip_failures: bool = False,
    on_method: Callable[[str], None] | None = None,
) -> ImageView:
    """Explain one image by several methods, one after the other; the network is left as it was found.

    Args:
        model: A classifier mapping ``(b, c, H, W)`` to logits ``(b, k)``.
        image: ``(c, H, W)`` float in [0, 1].
        methods: Names or instances.
        space: How the network's inputs relate to pixels.
        target_layer: A module, its dotted name, a list of such, or None for the last one whose cells feed the
            prediction.
        perturbation: What makes the noisy copy; None makes none.
        severity: Of the noise, 1..5.
        segmenter: How the image is cut.
        seed: Of the noise.
        skip_failures: Whether a method that this network is not made for is noted and passed over.
        on_method: Told the label of each method before it begins.

    Returns:
        The views.

    Raises:
        ArgumentError: If an argument is unusable, or no method worked.
        ModelError: If the network cannot be explained.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> space = PixelSpace((0.0,), (1.0,))
        >>> found = view_image(net, torch.rand(1, 8, 8), ["gradcam"], space=space, segmenter="grid")
        >>> found.target_layer, len(found.views[0].panels)
        ('1', 1)
    """
    if image.dim() != 3 or not image.is_floating_point():
        raise ArgumentError(f"show: `image` must be one float tensor (c, H, W) in [0, 1], got {tuple(image.shape)}.")
    noises = "gaussian_noise" if perturbation is None else perturbation
    plan = make_plan(methods, noises, severities=severity, segmenter=segmenter, seed=seed)
    show_noise, inputs, views = perturbation is not None, _as_inputs(image, model, space), []
    operators = TensorCache(2**26)
    with observe_only(model):
        num_classes(model, inputs)  # says so if the network does not take this image
        layers = resolve_target_layers(model, target_layer, inputs)
        for label, method in plan.methods.items():
            if on_method is not None:
                on_method(label)
            draw = partial(_panels, model, inputs, replace(plan, methods={label: method}), layers, space, operators)
            views.append(_timed(label, partial(draw, show_noise=show_noise), skip_failures=skip_failures))
        name = ", ".join(layer_name(model, layer) for layer in layers)
    if not any(view.panels for view in views):
        raise ArgumentError(f"show: none of these methods can explain this network. {views[0].failure}")
    noise = plan.noises[0]
    return ImageView(tuple(views), name, f"{noise.label} {noise.severity}" if show_noise else "")


def draw_image_view(view: ImageView, *, title: str, notes: Sequence[str] = ()) -> "Figure":
    """Draw the image, then its map under every method; with noise, pairs of a clean and a noisy map.

    Args:
        view: What to draw.
        title: A line above.
        notes: Lines below.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> panel = Panel(torch.rand(3, 8, 8), torch.rand(2, 2), torch.ones(8, 8, dtype=torch.bool), 7, "clean")
        >>> view = ImageView((MethodView("gradcam", (panel,), 0.1),), "layer4", "")
        >>> bool(draw_image_view(view, title="cat.png").get_figwidth() > 3)
        True
    """
    from matplotlib.figure import Figure

    drawn = [each for each in view.views if each.panels]
    # One cell for the image itself, then one a method.
    cells = [_image_cell(drawn[0].panels), *(_map_cell(each) for each in drawn)]
    wide = len(cells[0])
    columns = min(len(cells), max(2, _COLUMNS // wide))
    step = wide * (_TILE + _GAP) + _GAP
    width, rows = columns * step + _GAP, -(-len(cells) // columns)
    above = wrap(title, width // 8)
    below = [line for note in (_legend(view), *notes) for line in wrap(note, width // 6)]
    start, end = 14 + 19 * len(above), 14 + 15 * len(below)
    height = start + rows * (_TILE + _CAPTION + _GAP) + end
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    sheet = np.ones((height, width, 3), dtype=np.float32)
    for position, cell in enumerate(cells):
        top = start + _CAPTION + position // columns * (_TILE + _CAPTION + _GAP)
        for place, (tile, caption, colour) in enumerate(cell):
            left = _GAP + position % columns * step + place * (_TILE + _GAP)
            sheet[top : top + _TILE, left : left + _TILE] = tile
            middle = (left + _TILE / 2) / width
            figure.text(middle, 1 - (top - 4) / height, caption, fontsize=8, color=colour, ha="center", va="bottom")
    figure.figimage(sheet, origin="upper")
    figure.text(0.5, 1 - 8 / height, "\n".join(above), fontsize=11, ha="center", va="top")
    figure.text(_GAP / width, 7 / height, "\n".join(below), fontsize=7.5, ha="left", va="bottom")
    return figure


def _as_inputs(image: Tensor, model: nn.Module, space: PixelSpace) -> Tensor:
    like = next((each for each in model.parameters() if each.is_floating_point()), image)
    if len(space.mean) not in (1, len(image)):
        raise ArgumentError(
            f"show: `mean` and `std` hold {len(space.mean)} values and the image has {len(image)} channels. Pass one "
            "value, or one a channel; or read the image in colour or grey."
        )
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (space.mean, space.std))
    return ((image - mean) / std)[None].to(like)


def _timed(label: str, draw: Callable[[], Sequence[Panel]], *, skip_failures: bool) -> MethodView:
    start = time.perf_counter()
    try:
        panels, failure = tuple(draw()), ""
    except CAMRobustnessError as error:
        if not skip_failures:
            raise
        panels, failure = (), str(error)
    return MethodView(label, panels, time.perf_counter() - start, failure)


def _panels(
    model: nn.Module,
    inputs: Tensor,
    plan: ProbePlan,
    layers: Sequence[nn.Module],
    space: PixelSpace,
    operators: TensorCache,
    *,
    show_noise: bool,
) -> Sequence[Panel]:
    if show_noise:
        how: dict[str, Any] = {"target_layer": layers, "space": space, "operators": operators}
        found = probe(model, inputs, plan=plan, copies=1, keep_noises=(0,), **how)
        return collect_gallery(found, plan, space=space, count=1).rows[0]
    pixels = space.to_pixels(inputs)
    looker = Looker(model, inputs, plan, layers, space=space, keys=image_keys(pixels), operators=operators)
    look = looker.look(inputs, classes=None)
    # Axes of the scores: image, copy, method, segment.
    first, rankable = look.scored[0].scores[0, 0, 0].argmax(), look.scored[0].rankable[0, 0, 0]
    heat = next(iter(look.explained.maps.values()))[0].detach().float().cpu()
    # A flat or broken map has no first segment: the largest score would be any.
    outlined = ((looker.segments.labels([0])[0] == first) & rankable).cpu()
    return [Panel(pixels[0].float().cpu(), heat, outlined, int(look.explained.classes[0]), "clean")]


def _image_cell(panels: Sequence[Panel]) -> list[_Captioned]:
    cell = []
    for panel in panels:
        changed = panel is not panels[0] and not panel.same
        caption = f"{'image' if panel is panels[0] else panel.title}\nclass {panel.predicted}"
        cell.append((panel_tiles(panel, side=_TILE)[0], caption, _CHANGED if changed else "black"))
    return cell


def _map_cell(view: MethodView) -> list[_Captioned]:
    cell = [(panel_tiles(view.panels[0], side=_TILE)[1], view.method, "black")]
    for panel in view.panels[1:]:
        verdict = "class kept" if panel.same else "class changed"
        known = panel.similarity is not None
        score = f"RBO {panel.similarity:.2f}, {verdict}" if known else f"cannot be ranked, {verdict}"
        colour = (_SAME if panel.same else _CHANGED) if known else _UNKNOWN
        cell.append((panel_tiles(panel, side=_TILE)[1], f"{panel.title}\n{score}", colour))
    return cell


def _legend(view: ImageView) -> str:
    legend = f"Maps on {view.target_layer}, each scaled by itself. White outline: the segment ranked first."
    if view.noise:
        legend += " RBO: overlap of the clean and the noisy ranking; high is good where the class was kept (green), low"
        legend += " where it changed (red)."
    return legend
