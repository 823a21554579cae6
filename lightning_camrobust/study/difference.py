"""Two models, or two checkpoints of one, compared on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.class_changes import change_by_class, kept_similarities, most_changed_images
from lightning_camrobust.study.difference_verdict import difference_verdict
from lightning_camrobust.study.findings import Estimate, ModelDifference, PairRow
from lightning_camrobust.study.model_pair import ModelPair, pair_models
from lightning_camrobust.study.outcomes import Bools, Floats, Kind, Outcomes
from lightning_camrobust.study.statistics.bootstrap import Resampling, bootstrap, differences
from lightning_camrobust.study.statistics.image_means import ImageMeasure, image_means
from lightning_camrobust.study.statistics.pair_sums import side_by_side
from lightning_camrobust.study.statistics.signed_rank import mean_interval
from lightning_camrobust.study.statistics.wilcoxon import holm, wilcoxon_pairs

IMAGE_MEASURES: tuple[ImageMeasure, ...] = ("consistency", "responsiveness")


@dataclass(frozen=True)
class ComparedModels:
    """Two models compared, before it is known how many other pairs of models are judged along with them.

    Attributes:
        pair: The two on common ground.
        rows: All tests; the primary one, of RM, comes first and is not corrected, the others are.
        means: Mean similarity of each image on the pairs that both models kept, under either.
        kept: Mean change of these.
        confidence: Of the intervals.
        num_images: How many of the most changed images to list, each way.
    """

    pair: ModelPair
    rows: tuple[PairRow, ...]
    means: tuple[Floats, Floats]
    kept: Estimate
    confidence: float
    num_images: int

    def conclude(self, *, p_adjusted: float, num_pairs: int) -> ModelDifference:
        """Return the comparison, given the corrected p-value of RM and over how many pairs of models it is."""
        rows = (replace(self.rows[0], p_adjusted=p_adjusted), *self.rows[1:])
        worse, better = most_changed_images(self.pair.first, self.means, count=self.num_images)
        return ModelDifference(
            first=self.pair.names[0],
            second=self.pair.names[1],
            method=self.pair.method,
            kind=self.pair.kind,
            num_images=len(self.pair.first.images),
            rows=rows,
            verdict=difference_verdict(self.pair, rows, kept=self.kept, num_pairs=num_pairs),
            classes=change_by_class(self.pair.first, self.means, confidence=self.confidence),
            worse=worse,
            better=better,
        )


def conclude_all(compared: Sequence[ComparedModels]) -> tuple[ModelDifference, ...]:
    """Correct the primary tests, of RM, over all pairs of models that one report compares, and word the verdicts.

    Args:
        compared: From :func:`measure_difference`.

    Returns:
        One comparison a pair. A pair of models whose RM cannot be compared does not count in the correction.
    """
    p_values = [each.rows[0].p_value for each in compared]
    num_pairs = int((~np.isnan(p_values)).sum())
    return tuple(
        each.conclude(p_adjusted=float(p_value), num_pairs=num_pairs)
        for each, p_value in zip(compared, holm(p_values), strict=True)
    )


def compare_models(
    first: Outcomes,
    second: Outcomes,
    *,
    method: str | None = None,
    kind: Kind = "photometric",
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    num_images: int = 8,
) -> ModelDifference:
    """Say whether the explanations of the second model are more robust than those of the first, paired by image.

    Used are the images and noises that both were measured on, less the images on which one model has no scored pair;
    the verdict counts what was left out. The order in which images were measured does not matter.

    RM is the question: its test is the primary one, which decides the verdict at 5%. With one pair of models it is not
    corrected; :func:`conclude_all` corrects it over several pairs. The other five tests are secondary and one family,
    corrected by Holm's procedure: the cluster bootstrap of C, R and the flip rate, and Wilcoxon's test on the images'
    own means of C and of R. C and R of a model rest on the pairs that it kept or changed itself; the changes of classes
    and images rest on the pairs that both models kept.

    Args:
        first: Outcomes of one model.
        second: Outcomes of the other, on the same data set.
        method: CAM method; by default the first of ``first`` that both have.
        kind: Of the noises; kinds are never pooled.
        resamples: Of the bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of the intervals, in (0, 1).
        num_images: How many of the most changed images to list, each way.

    Returns:
        The comparison. In each row of ``rows`` the label ``first`` is the second model, as differences and effects are
        second minus first.

    Raises:
        ArgumentError: If the data sets or labels differ, names repeat, or no image or noise of this kind is shared.
        UnknownNameError: If not both have the method.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> count, generator = 40, np.random.default_rng(0)
        >>> images, nothing = tuple(f"{row:02d}.png" for row in range(count)), np.zeros(count, dtype=np.int64)
        >>> scores = generator.uniform(0.4, 0.6, (count, 1, 2))
        >>> one = Outcomes(
        ...     "old", "layer4", "pets", images, nothing, ("gradcam",), (Noise("fog", 1), Noise("fog", 5)), nothing,
        ...     np.zeros((count, 2), dtype=np.int64), np.tile([True, False], (count, 1)), scores, np.full(count, 0.1),
        ... )
        >>> other = replace(one, model="new", similarity=scores + np.array([0.2, 0.0]))
        >>> found = compare_models(one, other)
        >>> found.verdict[:66]
        "new's explanations are more robust than old's under photometric no"
        >>> found.rows[1].measure, round(found.rows[1].difference.value, 6)
        ('consistency', 0.2)
    """
    compared = measure_difference(
        first,
        second,
        method=method,
        kind=kind,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        num_images=num_images,
    )
    [difference] = conclude_all([compared])
    return difference


def measure_difference(
    first: Outcomes,
    second: Outcomes,
    *,
    method: str | None = None,
    kind: Kind = "photometric",
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    num_images: int = 8,
) -> ComparedModels:
    """Make all tests of :func:`compare_models`, and leave the correction of the primary one to :func:`conclude_all`.

    Args:
        first: As there.
        second: As there.
        method: As there.
        kind: As there.
        resamples: As there.
        seed: As there.
        confidence: As there.
        num_images: As there.

    Returns:
        What the comparison is made from.

    Raises:
        ArgumentError: As there.
        UnknownNameError: As there.
    """
    if num_images < 0:
        raise ArgumentError(f"`num_images` must be 0 or more, got {num_images!r}.")
    pair = pair_models(first, second, method=method, kind=kind)
    resampling = Resampling(len(pair.first.images), resamples, seed)
    primary, *secondary = _bootstrap_rows(pair, resampling, confidence)
    rows = (primary, *_adjusted([*secondary, *_wilcoxon_rows(pair, confidence)]))
    means = kept_similarities(pair.first, pair.second, method=pair.method)
    change = means[1] - means[0]
    kept = mean_interval(change[~np.isnan(change)], confidence=confidence)
    return ComparedModels(pair, rows, means, kept, confidence, num_images)


def _bootstrap_rows(pair: ModelPair, resampling: Resampling, confidence: float) -> list[PairRow]:
    drawn = bootstrap(side_by_side(pair.sums), resampling)
    found = differences(drawn.columns(1), drawn.columns(0), confidence=confidence)
    kept, changed = (
        np.stack([getattr(each, name)[:, 0] > 0 for each in pair.sums], axis=1)
        for name in ("same_count", "changed_count")
    )
    valued: dict[str, Bools] = {
        "robustness": kept | changed,
        "consistency": kept,
        "responsiveness": changed,
        "flip_rate": kept | changed,
    }
    rows = []
    for measure, has_value in valued.items():
        [(estimate, p_value)] = found[measure]
        count = int(has_value.all(axis=1).sum())
        labels = (measure, pair.names[1], pair.names[0])
        rows.append(PairRow(*labels, estimate, p_value, p_value, np.nan, count, "cluster bootstrap"))
    return rows


def _wilcoxon_rows(pair: ModelPair, confidence: float) -> list[PairRow]:
    rows: list[PairRow] = []
    for measure in IMAGE_MEASURES:
        values = np.hstack(
            [image_means(each.similarity, each.same, measure=measure) for each in (pair.second, pair.first)]
        )
        rows += wilcoxon_pairs(values, pair.names[::-1], measure=measure, confidence=confidence)
    return rows


def _adjusted(rows: list[PairRow]) -> tuple[PairRow, ...]:
    adjusted = holm([row.p_value for row in rows])
    return tuple(replace(row, p_adjusted=float(p_value)) for row, p_value in zip(rows, adjusted, strict=True))
