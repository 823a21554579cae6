"""What scores rest on: how many pairs and images, and what uniformly random rankings would score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.findings import LOW_SUPPORT_IMAGES
from lightning_camrobust.study.outcomes import Bools, Floats, Integers
from lightning_camrobust.study.statistics.pair_sums import PairSums
from lightning_camrobust.study.statistics.totals import ratio
from lightning_camrobust.summary import LOW_SUPPORT


class Support(NamedTuple):
    """What the scores of each column rest on; every field is ``(columns,)``."""

    same_count: Integers
    changed_count: Integers
    degenerate_count: Integers
    same_images: Integers
    changed_images: Integers
    low_support: Bools


def support(sums: PairSums) -> Support:
    """Count pairs and images.

    Args:
        sums: Of each image.

    Returns:
        Pairs in both sets and in neither, images that have such a pair, and whether a set has fewer than 30 pairs
        or is made of fewer than 10 images: 48 pairs of 4 images are 4 observations, not 48.

    Example:
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> found = support(pair_sums([[[0.5, 0.1]], [[0.5, np.nan]]], np.array([[True, False], [True, False]])))
        >>> [each.tolist() for each in found]
        [[2], [1], [1], [2], [1], [True]]
    """
    same, changed, degenerate = (
        each.sum(axis=0).astype(np.int64) for each in (sums.same_count, sums.changed_count, sums.degenerate_count)
    )
    same_images, changed_images = ((each > 0).sum(axis=0) for each in (sums.same_count, sums.changed_count))
    few_images = np.minimum(same_images, changed_images) < LOW_SUPPORT_IMAGES
    return Support(
        same_count=same,
        changed_count=changed,
        degenerate_count=degenerate,
        same_images=same_images,
        changed_images=changed_images,
        low_support=(np.minimum(same, changed) < LOW_SUPPORT) | few_images,
    )


def chance_overlap(num_segments: ArrayLike, p: float) -> Floats:
    """Rank-biased overlap that two independent, uniformly random full rankings of m segments have on average.

    At depth d a random prefix holds each segment with probability d / m, so the two prefixes agree on a share d / m.
    The mean is (1 - p) sum_{d <= m} p^(d-1) d / m + p^m = (1 - p^m) / (m (1 - p)). Unrelated maps score somewhat more,
    as they are smooth and segments differ in size: 0.071 against 0.054 in a simulation with p 0.2, 0.244 against 0.242
    with p 0.9. For rankings of sums over segments it does not hold at all.

    Args:
        num_segments: m of each image, integers, any shape.
        p: Of the overlap, in (0, 1).

    Returns:
        The mean overlap, float64; NaN below two segments, which cannot be ranked.

    Raises:
        ArgumentError: If ``p`` is out of range.

    Source:
        Webber, Moffat, Zobel 2010, "A similarity measure for indefinite rankings", equation 4, of random permutations.

    Example:
        >>> chance_overlap([25, 2, 1], 0.2).round(3).tolist()
        [0.05, 0.6, nan]
    """
    if not 0 < p < 1:
        raise ArgumentError(f"chance_overlap: `p` must be between 0 and 1, got {p!r}.")
    segments = np.asarray(num_segments, dtype=np.float64)
    rankable = segments >= 2
    safe = np.where(rankable, segments, 2.0)
    return np.where(rankable, (1 - p**safe) / (safe * (1 - p)), np.nan)


def chance_floor(chance: ArrayLike) -> float:
    """Robustness of uniformly random rankings, if every image feeds both sets alike.

    Let a pair of image i have the similarity b_i on average, whatever the network says. Then C is on average the mean
    of b_i over the pairs of S, and R is 1 minus the mean of b_i over the pairs of D. Given the clean ranking, the noisy
    ones are unrelated to each other, so C and R are uncorrelated and RM is the product of their means:
    b_S (1 - b_D). Where images feed both sets alike, b_S = b_D = mean(b_i) = b and the floor is b (1 - b). It is not
    mean(b_i (1 - b_i)), which is smaller by the variance of b_i. For sets that differ see :func:`chance_floors`.

    Args:
        chance: b_i ``(images,)`` in [0, 1]; NaN for images with fewer than two segments, which have no scored pair.

    Returns:
        The floor, at most 0.25; NaN where no image has a known b_i.

    Example:
        >>> round(chance_floor([0.2, 0.4, np.nan]), 4)
        0.21
    """
    values = np.asarray(chance, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan")
    mean = float(known.mean())
    return mean * (1 - mean)


def chance_floors(chance: ArrayLike, sums: PairSums) -> Floats:
    """Robustness of uniformly random rankings that feed the sets as each column did, b_S (1 - b_D).

    Args:
        chance: b_i ``(images,)`` in [0, 1], see :func:`chance_floor`; NaN where it is not known.
        sums: Of the same images, which say how many pairs of each are in S and in D.

    Returns:
        Floors ``(columns,)``; NaN where a set is empty or holds a pair of an image whose b_i is not known.

    Raises:
        ArgumentError: If the numbers of images differ.

    Example:
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> sums = pair_sums([[[0.5]], [[0.5]]], np.array([[True], [False]]))
        >>> chance_floors([0.2, 0.4], sums).round(3).tolist()
        [0.12]
    """
    values = np.asarray(chance, dtype=np.float64)
    if values.shape != (sums.num_images,):
        raise ArgumentError(
            f"chance_floors: `chance` must be one number for each of {sums.num_images} images, got {values.shape}."
        )
    return _weighted(values, sums.same_count) * (1 - _weighted(values, sums.changed_count))


def _weighted(values: Floats, count: Floats) -> Floats:
    column = values[:, None]
    return ratio(np.where(count > 0, column * count, 0.0).sum(axis=0), count.sum(axis=0))
