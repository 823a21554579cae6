"""The whole way for one batch, in plain torch: perturb, trace, explain, pool, compare. Reading starts here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.copies import PassMeter
from lightning_camrobust.disturbing import Disturber
from lightning_camrobust.explained import Explained
from lightning_camrobust.looking import Look, Looker
from lightning_camrobust.pairing import compare_looks
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import Noise, ProbePlan
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.segmented import SegmentedBatch
from lightning_camrobust.types import Comparison
from lightning_camrobust.warping import warp_maps


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
        similarities: By label of :attr:`ProbePlan.readings`, values ``(b, cells)`` float64.
        clean_classes: Predicted on the clean images, ``(b,)`` int64.
        noisy_classes: Predicted on their copies, ``(b, noises)`` int64.
        segment_counts: Segments of each image in the main reading, ``(b,)`` int64.
    """

    comparison: Comparison
    segments: SegmentedBatch
    clean: View
    noisy: dict[int, View]
    similarities: dict[str, Tensor]
    clean_classes: Tensor
    noisy_classes: Tensor
    segment_counts: Tensor


def probe(
    model: nn.Module,
    images: Tensor,
    *,
    plan: ProbePlan,
    target_layer: nn.Module | Sequence[nn.Module],
    space: PixelSpace,
    operators: TensorCache | None = None,
    runs: int | Sequence[int] | None = None,
    copies: int | None = None,
    keep_noises: Sequence[int] = (),
) -> ProbeResult:
    """Measure one batch. Run it inside :func:`~lightning_camrobust.isolation.observe_only`.

    Args:
        model: The network, in eval mode.
        images: ``(b, c, H, W)`` float, in the model's input units.
        plan: What to measure.
        target_layer: The layer to draw maps on, or several.
        space: How inputs relate to pixels.
        operators: Where the pooling operators of images are kept from one run to the next.
        runs: How often each layer runs in one forward; None finds it out from the clean pass, which then costs more if
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
    layers = [target_layer] if isinstance(target_layer, nn.Module) else list(target_layer)
    keys = image_keys(space.to_pixels(images))
    looker = Looker(model, images, plan, layers, space=space, keys=keys, operators=operators)
    meter = PassMeter(images.device)
    clean = looker.look(images, classes=_target(plan), runs=[runs] if isinstance(runs, int) else runs)
    copies = meter.copies(images=len(images)) if copies is None else copies
    disturber = Disturber(
        model,
        images,
        keys=keys,
        seed=plan.seed,
        space=space,
        target_layer=layers[-1],
        classes=clean.explained.decisions(multilabel=False),
        explained=clean.explained.classes,
    )
    target = _target(plan, clean=clean.explained)
    comparisons, others, decisions, views = [], [], [], {}
    for indices in _together(plan, copies):
        noises = [plan.noises[index] for index in indices]
        noisy_images = disturber.copies(noises)
        classes = target.repeat(len(noises)) if isinstance(target, Tensor) else target
        change = disturber.of_trace(noises[0])
        noisy = looker.look(noisy_images, classes=classes, runs=clean.explained.runs, disturb=change)
        before = _before(clean, noises[0], disturber, plan, looker=looker, target=target)
        original = _original(before, noisy, noisy_images, plan, looker)
        comparison, further = compare_looks(before, noisy, plan, looker, original=original)
        comparisons.append(comparison)
        others.append(further)
        decisions.append(noisy.explained.decisions(multilabel=False).reshape(len(noises), -1).T)
        for copy, index in enumerate(indices):
            if index in keep_noises:
                views[index] = _view(noisy_images, noisy, plan, copy=copy)
        del noisy_images  # not needed any more while the next ones are made
    return ProbeResult(
        comparison=_side_by_side(comparisons),
        segments=looker.segments,
        clean=_view(images, clean, plan),
        noisy=dict(sorted(views.items())),
        similarities={label: torch.cat([each[label] for each in others], dim=1) for label in plan.readings},
        clean_classes=clean.explained.decisions(multilabel=False),
        noisy_classes=torch.cat(decisions, dim=1),
        segment_counts=clean.scored[0].present.sum(dim=1),
    )


def _together(plan: ProbePlan, copies: int) -> Iterator[list[int]]:
    """Group noises whose copies go through the network together; one that wants something of its own stays alone."""
    group: list[int] = []
    for index, noise in enumerate(plan.noises):
        alone = noise.disturbs_trace or noise.has_reference or (noise.geometric and plan.align_geometric)
        if group and (alone or len(group) == copies):
            yield group
            group = []
        if alone:
            yield [index]
        else:
            group.append(index)
    if group:
        yield group


def _before(
    clean: Look,
    noise: Noise,
    disturber: Disturber,
    plan: ProbePlan,
    *,
    looker: Looker,
    target: Tensor | Callable[[Tensor], Tensor] | None,
) -> Look:
    """What a noise's copies are compared with: the clean images, as a rule."""
    if noise.has_reference:
        return looker.look(disturber.reference(noise), classes=target, runs=clean.explained.runs)
    if noise.geometric and plan.align_geometric:
        flow = disturber.flow(noise)
        maps = {label: warp_maps(each, flow) for label, each in clean.explained.maps.items()}
        return looker.score(replace(clean.explained, maps=maps))
    return clean


def _original(before: Look, noisy: Look, images: Tensor, plan: ProbePlan, looker: Looker) -> Look | None:
    """The copies explained for the classes of the clean images, if a reading asks for that."""
    if not any(reading.target == "original" for reading in plan.readings.values()):
        return None
    classes = before.explained.classes
    return looker.look_for(noisy, images, classes.repeat(len(images) // len(classes)))


def _target(plan: ProbePlan, clean: Explained | None = None) -> Tensor | Callable[[Tensor], Tensor] | None:
    """Say what is explained: by default the predicted class, in a multi-label task the clean image's top class."""
    if isinstance(plan.target, int):
        chosen = plan.target
        return lambda logits: torch.full((len(logits),), chosen, device=logits.device)
    if plan.target == "original" or (plan.target is None and plan.multilabel):
        return None if clean is None else clean.classes
    assert not isinstance(plan.target, str)
    return plan.target


def _view(images: Tensor, look: Look, plan: ProbePlan, *, copy: int = 0) -> View:
    count = len(look.scored[0].scores)
    own = slice(copy * count, (copy + 1) * count)
    classes = look.explained.classes if plan.multilabel else look.explained.decisions(multilabel=False)
    first = next(iter(look.explained.maps.values()))
    return View(images[own], classes[own], first[own], look.scored[0].scores[:, copy, 0])


def _side_by_side(comparisons: list[Comparison]) -> Comparison:
    return Comparison(
        similarity=torch.cat([each.similarity for each in comparisons], dim=1),
        same_class=torch.cat([each.same_class for each in comparisons], dim=1),
        rankable=torch.cat([each.rankable for each in comparisons], dim=1),
    )
