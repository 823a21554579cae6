"""Images drawn with replacement, each with all its pairs: the totals of every resample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.distribution import Distribution
from lightning_camrobust.study.statistics.pair_sums import PairSums
from lightning_camrobust.study.statistics.totals import STATISTICS, Totals

LEAST_RESAMPLES = 100
# A bootstrap of R resamples knows no p-value below 2 / (R + 1). With 80 = 4 / 0.05 of them for each test of a family,
# the smallest p-value that Holm's correction can leave is half of 0.05.
_RESAMPLES_A_TEST = 80
# Elements of one block of weights: 32 MiB of float64, whatever the numbers of images and of resamples.
_BLOCK = 2**22


@dataclass(frozen=True)
class Resampling:
    """How often each image is drawn, in every resample; the same for whatever is measured on these images.

    Attributes:
        num_images: Images to draw from, and to draw.
        resamples: How many samples, 100 or more; 2000 for the limits of 95% intervals.
        seed: Of the draw.

    Example:
        >>> weights = np.vstack(list(Resampling(5, resamples=100).weights()))
        >>> weights.shape, sorted(set(weights.sum(axis=1).tolist()))
        ((100, 5), [5.0])
    """

    num_images: int
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ArgumentError(f"Resampling: `num_images` must be 1 or more, got {self.num_images!r}.")
        if self.resamples < LEAST_RESAMPLES:
            raise ArgumentError(
                f"Resampling: `resamples` must be {LEAST_RESAMPLES} or more, got {self.resamples!r}; fewer do not show "
                "where the tails are. Take 2000."
            )

    def weights(self) -> Iterator[Floats]:
        """Yield blocks ``(some resamples, images)`` of how often an image was drawn."""
        generator = np.random.default_rng(self.seed)
        rows = max(1, _BLOCK // self.num_images)
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            drawn = generator.integers(self.num_images, size=(count, self.num_images))
            drawn += self.num_images * np.arange(count)[:, None]
            drawn_times = np.bincount(drawn.ravel(), minlength=count * self.num_images)
            yield drawn_times.reshape(count, self.num_images).astype(np.float64)


def enough_resamples(resamples: int, *, tests: int) -> int:
    """Say how many resamples it takes until a family of tests can find something after Holm's correction at 5%.

    Args:
        resamples: That are wanted anyway.
        tests: Of the family.

    Returns:
        ``resamples``, or 4 / 0.05 for each test if that is more.

    Example:
        >>> enough_resamples(2000, tests=15), enough_resamples(2000, tests=55)
        (2000, 4400)
    """
    return max(resamples, _RESAMPLES_A_TEST * tests)


@dataclass(frozen=True)
class Bootstrap:
    """Totals of all images, of every resample and of all images but one.

    Attributes:
        resampling: Which resamples.
        whole: Of all images, ``(columns,)``.
        resampled: Of each resample, ``(resamples, columns)``.
        left_out: Of all images but one, ``(images, columns)``.
    """

    resampling: Resampling
    whole: Totals
    resampled: Totals
    left_out: Totals

    def columns(self, chosen: ArrayLike) -> "Bootstrap":
        """Return some columns only, by their indices, which may repeat."""
        parts = (each.columns(chosen) for each in (self.whole, self.resampled, self.left_out))
        return Bootstrap(self.resampling, *parts)

    def distribution(self, statistic: str) -> Distribution:
        """Return a score of all columns with its replicates ``(resamples, columns)``, by its name in `STATISTICS`."""
        if statistic not in STATISTICS:
            raise UnknownNameError(
                f"Bootstrap: there is no statistic {statistic!r}. Did you mean {nearest_names(statistic, STATISTICS)}?"
            )
        score = STATISTICS[statistic]
        return Distribution(score(self.whole), score(self.resampled), score(self.left_out))


def bootstrap(sums: PairSums, resampling: Resampling) -> Bootstrap:
    """Draw images with replacement and sum their pairs.

    Args:
        sums: Of each image. One call serves many columns; put groups of noises next to each other with
            :func:`~lightning_camrobust.study.statistics.pair_sums.side_by_side`.
        resampling: Of as many images.

    Returns:
        Totals from which estimates and differences are made.

    Raises:
        ArgumentError: If the numbers of images differ.

    Example:
        >>> from lightning_camrobust.study.statistics.pair_sums import pair_sums
        >>> sums = pair_sums([[[0.5, 1.0]], [[0.2, 0.1]]], np.array([[True, False], [True, True]]))
        >>> bootstrap(sums, Resampling(2, resamples=100)).distribution("consistency").replicates.shape
        (100, 1)
    """
    if sums.num_images != resampling.num_images:
        raise ArgumentError(
            f"bootstrap: `resampling` is of {resampling.num_images} images, `sums` of {sums.num_images}. "
            "Use `Resampling(sums.num_images)`."
        )
    each = sums.of_each_image().stack()
    whole = each.sum(axis=1)
    parts, images, columns = each.shape
    table = np.ascontiguousarray(each.transpose(1, 0, 2)).reshape(images, parts * columns)
    drawn = np.concatenate([weights @ table for weights in resampling.weights()])
    resampled = drawn.reshape(resampling.resamples, parts, columns).transpose(1, 0, 2)
    return Bootstrap(
        resampling,
        whole=Totals.from_stack(whole),
        resampled=Totals.from_stack(resampled),
        left_out=Totals.from_stack(whole[:, None] - each),
    )
