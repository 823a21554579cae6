"""The whole way for one batch, in plain torch: perturb, trace, explain, pool, compare. Reading starts here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.comparison import SegmentPooling, compare_scores
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.segmentation import segment_images
from lightning_camrobust.trace import trace
from lightning_camrobust.types import Comparison


@dataclass(frozen=True)
class View:
    """How one copy of the images looks to the network: kept for pictures.

    Attributes:
        pixels: ``(b, c, H, W)`` in [0, 1].
        classes: Predicted class, or in a multi-label task the explained one, ``(b,)``.
        maps: ``(b, h, w)`` of the first method.
        scores: ``(b, s)`` segment scores of the first method.
    """

    pixels: Tensor
    classes: Tensor
    maps: Tensor
    scores: Tensor


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found on one batch.

    Attributes:
        comparison: Fields ``(b, cells)``, cells ordered as in :attr:`ProbePlan.cells`.
        segments: Labels ``(b, H, W)``.
        clean: The clean view.
        noisy: The noisy views that were asked for, by index into :attr:`ProbePlan.noises`.
    """

    comparison: Comparison
    segments: Tensor
    clean: View
    noisy: dict[int, View]


def probe(
    model: nn.Module,
    images: Tensor,
    *,
    plan: ProbePlan,
    target_layer: nn.Module,
    space: PixelSpace,
    keep_noises: Sequence[int] = (),
) -> ProbeResult:
    """Measure one batch. Run it inside :func:`~lightning_camrobust.isolation.observe_only`.

    Args:
        model: The network, in eval mode.
        images: ``(b, c, H, W)`` float, in the model's input units.
        plan: What to measure.
        target_layer: The layer to draw maps on.
        space: How inputs relate to pixels.
        keep_noises: Indices of noises whose view is kept for pictures.

    Returns:
        The comparisons of all cells.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> plan = make_plan(perturbations=("gaussian_noise",), severities=(1, 5), segmenter="grid")
        >>> space = PixelSpace((0.0,), (1.0,))
        >>> found = probe(net, torch.rand(2, 3, 8, 8), plan=plan, target_layer=net[0], space=space)
        >>> found.comparison.similarity.shape  # (images, cells)
        torch.Size([2, 2])
    """
    pixels = space.to_pixels(images)
    keys = image_keys(pixels)
    segments = segment_images(pixels, plan.segmenter).to(torch.int32)
    pooling = SegmentPooling(segments)
    clean = _explain(model, images, plan, target_layer=target_layer, classes=_target(plan))
    clean_scores = {label: pooling.score(maps) for label, maps in clean.maps.items()}
    target = _target(plan, clean=clean)
    comparisons, views = [], {}
    for index, noise in enumerate(plan.noises):
        randomness = ImageRandomness(keys, plan.seed, noise.family, noise.severity)
        noisy_pixels = noise.perturbation(pixels, severity=noise.severity, randomness=randomness)
        noisy_images = space.from_pixels(noisy_pixels, pixels=pixels, inputs=images)
        if index not in keep_noises:
            del noisy_pixels  # not needed any more while the network runs
        noisy = _explain(model, noisy_images, plan, target_layer=target_layer, classes=target, runs=clean.runs)
        for label, maps in noisy.maps.items():
            before, present, before_ok = clean_scores[label]
            after, _, after_ok = pooling.score(maps)
            comparisons.append(
                compare_scores(
                    before,
                    after,
                    present,
                    similarity=plan.similarity,
                    same_class=clean.decisions == noisy.decisions,
                    rankable=before_ok & after_ok,
                )
            )
        if index in keep_noises:
            views[index] = _view(noisy_pixels, noisy, pooling)
    return ProbeResult(_side_by_side(comparisons), segments, _view(pixels, clean, pooling), views)


@dataclass(frozen=True)
class _Explained:
    """What is kept of a pass; the pass itself, with its images and activations, is let go at once."""

    classes: Tensor
    decisions: Tensor
    maps: dict[str, Tensor]
    runs: int


def _explain(
    model: nn.Module,
    images: Tensor,
    plan: ProbePlan,
    *,
    target_layer: nn.Module,
    classes: Tensor | Callable[[Tensor], Tensor] | None,
    runs: int | None = None,
) -> _Explained:
    pass_ = trace(model, images, target_layer=target_layer, classes=classes, runs=runs)
    # Under autocast the arithmetic of maps would be done in half precision.
    with torch.autocast(images.device.type, enabled=False):
        maps = {label: method(pass_).detach() for label, method in plan.methods.items()}
    if plan.multilabel:
        decisions = pass_.logits.gather(1, pass_.classes[:, None])[:, 0] > 0
        return _Explained(pass_.classes, decisions, maps, pass_.runs)
    return _Explained(pass_.predictions, pass_.predictions, maps, pass_.runs)


def _target(plan: ProbePlan, clean: _Explained | None = None) -> Tensor | Callable[[Tensor], Tensor] | None:
    """Say what is explained: by default the predicted class, in a multi-label task the clean image's top class."""
    if isinstance(plan.target, int):
        chosen = plan.target
        return lambda logits: torch.full((len(logits),), chosen, device=logits.device)
    if plan.target is None and plan.multilabel and clean is not None:
        return clean.classes
    return plan.target


def _view(pixels: Tensor, explained: _Explained, pooling: SegmentPooling) -> View:
    maps = next(iter(explained.maps.values()))
    return View(pixels, explained.classes, maps, pooling.score(maps)[0])


def _side_by_side(comparisons: list[Comparison]) -> Comparison:
    return Comparison(
        similarity=torch.stack([each.similarity for each in comparisons], dim=1),
        same_class=torch.stack([each.same_class for each in comparisons], dim=1),
        rankable=torch.stack([each.rankable for each in comparisons], dim=1),
    )
