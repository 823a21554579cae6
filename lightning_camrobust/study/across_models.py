"""Models that were measured on the same grid, brought together."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.findings import MixedComparison
from lightning_camrobust.study.model_findings import IMAGE_MEASURES
from lightning_camrobust.study.outcomes import Outcomes
from lightning_camrobust.study.paired import arranged, other_conditions
from lightning_camrobust.study.settings import ranked_kind
from lightning_camrobust.study.statistics.image_means import image_means
from lightning_camrobust.study.statistics.mixed import mixed_comparison

# More models than this are compared with the first one only.
_ALL_PAIRS = 4


def mixed_models(measured: Sequence[Outcomes], *, confidence: float = 0.95) -> Iterator[MixedComparison]:
    """Compare methods over all models of a data set at once.

    Args:
        measured: Of every model.
        confidence: Of the intervals.

    Returns:
        Two comparisons for each data set with two models or more that were measured on the same images, methods and
        noises under the same conditions.
    """
    for group in _same_grid(measured):
        kind = ranked_kind(group[0])
        for measure in IMAGE_MEASURES:
            means = {}
            for outcomes in group:
                ranked = _in_order_of(group[0], outcomes).of_kind(kind)
                means[model_label(outcomes)] = image_means(ranked.similarity, ranked.same, measure=measure)
            found = mixed_comparison(means, list(group[0].methods), measure=measure, confidence=confidence)
            yield replace(found, kind=kind)


def comparable_pairs(measured: Sequence[Outcomes]) -> list[tuple[Outcomes, Outcomes]]:
    """List the pairs of models that were measured on the same grid; with more than four, each with the first.

    Args:
        measured: Of every model and target layer.

    Returns:
        Pairs.

    Example:
        >>> import numpy as np
        >>> def outcomes(model, data):
        ...     nobody, none = np.zeros(0, dtype=np.int64), np.zeros((0, 0))
        ...     return Outcomes(model, "layer4", data, (), nobody, (), (), nobody, none, none, none, nobody)
        >>> measured = [outcomes("a", "pets"), outcomes("b", "cars"), outcomes("c", "pets")]
        >>> [(first.model, second.model) for first, second in comparable_pairs(measured)]
        [('a', 'c')]
    """
    found: list[tuple[Outcomes, Outcomes]] = []
    for group in _same_grid(measured):
        pairs = list(combinations(group, 2))
        found += pairs if len(group) <= _ALL_PAIRS else [pair for pair in pairs if pair[0] is group[0]]
    return found


def chosen_pairs(first: Sequence[Outcomes], second: Sequence[Outcomes]) -> list[tuple[Outcomes, Outcomes]]:
    """Pair the target layers of two models.

    Args:
        first: Outcomes of one model, on every target layer and data set.
        second: Of the other.

    Returns:
        Pairs on the same data: of the layers that both have, if there are any; else every layer with every one.

    Raises:
        ArgumentError: If the two share no data.
    """
    pairs = [(before, after) for before in first for after in second if before.data == after.data]
    if not pairs:
        data = [", ".join(sorted({repr(each.data) for each in model})) for model in (first, second)]
        raise ArgumentError(
            f"compare_studies: {first[0].model!r} was measured on {data[0]} and {second[0].model!r} on {data[1]}. "
            "Measure both on the same images."
        )
    return [pair for pair in pairs if pair[0].target_layer == pair[1].target_layer] or pairs


def named_pairs(pairs: Sequence[tuple[Outcomes, Outcomes]]) -> Iterator[tuple[Outcomes, Outcomes]]:
    """Say the target layer in the name of models that are compared on several layers.

    Args:
        pairs: Outcomes of two models each.

    Returns:
        The same, in which no two pairs have the same two names.
    """
    times = Counter((first.model, second.model) for first, second in pairs)
    for first, second in pairs:
        if times[first.model, second.model] > 1 and first.model != second.model:
            yield tuple(replace(each, model=f"{each.model} at {each.target_layer}") for each in (first, second))  # type: ignore[misc]
        else:
            yield first, second


def model_label(outcomes: Outcomes) -> str:
    """Name a model and its target layer."""
    return f"{outcomes.model} ({outcomes.target_layer})"


def conditions_apart(measured: Sequence[Outcomes]) -> list[str]:
    """Say which models have the same grid and yet are not compared, as they were measured under other conditions.

    Args:
        measured: Of every model and target layer.

    Returns:
        One sentence for each group of such models, against the first group of their grid.
    """
    notes = []
    for first, *others in _grids(measured):
        for group in others:
            differ = other_conditions(first[0], group[0])
            more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
            notes.append(
                f"{_and(first)} and {_and(group)} are not compared with each other, as they were measured under other "
                f"conditions: {'; '.join(differ[:3])}{more}."
            )
    return notes


def _same_grid(measured: Sequence[Outcomes]) -> list[list[Outcomes]]:
    return [group for groups in _grids(measured) for group in groups if len(group) > 1]


def _grids(measured: Sequence[Outcomes]) -> list[list[list[Outcomes]]]:
    """Bring together what has the same data, images, methods and noises; in it, what has the same conditions."""
    grids: dict[object, list[list[Outcomes]]] = {}
    for outcomes in measured:
        groups = grids.setdefault((outcomes.data, *_unordered(outcomes)), [])
        alike = next((group for group in groups if not other_conditions(group[0], outcomes)), None)
        if alike is None:
            groups.append([outcomes])
        else:
            alike.append(outcomes)
    return list(grids.values())


def _axes(outcomes: Outcomes) -> tuple[tuple[Hashable, ...], ...]:
    return outcomes.images, outcomes.methods, outcomes.noises


def _unordered(outcomes: Outcomes) -> tuple[Hashable, ...]:
    """Where a name repeats, nothing can be matched by name, and the order counts."""
    sets = tuple(frozenset(names) for names in _axes(outcomes))
    unique = all(len(one) == len(names) for one, names in zip(sets, _axes(outcomes), strict=True))
    return sets if unique else _axes(outcomes)


def _in_order_of(first: Outcomes, outcomes: Outcomes) -> Outcomes:
    """Bring images, methods and noises into the order of another model's."""
    if _axes(outcomes) == _axes(first):
        return outcomes
    return arranged(outcomes, images=first.images, noises=first.noises, methods=first.methods)


def _and(group: Sequence[Outcomes]) -> str:
    return " and ".join(model_label(outcomes) for outcomes in group)
