"""What the records say, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_camrobust.study.findings import ModelFindings, PairRow, RankTest, ScoreRow, Stability
from lightning_camrobust.study.outcomes import Kind
from lightning_camrobust.study.page.texts import counted, interval, joined, number, p_equals
from lightning_camrobust.study.wording import told_apart

KINDS: dict[Kind, str] = {
    "photometric": "Photometric noises",
    "geometric": "Geometric noises",
    "attack": "Attacks",
    "gradient": "Disturbed gradients",
}


@dataclass(frozen=True)
class ModelLine:
    """The short answer for one model.

    Attributes:
        best: Which method scores highest, how sure that is, and on what noises.
        ranking: Whether other settings keep the ranking.
        stable: The same as a flag; None if that was not asked.
        only_chance: Whether it is not stable, but only methods change places that are not told apart.
    """

    best: str
    ranking: str
    stable: bool | None
    only_chance: bool = False


def main_kind(model: ModelFindings) -> Kind | None:
    """Choose the noises that the headline is about: photometric ones, or the first that were measured."""
    measured = [row.kind for row in model.scores]
    return "photometric" if "photometric" in measured else next(iter(measured), None)


def pooled_rows(rows: Sequence[ScoreRow], kind: Kind | None) -> list[ScoreRow]:
    """Select the rows over all noises of a kind, the highest robustness first, undefined ones last."""
    pooled = [row for row in rows if row.kind == kind and row.perturbation is None and row.severity is None]
    return sorted(pooled, key=lambda row: -math.inf if math.isnan(row.robustness.value) else row.robustness.value)[::-1]


def model_line(model: ModelFindings) -> ModelLine:
    """Answer for one model: the best method, and whether the ranking is stable.

    Args:
        model: Findings.

    Returns:
        Sentences.
    """
    judged = model.stability
    stable = None if judged is None or (judged.stable and not judged.tested) else judged.stable
    only_chance = judged is not None and judged.change == "chance"
    return ModelLine(_best(model), _ranking(judged), stable, only_chance)


def friedman_words(test: RankTest) -> str:
    """Say what Friedman's test and Kendall's W found.

    Args:
        test: Over methods.

    Returns:
        Sentences.
    """
    blocks = counted(test.num_images, "image")
    if math.isnan(test.p_value):
        return f"Friedman's test is not defined for {test.measure} on {blocks}."
    found = "the methods do not rank alike" if test.p_value < test.alpha else "no difference between methods is shown"
    degrees = len(test.methods) - 1
    sentences = [
        f"On {blocks}, {found} by {test.measure} (Friedman's chi-squared({degrees}) = {number(test.statistic, 1)}, "
        f"{p_equals(test.p_value)}).",
        f"Images agree {_agreement(test.kendall_w)} on the order (Kendall's W = {number(test.kendall_w)}).",
    ]
    if not math.isnan(test.critical_difference):
        sentences.append(
            f"Mean ranks that are closer than {number(test.critical_difference)} are not told apart "
            f"(Nemenyi, alpha = {test.alpha:g})."
        )
    groups = [clique for clique in test.cliques if len(clique) > 1]
    if groups:
        sentences.append(f"Not told apart: {'; '.join(joined(group) for group in groups)}.")
    return " ".join(sentences)


def undefined_reason(row: ScoreRow) -> str:
    """Say why a score is undefined; nothing if it is defined.

    Args:
        row: Scores.

    Returns:
        A few words.
    """
    if not math.isnan(row.robustness.value):
        return ""
    if row.same_count + row.changed_count == 0:
        return "no pair could be scored" if row.degenerate_count else "no pair"
    return "no prediction changed" if row.changed_count == 0 else "every prediction changed"


def _best(model: ModelFindings) -> str:
    rows = pooled_rows(model.scores, main_kind(model))
    defined = [row for row in rows if not math.isnan(row.robustness.value)]
    if not rows:
        return "No score was measured."
    noises = KINDS[rows[0].kind].lower()
    if not defined:
        return f"No method has a robustness on {noises}: {joined(sorted({undefined_reason(row) for row in rows}))}."
    best = defined[0]
    value = f"RM = {number(best.robustness.value)} {interval(best.robustness)}".strip()
    alone = len(defined) == 1
    head = f"{best.method} is the only method with a robustness" if alone else f"{best.method} is highest"
    return f"{head} on {noises}, {value}{_doubts(model, best, defined)}."


def _doubts(model: ModelFindings, best: ScoreRow, defined: list[ScoreRow]) -> str:
    parts = []
    if best.low_support:
        same = f"{counted(best.same_count, 'same pair')} of {counted(best.same_images, 'image')}"
        changed = f"{counted(best.changed_count, 'changed pair')} of {counted(best.changed_images, 'image')}"
        parts.append(f"on low support ({same}, {changed})")
    equals = [row.method for row in defined[1:] if _not_told_apart(model.pairs, best.method, row.method)]
    parts += [f"not told apart from {joined(equals)}"] if equals else []
    return "".join(f", {part}" for part in parts)


def _not_told_apart(pairs: Sequence[PairRow], first: str, second: str) -> bool:
    for pair in pairs:
        if pair.measure == "robustness" and {pair.first, pair.second} == {first, second}:
            return not told_apart(pair)
    return False


def _ranking(stability: Stability | None) -> str:
    if stability is None:
        return "Whether the ranking is stable was not asked: that takes two methods and two settings."
    others = stability.rows[1:]
    if stability.stable and not stability.tested:
        return "The ranking was not tested under other settings: the study has no readings."
    if stability.stable:
        lowest = min((row.tau for row in others if not math.isnan(row.tau)), default=math.nan)
        return (
            f"The ranking is stable under {counted(len(others), 'other setting')}: "
            f"Kendall's tau is at least {number(lowest, 2)}."
        )
    if stability.change == "chance":
        return f"The order changes only among methods that are not told apart: {_because(stability.reasons)}"
    return f"The ranking is not stable, because {_because(stability.reasons)}"


def _because(reasons: Sequence[str]) -> str:
    if not reasons:
        return "a setting changes it."
    first = reasons[0].rstrip(".")
    more = len(reasons) - 1
    # A reason is a sentence, or starts with the label of its setting and a colon.
    first = first[0].lower() + first[1:] if first.startswith("With ") else f"with {first}"
    return f"{first}{f' (and {more} more, below)' if more else ''}."


def _agreement(kendall_w: float) -> str:
    """Put Kendall's W in words, by Cohen's rule of thumb."""
    if math.isnan(kendall_w):
        return "to an unknown degree"
    for limit, word in ((0.1, "hardly"), (0.3, "weakly"), (0.5, "moderately")):
        if kendall_w < limit:
            return word
    return "strongly"


def pair_words(pair: PairRow) -> str:
    """Say in one word how sure a comparison is.

    Args:
        pair: Two methods or two models.

    Returns:
        ``"differ"`` or ``"not told apart"``, by the corrected p-value at 5%; ``"undefined"`` without one.
    """
    if math.isnan(pair.p_adjusted):
        return "undefined"
    return "differ" if told_apart(pair) else "not told apart"
