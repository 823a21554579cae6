"""What a study found, as plain records: what tables, figures and the page are made from."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lightning_camrobust.study.outcomes import Kind

# Scores whose pairs come from fewer images say little, however many pairs there are: images are what was sampled.
LOW_SUPPORT_IMAGES = 10


class Estimate(NamedTuple):
    """A number with its confidence interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one method, pooled over a set of noises.

    Attributes:
        method: Label.
        kind: Kind of the noises; kinds are never pooled with each other.
        perturbation: Label, or None for all of that kind.
        severity: 1..5, or None for all.
        robustness: RM = C R, pooled over pairs.
        consistency: C.
        responsiveness: R.
        flip_rate: Share of pairs whose prediction changed.
        robustness_macro: RM from C and R that are means over images of means over an image's own pairs.
        same_count: Pairs behind C.
        changed_count: Pairs behind R.
        degenerate_count: Pairs that could not be scored.
        same_images: Images that have such a pair.
        changed_images: Images that have such a pair.
        chance_floor: What RM uniformly random rankings would get, b (1 - b); NaN where unknown.
        low_support: Whether a set has fewer than 30 pairs, or its pairs come from fewer than 10 images.
    """

    method: str
    kind: Kind
    perturbation: str | None
    severity: int | None
    robustness: Estimate
    consistency: Estimate
    responsiveness: Estimate
    flip_rate: Estimate
    robustness_macro: Estimate
    same_count: int
    changed_count: int
    degenerate_count: int
    same_images: int
    changed_images: int
    chance_floor: float
    low_support: bool


@dataclass(frozen=True)
class PairRow:
    """Two methods, or two models, compared on the same images.

    Attributes:
        measure: ``"robustness"``, ``"consistency"``, ``"responsiveness"`` or ``"flip_rate"``.
        first: Label.
        second: Label.
        difference: First minus second.
        p_value: Two-sided, that there is no difference.
        p_adjusted: The same after Holm's correction. Of two methods: for all pairs of this measure. Of two models:
            robustness is the primary test and is corrected only over the pairs of models that are compared with it
            (with one pair it is ``p_value``); the other measures are one secondary family for each pair of models.
        effect: Rank-biserial correlation in [-1, 1], positive if the first tends to be larger; NaN for robustness.
        num_images: Images that both have a value on; for robustness of methods, a pair that both could score.
        test: Name of the test, such as ``"cluster bootstrap"`` or ``"Wilcoxon"``.
    """

    measure: str
    first: str
    second: str
    difference: Estimate
    p_value: float
    p_adjusted: float
    effect: float
    num_images: int
    test: str


@dataclass(frozen=True)
class RankTest:
    """Friedman's test over methods, with images as blocks.

    Attributes:
        measure: ``"consistency"`` or ``"responsiveness"``: per-image means.
        methods: Labels.
        mean_ranks: Of each method over images; 1 is best (largest).
        statistic: Friedman's chi-squared, corrected for ties.
        p_value: That no method ranks higher than another.
        kendall_w: Agreement of the images in [0, 1]: the size of the effect.
        num_images: Blocks.
        critical_difference: Nemenyi's, of mean ranks; NaN if there is no table for it.
        alpha: Level that it belongs to.
        cliques: Groups of methods that are not told apart, each a tuple of labels.
    """

    measure: str
    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    statistic: float
    p_value: float
    kendall_w: float
    num_images: int
    critical_difference: float
    alpha: float
    cliques: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ReadingRow:
    """The methods ranked under one setting.

    Attributes:
        label: The setting, such as ``"p=0.9"``, ``"segmenter=slic"`` or ``"averaging=macro"``.
        robustness: RM of each method, in the order of the verdict's ``methods``; NaN where undefined.
        ranking: Methods, best first; ties keep the order of ``methods``.
        tau: Kendall's tau-b with the main setting; NaN where undefined.
        tau_interval: Its bootstrap interval.
        num_images: Images it rests on.
    """

    label: str
    robustness: tuple[float, ...]
    ranking: tuple[str, ...]
    tau: float
    tau_interval: Estimate
    num_images: int


@dataclass(frozen=True)
class Stability:
    """Whether the ranking of methods survives other settings.

    Attributes:
        methods: Labels.
        rows: The main setting first.
        stable: Whether every tau is at least ``least_tau``.
        reasons: Why not, one sentence a setting; empty if stable.
        least_tau: The limit.
        change: What lies behind it where a tau is below the limit: ``"chance"`` if only methods change places that are
            not told apart in either setting; ``"real"`` if others do, or a ranking is undefined. ``"none"`` if stable,
            or if it was not asked.
    """

    methods: tuple[str, ...]
    rows: tuple[ReadingRow, ...]
    stable: bool
    reasons: tuple[str, ...]
    least_tau: float
    change: Literal["none", "chance", "real"] = "none"

    @property
    def tested(self) -> bool:
        """Whether maps were read in another way at all; another average of the same similarities is no such test."""
        return any(not row.label.startswith("averaging=") for row in self.rows[1:])


@dataclass(frozen=True)
class MixedRow:
    """One term of the mixed model.

    Attributes:
        term: What is tested, such as ``"method"``, ``"model"`` or ``"method x model"``.
        statistic: Hotelling's T squared, from a covariance that is clustered by image.
        degrees: Contrasts that are tested, q: degrees of freedom of the numerator.
        p_value: That the term has no effect, from the F distribution with q and n - q degrees of freedom.
        denominator: Degrees of freedom of the denominator, n - q, n being the images that are informative about the
            term, which may be a broken number; 0 where there is no F.
    """

    term: str
    statistic: float
    degrees: int
    p_value: float
    denominator: float = 0.0

    @property
    def f_value(self) -> float:
        """T squared scaled to F; NaN where there is no F."""
        images = self.degrees + self.denominator
        if not self.denominator or not self.degrees:
            return math.nan
        return self.statistic * self.denominator / (self.degrees * (images - 1))


@dataclass(frozen=True)
class MixedComparison:
    """Per-image means over several models at once, with a random intercept of the image.

    Attributes:
        measure: ``"consistency"`` or ``"responsiveness"``.
        rows: Terms.
        means: Marginal mean of each (model, method), with interval.
        image_share: Share of the variance that belongs to the image, in [0, 1].
        num_images: Images.
        num_values: Values.
        kind: Of the noises.
    """

    measure: str
    rows: tuple[MixedRow, ...]
    means: dict[tuple[str, str], Estimate]
    image_share: float
    num_images: int
    num_values: int
    kind: Kind = "photometric"


@dataclass(frozen=True)
class GalleryItem:
    """One picture of the gallery.

    Attributes:
        title: What it shows, one line.
        file: PNG, relative to the study's folder.
        alt: What is seen, for readers who cannot see it.
    """

    title: str
    file: str
    alt: str


@dataclass(frozen=True)
class ModelFindings:
    """All about one model, drawn on one target layer.

    Attributes:
        model: Name.
        target_layer: Dotted name.
        data: Name of the data set.
        num_images: Images.
        accuracy: On the clean images, in [0, 1]; NaN without labels.
        scores: One row a method and kind; then a perturbation; then a severity.
        pairs: Methods compared with each other, on noises of `ranked_kind`.
        rank_tests: Friedman, on the same noises.
        stability: The conclusion under other settings; None with fewer than two methods or settings.
        seconds: Time that measuring took; NaN if unknown.
        correct_scores: Rows over all noises of a kind, from images that are classified correctly; empty without labels.
    """

    model: str
    target_layer: str
    data: str
    num_images: int
    accuracy: float
    scores: tuple[ScoreRow, ...]
    pairs: tuple[PairRow, ...]
    rank_tests: tuple[RankTest, ...]
    stability: Stability | None
    seconds: float
    correct_scores: tuple[ScoreRow, ...] = ()

    @property
    def ranked_kind(self) -> Kind | None:
        """Kind of the noises that methods are ranked, tested and read anew on; None if nothing was measured."""
        measured = [row.kind for row in self.scores]
        return "photometric" if "photometric" in measured else next(iter(measured), None)


@dataclass(frozen=True)
class ImageChange:
    """One image on which two models differ.

    Attributes:
        image: Name.
        label: True class, -1 if unknown.
        first: Mean similarity under the first model.
        second: Under the second.
    """

    image: str
    label: int
    first: float
    second: float


@dataclass(frozen=True)
class ClassChange:
    """One class on which two models differ.

    Attributes:
        label: The class.
        num_images: Images of it.
        difference: Mean similarity, second minus first, on the pairs that both models kept; Student's interval.
        p_value: Two-sided Wilcoxon; NaN with too few images.
        p_adjusted: After Holm's correction over classes.
    """

    label: int
    num_images: int
    difference: Estimate
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class ModelDifference:
    """Two models compared, paired by image. All differences are second minus first.

    Attributes:
        first: Name of the first.
        second: Name of the second.
        method: CAM method.
        kind: Kind of the noises.
        num_images: Images that both were measured on.
        rows: Robustness, consistency, responsiveness and flip rate.
        verdict: One sentence.
        classes: Tested ones first, those with too few images for a test after them, each the most changed first;
            empty without labels.
        worse: Images that lost most.
        better: Images that gained most.
    """

    first: str
    second: str
    method: str
    kind: Kind
    num_images: int
    rows: tuple[PairRow, ...]
    verdict: str
    classes: tuple[ClassChange, ...]
    worse: tuple[ImageChange, ...]
    better: tuple[ImageChange, ...]


@dataclass(frozen=True)
class Findings:
    """All that the report shows.

    Attributes:
        title: Of the page.
        verdict: Sentences in plain words, the most important first.
        models: One entry a model and target layer.
        mixed: Comparisons across models of one data set.
        differences: Pairs of models.
        baselines: The critique of input-perturbation scores, as :mod:`~lightning_camrobust.study.critique` wrote it.
        gallery: Pictures.
        multiplicity: Which families of tests were corrected, and how; one sentence each.
        manifests: What each study says of itself: versions, seeds, hashes, arguments.
        resamples: Of the bootstrap.
        confidence: Of all intervals.
        notes: What else a reader must know, such as which models are not compared and why; one sentence each.
    """

    title: str
    verdict: tuple[str, ...]
    models: tuple[ModelFindings, ...]
    mixed: tuple[MixedComparison, ...] = ()
    differences: tuple[ModelDifference, ...] = ()
    baselines: tuple[dict[str, object], ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    multiplicity: tuple[str, ...] = ()
    manifests: tuple[dict[str, object], ...] = ()
    resamples: int = 2000
    confidence: float = 0.95
    notes: tuple[str, ...] = field(default=())
