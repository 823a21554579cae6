"""Several models at once: per-image means by model and method, with a random intercept of the image."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from lightning_camrobust.study.findings import Estimate, MixedComparison, MixedRow
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.image_means import (
    ImageMeasure,
    check_level,
    check_measure,
)
from lightning_camrobust.study.statistics.model_tables import first_copies, stack_models
from lightning_camrobust.study.statistics.random_intercept import InterceptFit, fit_random_intercept
from lightning_camrobust.study.statistics.wald import wald_test

# What is known without a single value.
NOTHING = InterceptFit(np.empty(0), np.empty((0, 0)), math.nan, 0, np.empty((0, 0), dtype=bool), np.empty((0, 0)))
# With values missing, the scatter of fewer images than this is no ground for a test; complete images are exact.
LEAST_INFORMATIVE = 10


def mixed_comparison(
    values: Mapping[str, Floats], methods: Sequence[str], *, measure: ImageMeasure, confidence: float = 0.95
) -> MixedComparison:
    """Fit per-image means ~ model x method with a random intercept of the image, by REML.

    The terms are tested on marginal means: ``"model"`` compares models averaged over methods with equal weight,
    ``"method"`` methods averaged over models, ``"method x model"`` whether methods differ in the same way on every
    model. F's denominator counts the images that are informative about a term, by
    :meth:`~lightning_camrobust.study.statistics.random_intercept.InterceptFit.informative_images`: of a hundred images
    that have a value on one of two models, those few that have one on both may decide. Tests and intervals rest on the
    scatter of whole images, not on the model's assumption that residuals of an image are independent, which does not
    hold: all methods on a model see the same noisy images and decisions. See
    :func:`~lightning_camrobust.study.statistics.random_intercept.fit_random_intercept` and
    :func:`~lightning_camrobust.study.statistics.wald.wald_test`, which also tells why p comes from an F distribution.

    Methods that are copies of each other on every model (see
    :func:`~lightning_camrobust.study.statistics.model_tables.duplicate_methods`) enter once, as the first of
    them; else they would weigh more in ``"model"`` and in the share of the image. Their marginal means are given for
    each.

    An image without a value in one cell (a model and a method) keeps its others. That assumes that whether it is
    missing does not depend on the value itself once the others are known. It is a strong assumption for
    responsiveness, where the images that have a value on two models can be few: compare `num_values` with images x
    models x methods.

    Args:
        values: For each model its means of images ``(images, methods)``; NaN where undefined. Row i is the same image
            for all models.
        methods: Labels.
        measure: What the values are.
        confidence: Of the intervals.

    Returns:
        The comparison. Terms that do not exist, with one model or one method, have no row. All terms are NaN if a model
        has no value at all of a method, whose mean then is NaN too; so is a term with no more informative images than
        degrees of freedom or, where values are missing, with fewer than 10. `image_share` is NaN if no
        image has two values.

    Raises:
        ArgumentError: If there is no model or method, shapes do not fit, or `measure` or `confidence` is none.

    Source:
        Laird & Ware 1982, Biometrics 38; Liang & Zeger 1986, Biometrika 73; Hotelling 1931.

    Example:
        >>> image = np.linspace(0, 0.3, 12)[:, None]
        >>> first = 0.5 + image + 0.01 * np.cos(np.arange(24)).reshape(12, 2)
        >>> second = 0.6 + image + 0.01 * np.sin(np.arange(24)).reshape(12, 2)
        >>> found = mixed_comparison({"a": first, "b": second}, ["gradcam", "eigencam"], measure="consistency")
        >>> [(row.term, row.degrees, row.p_value < 0.01) for row in found.rows]
        [('model', 1, True), ('method', 1, False), ('method x model', 1, False)]
        >>> round(found.means["b", "gradcam"].value, 2), found.image_share > 0.9, found.num_values
        (0.75, True, 48)
    """
    check_measure(measure, speaker="mixed_comparison")
    check_level(confidence, name="confidence", speaker="mixed_comparison")
    stacked = stack_models(values, methods, speaker="mixed_comparison")
    sources = first_copies(stacked)
    kept = sorted(set(sources))
    shape = (len(values), len(kept))
    cells = stacked[:, :, kept].reshape(len(stacked), shape[0] * shape[1])
    filled = ~np.isnan(cells).all(axis=0)
    fit = fit_random_intercept(cells[:, filled]) if filled.any() else NOTHING
    estimates = np.full((cells.shape[1], 3), np.nan)
    estimates[filled] = _intervals(cells[:, filled], fit, confidence)
    place = {method: kept.index(source) for method, source in zip(methods, sources, strict=True)}
    return MixedComparison(
        measure=measure,
        rows=_test_terms(fit, shape, complete=bool(filled.all()), num_methods=len(methods)),
        means={
            (model, method): Estimate(*map(float, estimates[row * len(kept) + place[method]]))
            for row, model in enumerate(values)
            for method in methods
        },
        image_share=fit.image_share,
        num_images=fit.num_images,
        num_values=int((~np.isnan(stacked)).sum()),
    )


def _intervals(cells: Floats, fit: InterceptFit, confidence: float) -> Floats:
    """Return the mean of each cell with Student's interval, ``(cells, 3)``; NaN ends for a cell of one image."""
    counts = (~np.isnan(cells)).sum(axis=0)
    quantile = stats.t.ppf((1 + confidence) / 2, np.maximum(counts - 1, 1))
    reach = np.where(counts > 1, quantile * np.sqrt(np.diag(fit.covariance)), np.nan)
    return np.stack([fit.means, fit.means - reach, fit.means + reach], axis=1)


def _test_terms(fit: InterceptFit, shape: tuple[int, int], *, complete: bool, num_methods: int) -> tuple[MixedRow, ...]:
    """Test the terms that exist."""
    models, kept = shape
    average = [np.full((1, size), 1 / size) for size in shape]
    between = [_differences(size) for size in shape]
    terms = []
    if models > 1:
        terms.append(("model", np.kron(between[0], average[1])))
    if num_methods > 1:
        terms.append(("method", np.kron(average[0], between[1])))
    if models > 1 and num_methods > 1:
        terms.append(("method x model", np.kron(between[0], between[1])))
    if not complete:
        return tuple(MixedRow(name, math.nan, len(contrasts), math.nan) for name, contrasts in terms)
    return tuple(
        MixedRow(name, *wald_test(fit.means, fit.covariance, contrasts, num_images=_informative(fit, contrasts)))
        for name, contrasts in terms
    )


def _informative(fit: InterceptFit, contrasts: Floats) -> float:
    """Return the images that tell about contrasts; none where they are too few to go by."""
    if fit.present.all() or not len(contrasts):
        return fit.num_images
    num_images = fit.informative_images(contrasts)
    return num_images if num_images >= LEAST_INFORMATIVE else 0


def _differences(size: int) -> Floats:
    """Return contrasts of the first level with each other one, ``(size - 1, size)``."""
    return np.hstack([np.ones((size - 1, 1)), -np.eye(size - 1)])
