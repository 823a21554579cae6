"""Which images and which classes two models differ on."""

from dataclasses import replace

import numpy as np

from lightning_camrobust.study.findings import ClassChange, Estimate, ImageChange
from lightning_camrobust.study.outcomes import Bools, Floats, Outcomes
from lightning_camrobust.study.statistics.image_means import TIE_DECIMALS
from lightning_camrobust.study.statistics.signed_rank import mean_interval, signed_rank_p
from lightning_camrobust.study.statistics.totals import ratio
from lightning_camrobust.study.statistics.wilcoxon import holm

# With fewer images Wilcoxon's test cannot reach 0.05, whatever the differences are.
LEAST_IMAGES = 6


def kept_similarities(first: Outcomes, second: Outcomes, *, method: str) -> tuple[Floats, Floats]:
    """Compare what can be compared: the pairs on which both models kept their prediction.

    A map may and should change when the prediction does, and a noise that only one model survives would enter one
    mean only. So a noise counts for an image if both models kept their own prediction under it and both pairs of maps
    could be scored; the two means of an image then rest on the same noises.

    Args:
        first: Outcomes of one model.
        second: Of the other, matched by :func:`~lightning_camrobust.study.paired.paired_outcomes`.
        method: CAM method.

    Returns:
        Mean similarity of each image under either model, each ``(images,)`` float64; NaN in both where an image has no
        such pair.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> one = Outcomes(
        ...     "net", "layer4", "pets", ("a.png",), np.zeros(1, dtype=int), ("gradcam",),
        ...     (Noise("fog", 1), Noise("fog", 3)), np.zeros(1, dtype=int), np.zeros((1, 2), dtype=int),
        ...     np.array([[True, True]]), np.array([[[0.9, 0.7]]]), np.ones(1),
        ... )
        >>> other = replace(one, same=np.array([[True, False]]), similarity=np.array([[[0.4, 0.1]]]))
        >>> [float(mean[0]) for mean in kept_similarities(one, other, method="gradcam")]
        [0.9, 0.4]
    """
    column = first.methods.index(method)
    ours, theirs = first.similarity[:, column], second.similarity[:, column]
    kept = first.same & second.same & ~np.isnan(ours) & ~np.isnan(theirs)
    return _row_means(ours, kept), _row_means(theirs, kept)


def change_by_class(first: Outcomes, means: tuple[Floats, Floats], *, confidence: float) -> tuple[ClassChange, ...]:
    """Test the change of the similarity class by class.

    Args:
        first: Outcomes of one model; its labels are the classes, -1 being none.
        means: Mean similarity of each image under either model, from :func:`kept_similarities`.
        confidence: Of the intervals, which are Student's for the mean difference of the images of a class.

    Returns:
        One entry a class. Tested ones come first, the most changed first. Those with fewer than six comparable images
        follow, with NaN as interval and p: Wilcoxon's test could not find anything in them, and they do not count in
        Holm's correction.
    """
    # Rounded, so that a last bit neither breaks a tie nor hides an image that did not change.
    difference = np.round(means[1] - means[0], TIE_DECIMALS)
    comparable = ~np.isnan(difference)
    changes = [
        _class_change(int(label), difference[comparable & (first.labels == label)], confidence)
        for label in np.unique(first.labels[first.labels >= 0])
    ]
    tested = sorted((each for each in changes if not np.isnan(each.p_value)), key=_most_changed)
    adjusted = holm([each.p_value for each in tested])
    corrected = [replace(each, p_adjusted=float(p)) for each, p in zip(tested, adjusted, strict=True)]
    return (*corrected, *sorted((each for each in changes if np.isnan(each.p_value)), key=_most_changed))


def most_changed_images(
    first: Outcomes, means: tuple[Floats, Floats], *, count: int
) -> tuple[tuple[ImageChange, ...], tuple[ImageChange, ...]]:
    """List the images whose similarity changed most between two models.

    Args:
        first: Outcomes of one model, for names and labels.
        means: Mean similarity of each image under either model, from :func:`kept_similarities`.
        count: How many at most.

    Returns:
        Those that lost most and those that gained most, the largest change first, equal changes by name. Images that
        did not change, or that have no comparable pair, are in neither.
    """
    change = np.round(means[1] - means[0], TIE_DECIMALS)

    def listed(sign: int) -> tuple[ImageChange, ...]:
        rows = [int(row) for row in np.flatnonzero(sign * change > 0)]
        rows.sort(key=lambda row: (-abs(change[row]), first.images[row]))
        return tuple(
            ImageChange(first.images[row], int(first.labels[row]), float(means[0][row]), float(means[1][row]))
            for row in rows[:count]
        )

    return listed(-1), listed(1)


def _row_means(values: Floats, chosen: Bools) -> Floats:
    return ratio(np.where(chosen, values, 0.0).sum(axis=1), chosen.sum(axis=1).astype(np.float64))


def _class_change(label: int, differences: Floats, confidence: float) -> ClassChange:
    estimate = mean_interval(differences, confidence=confidence)
    if differences.size < LEAST_IMAGES:
        return ClassChange(label, differences.size, Estimate(estimate.value, np.nan, np.nan), np.nan, np.nan)
    return ClassChange(label, differences.size, estimate, signed_rank_p(differences), np.nan)


def _most_changed(change: ClassChange) -> tuple[float, int]:
    size = round(abs(change.difference.value), TIE_DECIMALS)
    return (np.inf if np.isnan(size) else -size, change.label)
