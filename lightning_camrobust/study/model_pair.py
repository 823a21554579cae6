"""What two models are compared on: one method, one kind of noise, images that both can be scored on."""

from dataclasses import dataclass, replace

import numpy as np

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.study.outcomes import Integers, Kind, Outcomes
from lightning_camrobust.study.paired import paired_outcomes
from lightning_camrobust.study.statistics.pair_sums import PairSums, pair_sums


@dataclass(frozen=True)
class ModelPair:
    """Two models on common ground.

    Attributes:
        names: What to call the two; never the same.
        method: CAM method.
        kind: Kind of all noises.
        first: Outcomes of the first model with this one method.
        second: Of the second, with the same images and noises in the same order.
        sums: Over the pairs of each image, one column, for either model.
        images_left_out: Images that only the first was measured on, only the second, and those on which one of them
            has no scored pair.
        noises_left_out: Noises of this kind that only the first was measured with, and only the second.
    """

    names: tuple[str, str]
    method: str
    kind: Kind
    first: Outcomes
    second: Outcomes
    sums: tuple[PairSums, PairSums]
    images_left_out: tuple[int, int, int]
    noises_left_out: tuple[int, int]


def pair_models(first: Outcomes, second: Outcomes, *, method: str | None, kind: Kind) -> ModelPair:
    """Find the common ground of two models.

    Args:
        first: Outcomes of one model.
        second: Outcomes of the other.
        method: CAM method; None for the first of ``first`` that both have.
        kind: Of the noises.

    Returns:
        The pair. An image counts only if each model has a pair on it that could be scored: a method may have been
        measured on some images only, and two models must not be compared on different images.

    Raises:
        ArgumentError: If :func:`~lightning_camrobust.study.paired.paired_outcomes` refuses the two, or they share no
            noise of this kind, or no image that could be scored.
        UnknownNameError: If not both have the method.
    """
    _check_method(first, second, method)
    asked = _asked(first, second, method, kind)
    shared = paired_outcomes(*asked)
    chosen = shared[0].methods[0]
    ours, theirs = (_narrowed(each, kind) for each in shared)
    sums = [pair_sums(each.similarity, each.same) for each in (ours, theirs)]
    scored = np.all([(each.same_count + each.changed_count)[:, 0] > 0 for each in sums], axis=0)
    rows: Integers = np.flatnonzero(scored)
    if not rows.size:
        raise ArgumentError(
            f"None of the {len(ours.images)} images that the two models share has a pair of {chosen} maps that could "
            f"be scored under {kind} noise by both. Compare another `method`, or measure more images."
        )
    both = len(ours.images)
    return ModelPair(
        names=_names(first, second),
        method=chosen,
        kind=kind,
        first=ours.of_images(rows),
        second=theirs.of_images(rows),
        sums=(sums[0].images(rows), sums[1].images(rows)),
        images_left_out=(len(first.images) - both, len(second.images) - both, both - int(rows.size)),
        noises_left_out=(_count(first, kind) - len(ours.noises), _count(second, kind) - len(ours.noises)),
    )


def _check_method(first: Outcomes, second: Outcomes, method: str | None) -> None:
    for which, outcomes in (("first", first), ("second", second)):
        if method is not None and method not in outcomes.methods:
            raise UnknownNameError(
                f"`method`: the {which} model {outcomes.model!r} was not measured with {method!r}. It has "
                f"{nearest_names(method, outcomes.methods)}; take a method that both models have."
            )


def _asked(first: Outcomes, second: Outcomes, method: str | None, kind: Kind) -> list[Outcomes]:
    """Leave out what is not compared, whose settings may differ; where nothing is shared, pairing says so."""
    asked = [first, second]
    chosen = next((each for each in first.methods if each in second.methods and method in (None, each)), None)
    if chosen is not None and all(each.methods.count(chosen) == 1 for each in asked):
        asked = [_of_method(each, chosen) for each in asked]
    if any(noise in second.noises for noise in first.noises if noise.kind == kind):
        asked = [each.of_kind(kind) for each in asked]
    return asked


def _of_method(outcomes: Outcomes, method: str) -> Outcomes:
    column = outcomes.methods.index(method)
    return replace(outcomes, methods=(method,), similarity=outcomes.similarity[:, [column]], readings={})


def _narrowed(outcomes: Outcomes, kind: Kind) -> Outcomes:
    if not _count(outcomes, kind):
        kinds = sorted({noise.kind for noise in outcomes.noises})
        raise ArgumentError(
            f"`kind`: the two models share no {kind} noise; they share {', '.join(kinds)} noise. Compare one of these, "
            "or measure both models with the same perturbations and severities."
        )
    return outcomes.of_kind(kind)


def _count(outcomes: Outcomes, kind: Kind) -> int:
    return sum(noise.kind == kind for noise in outcomes.noises)


def _names(first: Outcomes, second: Outcomes) -> tuple[str, str]:
    """Checkpoints of one model may carry one name; then the layer tells them apart, or their place."""
    if first.model != second.model:
        return first.model, second.model
    if first.target_layer != second.target_layer:
        return f"{first.model} at {first.target_layer}", f"{second.model} at {second.target_layer}"
    return f"{first.model} (first)", f"{second.model} (second)"
