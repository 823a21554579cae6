"""The findings of a study in plain sentences."""

import math
from collections.abc import Iterator, Sequence

from lightning_camrobust.study.findings import Estimate, ModelFindings, PairRow, ScoreRow, Stability

MULTIPLICITY = (
    "Methods are compared in pairs within one model; p-values of robustness, of consistency and of responsiveness are "
    "three families, each corrected by Holm's procedure over all its pairs. Two methods are compared on the pairs of "
    "images and noises that both could score. The bootstrap of robustness draws 80 resamples or more for each pair of "
    "methods, as fewer could not find anything after the correction.",
    "Mean ranks are compared by Nemenyi's critical difference, which covers all pairs of methods at once.",
    "Robustness is the primary test of two models: its p-value is not corrected where one pair of models is compared, "
    "and by Holm's procedure over the pairs of models where there are several. Its five secondary tests are one family "
    "for each pair of models, corrected by Holm's procedure: consistency, responsiveness and flip rate by the "
    "bootstrap, consistency and responsiveness of single images by Wilcoxon's test. Changes of classes are a family of "
    "their own.",
    "Confidence intervals are of one number each and are not corrected for their number.",
)

# Share of a method's pairs; below it unequal numbers of pairs are not worth a sentence.
_WORTH_SAYING = 0.005


def describe_model(found: ModelFindings, *, alpha: float = 0.05) -> Iterator[str]:
    """Say which method is the most robust on one model, and whether that can be relied on.

    Args:
        found: All about the model.
        alpha: Level at which two methods count as different, after Holm's correction.

    Returns:
        One sentence or a few.
    """
    where = f"{found.model} ({found.target_layer}, {found.num_images} images of {found.data})"
    kind = ranked_kind(found.scores)
    rows = [row for row in found.scores if row.kind == kind and row.perturbation is None]
    known = sorted((row for row in rows if not math.isnan(row.robustness.value)), key=lambda row: -row.robustness.value)
    if not known:
        yield f"{where}: robustness is undefined under {kind} noises, as {_why_undefined(rows)}."
        return
    if len(known) == 1:
        yield f"{where}: {known[0].method} has RM {estimate_text(known[0].robustness)} under {kind} noises."
    else:
        yield f"{where}, {kind} noises: {_extremes(known, found.pairs, alpha)}"
    unranked = [row for row in rows if math.isnan(row.robustness.value)]
    if unranked:
        names = ", ".join(row.method for row in unranked)
        yield f"{where}: the robustness of {names} is undefined, as {_why_undefined(unranked)}."
    yield from (f"{where}: {text}" for text in _unequal_pairs(known))
    if found.stability is not None:
        yield f"{where}: {_stability_text(found.stability)}"
    if any(row.low_support for row in known):
        yield f"{where}: a set has fewer than 30 pairs or 10 images, so these numbers say little."


def ranked_kind(scores: Sequence[ScoreRow]) -> str:
    """Say which kind of noises methods are ranked on: photometric ones where there are any.

    Args:
        scores: Rows of one model.

    Returns:
        The kind.

    Example:
        >>> nothing = Estimate(math.nan, math.nan, math.nan)
        >>> rest = (None, None, *[nothing] * 5, *[0] * 5, 0.1, True)
        >>> ranked_kind([ScoreRow("gradcam", kind, *rest) for kind in ("attack", "photometric")])
        'photometric'
    """
    kinds = [row.kind for row in scores]
    return "photometric" if "photometric" in kinds else kinds[0]


def estimate_text(estimate: Estimate) -> str:
    """Write a number with its interval.

    Args:
        estimate: Any.

    Returns:
        Such as ``"0.512 (0.480 to 0.544)"``; "undefined" where it is.

    Example:
        >>> estimate_text(Estimate(0.5, 0.4, 0.6)), estimate_text(Estimate(math.nan, math.nan, math.nan))
        ('0.500 (0.400 to 0.600)', 'undefined')
    """
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _why_undefined(rows: Sequence[ScoreRow]) -> str:
    """Only scored pairs count: a prediction that changed while a map could not be ranked is in no set."""
    if all(row.same_count == row.changed_count == 0 for row in rows):
        return "no pair of maps could be scored"
    if all(row.changed_count == 0 for row in rows):
        return "no scored pair changed its class; higher severities help"
    if all(row.same_count == 0 for row in rows):
        return "no scored pair kept its class; lower severities help"
    return "a set of pairs is empty"


def _unequal_pairs(rows: Sequence[ScoreRow]) -> Iterator[str]:
    """Warn where methods could not be scored on different numbers of pairs, often the hardest ones."""
    lost = [row.degenerate_count / (row.same_count + row.changed_count + row.degenerate_count) for row in rows]
    # A handful of pairs among thousands moves nothing; the counts stand in the table.
    if max(lost) - min(lost) >= _WORTH_SAYING:
        most, least = lost.index(max(lost)), lost.index(min(lost))
        yield (
            f"{rows[most].method} could not be scored on {lost[most]:.2%} of its pairs, {rows[least].method} on "
            f"{lost[least]:.2%}: its score rests on other pairs, so look at the comparison of the two on common pairs."
        )


def _stability_text(stability: Stability) -> str:
    if stability.stable and not stability.tested:
        return "the ranking was not tested under other settings: the study has no readings."
    if stability.stable:
        count = len(stability.rows) - 1
        return f"the ranking is stable under {count} other {'setting' if count == 1 else 'settings'}."
    if math.isnan(stability.rows[0].tau):
        return "there is no ranking that other settings could be compared with."
    if stability.change == "chance":
        return f"the order changes only among methods that are not told apart: {_unstable(stability)}."
    return f"the ranking is not stable, because {_unstable(stability)}."


def _unstable(stability: Stability) -> str:
    changed = [row for row in stability.rows[1:] if not row.tau >= stability.least_tau]
    undefined = [row.label for row in changed if math.isnan(row.tau)]
    known = [f"{row.label} (tau {row.tau:.2f})" for row in changed if not math.isnan(row.tau)]
    parts = [f"the order of methods changes under {', '.join(known)}"] if known else []
    if undefined:
        parts.append(f"it is undefined under {', '.join(undefined)}")
    return " and ".join(parts)


def _extremes(known: Sequence[ScoreRow], pairs: Sequence[PairRow], alpha: float) -> str:
    different = {
        frozenset((row.first, row.second)) for row in pairs if row.measure == "robustness" and row.p_adjusted < alpha
    }

    def with_equals(one: ScoreRow) -> list[ScoreRow]:
        return [row for row in known if frozenset((row.method, one.method)) not in different]

    best, worst = with_equals(known[0]), with_equals(known[-1])
    if len(best) == len(known):
        return f"no method is told apart from the first, {_named(known[0])}."
    if known[-1] in best:
        return f"{_named(known[0])}, comes first and {_named(known[-1])}, last, but these two are not told apart."
    return f"most robust {_group(best)}; least robust {_group(worst[::-1])}."


def _group(rows: Sequence[ScoreRow]) -> str:
    first = _named(rows[0])
    others = [row.method for row in rows[1:]]
    return f"{first}, not told apart from {', '.join(others)}" if others else first


def _named(row: ScoreRow) -> str:
    return f"{row.method}, RM {estimate_text(row.robustness)}"
