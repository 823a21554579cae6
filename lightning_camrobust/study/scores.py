"""The scores of every method, with intervals and support, over all noises of a kind and over each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from lightning_camrobust.study.findings import PairRow, ScoreRow
from lightning_camrobust.study.outcomes import Floats, Integers, Kind, Outcomes
from lightning_camrobust.study.statistics.bootstrap import Difference, Resampling, bootstrap, differences, estimates
from lightning_camrobust.study.statistics.pair_sums import pair_sums
from lightning_camrobust.study.statistics.resampling import enough_resamples
from lightning_camrobust.study.statistics.support import chance_floors, support
from lightning_camrobust.study.statistics.wilcoxon import holm

# Kind, perturbation (None: all of that kind) and severity (None: all).
Group = tuple[Kind, str | None, int | None]
# Pairs of methods that are resampled at once; with 20 methods, 15200 resamples of 32 pairs take 60 MiB.
_AT_ONCE = 32


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

    Two methods are compared on the pairs of images and noises that both could score: a method must not look better
    because its maps broke under the hardest noises. So where methods differ in that, a difference need not be that of
    their two scores.

    A bootstrap of R resamples knows no p-value below 2 / (R + 1), and Holm's correction multiplies the smallest one by
    the number of pairs. This family therefore draws 4 / 0.05 = 80 resamples for each pair of methods if that is more
    than ``resampling`` asks for: 4400 for eleven methods.

    Args:
        outcomes: Of one model, noises of one kind.
        resampling: Of its images; the number of resamples is the least.
        confidence: Of the intervals, which are not corrected for the number of pairs.

    Returns:
        One row a pair, p-values also after Holm's correction over all pairs.
    """
    pairs = list(combinations(range(len(outcomes.methods)), 2))
    if not pairs:
        return ()
    enough = replace(resampling, resamples=enough_resamples(resampling.resamples, tests=len(pairs)))
    blocks = [pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)]
    found = [each for block in blocks for each in _pair_differences(outcomes, block, enough, confidence)]
    adjusted = holm([each.p_value for each, _ in found])
    return tuple(
        PairRow(
            measure="robustness",
            first=outcomes.methods[one],
            second=outcomes.methods[other],
            difference=each.estimate,
            p_value=each.p_value,
            p_adjusted=float(corrected),
            effect=float("nan"),
            num_images=num_images,
            test="cluster bootstrap",
        )
        for (one, other), (each, num_images), corrected in zip(pairs, found, adjusted, strict=True)
    )


def _pair_differences(
    outcomes: Outcomes, pairs: Sequence[tuple[int, int]], resampling: Resampling, confidence: float
) -> list[tuple[Difference, int]]:
    """Return the difference of every two methods, and the images with a pair that both could score."""
    columns, places = _compared_columns(outcomes.similarity, np.array(pairs))
    sums = pair_sums(columns, outcomes.same)
    drawn = bootstrap(sums, resampling)
    first, second = (drawn.columns(places[:, side]) for side in (0, 1))
    found = differences(first, second, confidence=confidence, statistics=("robustness",))["robustness"]
    num_images = (sums.same_count + sums.changed_count > 0).sum(axis=0)[places[:, 0]]
    return list(zip(found, num_images.tolist(), strict=True))


def _compared_columns(similarity: Floats, pairs: Integers) -> tuple[Floats, Integers]:
    """Return what is bootstrapped ``(images, columns, noises)``, and for every two methods their two columns.

    These are the methods themselves; where methods differ in what they scored, two columns for every two methods.
    """
    unscored = np.isnan(similarity)
    if (unscored == unscored[:, :1]).all():
        return similarity, pairs
    both = similarity[:, pairs]
    common = np.where(np.isnan(both).any(axis=2, keepdims=True), np.nan, both)
    images, count, _, noises = common.shape
    return common.reshape(images, 2 * count, noises), np.arange(2 * count).reshape(count, 2)


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
