"""The scores of every method, with intervals and support, over all noises of a kind and over each."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from lightning_camrobust.study.findings import PairRow, ScoreRow
from lightning_camrobust.study.outcomes import Kind, Outcomes
from lightning_camrobust.study.statistics.bootstrap import Resampling, bootstrap, differences, estimates
from lightning_camrobust.study.statistics.pair_sums import pair_sums
from lightning_camrobust.study.statistics.support import chance_floors, support
from lightning_camrobust.study.statistics.wilcoxon import holm

# Kind, perturbation (None: all of that kind) and severity (None: all).
Group = tuple[Kind, str | None, int | None]


def noise_groups(outcomes: Outcomes) -> Iterator[Group]:
    """List the sets of noises that scores are pooled over.

    Args:
        outcomes: Of one model.

    Returns:
        For each kind: all its noises, then each perturbation, then each perturbation at each severity.
    """
    for kind in dict.fromkeys(noise.kind for noise in outcomes.noises):
        own = [noise for noise in outcomes.noises if noise.kind == kind]
        yield kind, None, None
        for perturbation in dict.fromkeys(noise.perturbation for noise in own):
            yield kind, perturbation, None
        for noise in own:
            yield kind, noise.perturbation, noise.severity


def score_rows(
    outcomes: Outcomes, resampling: Resampling, *, confidence: float = 0.95, pooled_only: bool = False
) -> tuple[ScoreRow, ...]:
    """Score every method.

    Args:
        outcomes: Of one model.
        resampling: Of its images.
        confidence: Of the intervals.
        pooled_only: Whether to leave out single perturbations and severities.

    Returns:
        Rows in the order of :func:`noise_groups`, methods within.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> nobody, same = np.zeros(4, dtype=np.int64), np.tile([True, False], (4, 1))
        >>> outcomes = Outcomes(
        ...     "net", "layer4", "pets", tuple("abcd"), nobody, ("gradcam",), (Noise("fog", 1), Noise("fog", 5)),
        ...     nobody, np.zeros((4, 2), dtype=np.int64), same, np.tile([[0.5, 0.2]], (4, 1, 1)), np.full(4, 0.1),
        ... )
        >>> row = score_rows(outcomes, Resampling(4))[0]
        >>> round(row.robustness.value, 3), row.same_count, row.low_support, round(row.chance_floor, 3)
        (0.4, 4, True, 0.09)
    """
    rows: list[ScoreRow] = []
    for group in noise_groups(outcomes):
        if not (pooled_only and group[1:] != (None, None)):
            rows += _group_rows(_part(outcomes, group), group, resampling, confidence)
    return tuple(rows)


def robustness_pairs(outcomes: Outcomes, resampling: Resampling, *, confidence: float = 0.95) -> tuple[PairRow, ...]:
    """Compare the robustness of every two methods, by the bootstrap over images.

    Args:
        outcomes: Of one model, noises of one kind.
        resampling: Of its images.
        confidence: Of the intervals, which are not corrected for the number of pairs.

    Returns:
        One row a pair, p-values also after Holm's correction over all pairs.
    """
    pairs = list(combinations(range(len(outcomes.methods)), 2))
    if not pairs:
        return ()
    drawn = bootstrap(pair_sums(outcomes.similarity, outcomes.same), resampling)
    first, second = (drawn.columns([pair[side] for pair in pairs]) for side in (0, 1))
    found = differences(first, second, confidence=confidence)["robustness"]
    adjusted = holm([each.p_value for each in found])
    return tuple(
        PairRow(
            measure="robustness",
            first=outcomes.methods[one],
            second=outcomes.methods[other],
            difference=each.estimate,
            p_value=each.p_value,
            p_adjusted=float(corrected),
            effect=float("nan"),
            num_images=len(outcomes.images),
            test="cluster bootstrap",
        )
        for (one, other), each, corrected in zip(pairs, found, adjusted, strict=True)
    )


def _part(outcomes: Outcomes, group: Group) -> Outcomes:
    kind, perturbation, severity = group
    return outcomes.of_noises(
        [
            noise.kind == kind
            and perturbation in (None, noise.perturbation)
            and (severity is None or severity == noise.severity)
            for noise in outcomes.noises
        ]
    )


def _group_rows(part: Outcomes, group: Group, resampling: Resampling, confidence: float) -> list[ScoreRow]:
    sums = pair_sums(part.similarity, part.same)
    found = estimates(bootstrap(sums, resampling), confidence=confidence)
    counts, floors = support(sums), chance_floors(part.chance, sums)
    return [
        ScoreRow(
            method=method,
            kind=group[0],
            perturbation=group[1],
            severity=group[2],
            robustness=found["robustness"][column],
            consistency=found["consistency"][column],
            responsiveness=found["responsiveness"][column],
            flip_rate=found["flip_rate"][column],
            robustness_macro=found["robustness_macro"][column],
            same_count=int(counts.same_count[column]),
            changed_count=int(counts.changed_count[column]),
            degenerate_count=int(counts.degenerate_count[column]),
            same_images=int(counts.same_images[column]),
            changed_images=int(counts.changed_images[column]),
            chance_floor=float(floors[column]),
            low_support=bool(counts.low_support[column]),
        )
        for column, method in enumerate(part.methods)
    ]


def correctly_classified(outcomes: Outcomes) -> Outcomes | None:
    """Keep the images that are classified correctly.

    Args:
        outcomes: Of one model.

    Returns:
        Those images; None if no label is known or no image is left.
    """
    right = (outcomes.labels >= 0) & (outcomes.labels == outcomes.clean_classes)
    return outcomes.of_images(right) if bool(np.any(right)) else None
