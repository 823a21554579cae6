"""Two models brought together: the same images, noises and methods, in the same order."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.conditions import ALWAYS, differing
from lightning_camrobust.study.outcomes import Integers, Noise, Outcomes

Item = TypeVar("Item", bound=Hashable)


def paired_outcomes(first: Outcomes, second: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Keep what two models were both measured with.

    Args:
        first: Outcomes of one model.
        second: Outcomes of the other, on the same data set.

    Returns:
        Both, restricted to the images (matched and sorted by name), the noises, the methods and the readings (in the
        order of ``first``) that they share. A label that only one of them knows is given to both; a reading of one
        name with two meanings is left out.

    Raises:
        ArgumentError: If the data sets differ, an image, noise or method occurs twice, no image, noise or method is
            shared, an image is labelled differently, or the two were measured under other conditions.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> def outcomes(*images):
        ...     count = len(images)
        ...     nothing, ones = np.zeros(count, dtype=np.int64), np.ones((count, 1))
        ...     return Outcomes(
        ...         "net", "layer4", "pets", images, nothing, ("gradcam",), (Noise("fog", 1),), nothing,
        ...         ones.astype(np.int64), ones > 0, ones[:, :, None], ones[:, 0],
        ...     )
        >>> one, other = paired_outcomes(outcomes("b.png", "a.png", "c.png"), outcomes("a.png", "b.png"))
        >>> one.images, other.images
        (('a.png', 'b.png'), ('a.png', 'b.png'))
    """
    if first.data != second.data:
        raise ArgumentError(
            f"`paired_outcomes` compares models on one data set, got {first.data!r} and {second.data!r}. "
            "Measure both on the same images."
        )
    images = sorted(_shared(first.images, second.images, "image"))
    noises = _shared(first.noises, second.noises, "noise")
    methods = _shared(first.methods, second.methods, "CAM method")
    readings = [
        label
        for label in first.readings
        if label in second.readings and not differing(first.conditions, second.conditions, [f"reading {label}"])
    ]
    one, other = (
        arranged(each, images=images, noises=noises, methods=methods, readings=readings) for each in (first, second)
    )
    labels = _common_labels(one, other)
    _check_conditions(first, second)
    return replace(one, labels=labels), replace(other, labels=labels)


def other_conditions(first: Outcomes, second: Outcomes) -> list[str]:
    """Say in which conditions that matter two models were measured differently.

    Args:
        first: Outcomes of one model.
        second: Of the other.

    Returns:
        One part of a sentence each; none if they can be compared. Members count where both models have them. The
        fingerprint of the images covers names, order, labels and contents at once, so it counts only where the rest is
        equal; elsewhere see :func:`unchecked_pictures`.
    """
    shared = [noise for noise in first.noises if noise in second.noises]
    names = [
        *ALWAYS,
        *(f"method {method}" for method in first.methods if method in second.methods),
        *(f"perturbation {label}" for label in dict.fromkeys(noise.perturbation for noise in shared)),
    ]
    if any(noise.kind == "geometric" for noise in shared):
        names.append("align_geometric")
    same_images = first.images == second.images and np.array_equal(first.labels, second.labels)
    if same_images and _whole(first) and _whole(second):
        names.insert(0, "data")
    return differing(first.conditions, second.conditions, names)


def unchecked_pictures(first: Outcomes, second: Outcomes) -> bool:
    """Whether nothing shows that pictures of one name are the same, as the models saw other sets, orders or labels."""
    return bool(differing(first.conditions, second.conditions, ["data"]))


def _whole(outcomes: Outcomes) -> bool:
    """Whether these are all images that the fingerprint was taken of."""
    return outcomes.conditions.get("num_images", str(len(outcomes.images))) == str(len(outcomes.images))


def _check_conditions(first: Outcomes, second: Outcomes) -> None:
    differ = other_conditions(first, second)
    if differ:
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise ArgumentError(
            f"The two models were measured under other conditions: {'; '.join(differ[:3])}{more}. A difference would "
            "say nothing about the models. Measure both in one study, or one of them again as the other was."
        )


def _shared(first: Sequence[Item], second: Sequence[Item], noun: str) -> list[Item]:
    for which, items in (("first", first), ("second", second)):
        twice = [(item, count) for item, count in Counter(items).items() if count > 1]
        if twice:
            raise ArgumentError(
                f"`{which}`: every {noun} must occur once to be matched, but {twice[0][0]!r} occurs {twice[0][1]} "
                f"times ({len(twice)} such). Give each its own name."
            )
    known = set(second)
    shared = [item for item in first if item in known]
    if not shared:
        raise ArgumentError(
            f"The two models share no {noun}: the first has {_some(first)}, the second has {_some(second)}. "
            "Measure both with the same settings on the same images."
        )
    return shared


def arranged(
    outcomes: Outcomes,
    *,
    images: Sequence[str],
    noises: Sequence[Noise],
    methods: Sequence[str],
    readings: Sequence[str] = (),
) -> Outcomes:
    """Take some images, noises, methods and readings, in this order.

    Args:
        outcomes: Of one model, in which no name repeats.
        images: Names of some of its images.
        noises: Some of its noises.
        methods: Some of its methods.
        readings: Labels of some of its readings.

    Returns:
        These only.
    """
    row_of = {image: row for row, image in enumerate(outcomes.images)}
    rows = np.array([row_of[image] for image in images], dtype=np.int64)
    layers = np.array([outcomes.methods.index(method) for method in methods], dtype=np.int64)
    columns = np.array([outcomes.noises.index(noise) for noise in noises], dtype=np.int64)
    cells = np.ix_(rows, layers, columns)
    return replace(
        outcomes,
        images=tuple(images),
        labels=outcomes.labels[rows],
        methods=tuple(methods),
        noises=tuple(noises),
        clean_classes=outcomes.clean_classes[rows],
        noisy_classes=outcomes.noisy_classes[np.ix_(rows, columns)],
        same=outcomes.same[np.ix_(rows, columns)],
        similarity=outcomes.similarity[cells],
        chance=outcomes.chance[rows],
        readings={label: outcomes.readings[label][cells] for label in readings},
    )


def _common_labels(first: Outcomes, second: Outcomes) -> Integers:
    clash = (first.labels != second.labels) & (first.labels >= 0) & (second.labels >= 0)
    if clash.any():
        row = int(np.flatnonzero(clash)[0])
        raise ArgumentError(
            f"The two models were measured with another labelling: image {first.images[row]!r} has the label "
            f"{first.labels[row]} in the first and {second.labels[row]} in the second ({clash.sum()} of {len(clash)} "
            "images differ). Measure both with the same labels, or both without."
        )
    return np.where(first.labels >= 0, first.labels, second.labels)


def _some(items: Sequence[object]) -> str:
    named = [
        f"{item.perturbation} at severity {item.severity} ({item.kind})" if isinstance(item, Noise) else repr(item)
        for item in items[:3]
    ]
    if not items:
        return "none"
    return ", ".join(named) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
