"""All about one model: scores, tests between its methods, and whether the conclusion holds under other settings."""

from dataclasses import asdict, dataclass

from lightning_camrobust.study.conclusion import judge_stability
from lightning_camrobust.study.findings import ModelFindings, PairRow, RankTest
from lightning_camrobust.study.outcomes import Outcomes
from lightning_camrobust.study.scores import correctly_classified, robustness_pairs, score_rows
from lightning_camrobust.study.settings import ranked_kind
from lightning_camrobust.study.statistics.bootstrap import Resampling
from lightning_camrobust.study.statistics.friedman import friedman_test
from lightning_camrobust.study.statistics.image_means import ImageMeasure, image_means
from lightning_camrobust.study.statistics.wilcoxon import wilcoxon_pairs

IMAGE_MEASURES: tuple[ImageMeasure, ...] = ("consistency", "responsiveness")


@dataclass(frozen=True)
class Statistics:
    """How statistics are done.

    Attributes:
        resamples: Of every bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of all intervals, in (0, 1).
    """

    resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def resampling(self, outcomes: Outcomes) -> Resampling:
        """Return the resamples of the images of some outcomes."""
        return Resampling(len(outcomes.images), self.resamples, self.seed)


def analyse_model(outcomes: Outcomes, *, seconds: float = float("nan"), how: Statistics | None = None) -> ModelFindings:
    """Work out all about one model.

    Args:
        outcomes: Of the model, on one target layer.
        seconds: What measuring took.
        how: How statistics are done.

    Returns:
        The findings.

    Example:
        >>> import numpy as np
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> nobody, same = np.zeros(4, dtype=np.int64), np.tile([True, False], (4, 1))
        >>> outcomes = Outcomes(
        ...     "net", "layer4", "pets", tuple("abcd"), nobody, ("gradcam",), (Noise("fog", 1), Noise("fog", 5)),
        ...     nobody, np.where(same, 0, 1), same, np.tile([[0.5, 0.2]], (4, 1, 1)), np.full(4, 0.1),
        ... )
        >>> found = analyse_model(outcomes)
        >>> found.accuracy, round(found.scores[0].robustness.value, 3), found.stability
        (1.0, 0.4, None)
    """
    how = Statistics() if how is None else how
    resampling, confidence = how.resampling(outcomes), how.confidence
    ranked = outcomes.of_kind(ranked_kind(outcomes))
    known = outcomes.labels >= 0
    right = correctly_classified(outcomes)
    several = len(outcomes.methods) > 1
    return ModelFindings(
        model=outcomes.model,
        target_layer=outcomes.target_layer,
        data=outcomes.data,
        num_images=len(outcomes.images),
        accuracy=float((outcomes.labels == outcomes.clean_classes)[known].mean()) if known.any() else float("nan"),
        scores=score_rows(outcomes, resampling, confidence=confidence),
        pairs=method_pairs(ranked, resampling, confidence=confidence) if several else (),
        rank_tests=rank_tests(ranked) if several else (),
        stability=judge_stability(outcomes, **asdict(how)) if several else None,
        seconds=seconds,
        correct_scores=(
            () if right is None else score_rows(right, how.resampling(right), confidence=confidence, pooled_only=True)
        ),
    )


def method_pairs(ranked: Outcomes, resampling: Resampling, *, confidence: float = 0.95) -> tuple[PairRow, ...]:
    """Compare methods in pairs: RM by the bootstrap, C and R of images by Wilcoxon's test.

    Args:
        ranked: Outcomes under noises of one kind.
        resampling: Of the images.
        confidence: Of the intervals.

    Returns:
        Rows; each measure is a family of its own.
    """
    rows = list(robustness_pairs(ranked, resampling, confidence=confidence))
    for measure in IMAGE_MEASURES:
        means = image_means(ranked.similarity, ranked.same, measure=measure)
        rows += wilcoxon_pairs(means, ranked.methods, measure=measure, confidence=confidence)
    return tuple(rows)


def rank_tests(ranked: Outcomes) -> tuple[RankTest, ...]:
    """Rank methods on every image, by C and by R.

    Args:
        ranked: Outcomes under noises of one kind.

    Returns:
        One test a measure.
    """
    return tuple(
        friedman_test(
            image_means(ranked.similarity, ranked.same, measure=measure), list(ranked.methods), measure=measure
        )
        for measure in IMAGE_MEASURES
    )
