"""The whole way for one batch, in plain torch: perturb, trace, explain, pool, compare. Reading starts here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.comparison import compare_scores
from lightning_camrobust.copies import PassMeter
from lightning_camrobust.perturbation import disturb
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.scoring import ScoredMaps, score_maps
from lightning_camrobust.segmented import SegmentedBatch
from lightning_camrobust.trace import trace
from lightning_camrobust.types import Comparison


@dataclass(frozen=True)
class View:
    """How one copy of the images looks to the network: kept for pictures.

    Attributes:
        images: ``(b, c, H, W)``, in the model's input units.
        classes: Predicted class, or in a multi-label task the explained one, ``(b,)``.
        maps: ``(b, h, w)`` of the first method.
        scores: ``(b, s)`` segment scores of the first method.
    """

    images: Tensor
    classes: Tensor
    maps: Tensor
    scores: Tensor


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found on one batch.

    Attributes:
        comparison: Fields ``(b, cells)``, cells ordered as in :attr:`ProbePlan.cells`.
        segments: The segments of the clean images.
        clean: The clean view.
        noisy: The noisy views that were asked for, by index into :attr:`ProbePlan.noises`.
    """

    comparison: Comparison
    segments: SegmentedBatch
    clean: View
    noisy: dict[int, View]


def probe(
    model: nn.Module,
    images: Tensor,
    *,
    plan: ProbePlan,
    target_layer: nn.Module,
    space: PixelSpace,
    operators: TensorCache | None = None,
    runs: int | None = None,
    copies: int | None = None,
    keep_noises: Sequence[int] = (),
) -> ProbeResult:
    """Measure one batch. Run it inside :func:`~lightning_camrobust.isolation.observe_only`.

    Args:
        model: The network, in eval mode.
        images: ``(b, c, H, W)`` float, in the model's input units.
        plan: What to measure.
        target_layer: The layer to draw maps on.
        space: How inputs relate to pixels.
        operators: Where the pooling operators of images are kept from one run to the next.
        runs: How often the layer runs in one forward; None finds it out from the clean pass, which then costs more if
            it runs often.
        copies: How many noisy copies of the batch go through the network together; None for one on a CPU, and on an
            accelerator for as many as fit.
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
    keys = image_keys(space.to_pixels(images))
    segments = SegmentedBatch(images, space, plan.segmenter, keys, operators=operators)
    meter = PassMeter(images.device)
    clean = _explain(model, images, plan, target_layer=target_layer, classes=_target(plan), runs=runs)
    copies = meter.copies(images=len(images)) if copies is None else copies
    before = score_maps(clean.maps, segments)
    target = _target(plan, clean=clean)
    comparisons, views = [], {}
    for start in range(0, len(plan.noises), copies):
        noises = range(start, min(start + copies, len(plan.noises)))
        noisy_images = _disturbed(images, plan, noises, keys=keys, space=space)
        classes = target.repeat(len(noises)) if isinstance(target, Tensor) else target
        noisy = _explain(model, noisy_images, plan, target_layer=target_layer, classes=classes, runs=clean.runs)
        after = score_maps(noisy.maps, segments)
        comparisons.append(_compare(before, after, clean, noisy, plan))
        for index in set(noises) & set(keep_noises):
            views[index] = _view(noisy_images, noisy, after, copy=index - start)
        del noisy_images  # not needed any more while the next ones are made
    return ProbeResult(_side_by_side(comparisons), segments, _view(images, clean, before), dict(sorted(views.items())))


@dataclass(frozen=True)
class _Explained:
    """What is kept of a pass; the pass itself, with its images and activations, is let go at once."""

    classes: Tensor
    decisions: Tensor
    maps: list[Tensor]
    runs: int


def _disturbed(images: Tensor, plan: ProbePlan, noises: range, *, keys: Tensor, space: PixelSpace) -> Tensor:
    copies = []
    for noise in (plan.noises[index] for index in noises):
        how = noise.perturbation, noise.severity
        copies.append(disturb(images, *how, keys=keys, family=noise.family, seed=plan.seed, space=space))
    return copies[0] if len(copies) == 1 else torch.cat(copies)


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
        maps = [method(pass_).detach() for method in plan.methods.values()]
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


def _compare(
    before: ScoredMaps, after: ScoredMaps, clean: _Explained, noisy: _Explained, plan: ProbePlan
) -> Comparison:
    images, copies, methods, segments = after.scores.shape
    same = clean.decisions[:, None] == noisy.decisions.reshape(copies, images).T  # (b, copies)
    return compare_scores(
        before.scores.expand_as(after.scores).reshape(-1, segments),
        after.scores.reshape(-1, segments),
        after.present[:, None, None].expand(after.scores.shape).reshape(-1, segments),
        similarity=plan.similarity,
        same_class=same[..., None].expand(images, copies, methods).flatten(),
        rankable=(before.rankable & after.rankable).flatten(),
    ).reshape(images, copies * methods)


def _view(images: Tensor, explained: _Explained, scored: ScoredMaps, *, copy: int = 0) -> View:
    count = len(scored.scores)
    own = slice(copy * count, (copy + 1) * count)
    return View(images[own], explained.classes[own], explained.maps[0][own], scored.scores[:, copy, 0])


def _side_by_side(comparisons: list[Comparison]) -> Comparison:
    return Comparison(
        similarity=torch.cat([each.similarity for each in comparisons], dim=1),
        same_class=torch.cat([each.same_class for each in comparisons], dim=1),
        rankable=torch.cat([each.rankable for each in comparisons], dim=1),
    )
