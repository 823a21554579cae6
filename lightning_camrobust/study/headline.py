"""What several models have in common, in a sentence or two."""

import math
from collections.abc import Callable, Iterator, Sequence

from lightning_camrobust.study.findings import ModelFindings, ScoreRow
from lightning_camrobust.study.verdict import ranked_kind


def headline(models: Sequence[ModelFindings], *, alpha: float = 0.05) -> Iterator[str]:
    """Say which methods come first and last on several models, and whether that holds under other settings.

    Args:
        models: Two or more; with one there is nothing to sum up.
        alpha: Level at which two methods count as different, after Holm's correction.

    Returns:
        Sentences; none for one model, or where no model has two methods that can be ranked.
    """
    rankings = [(found, _ranked(found)) for found in models]
    ranked = [(found, rows) for found, rows in rankings if len(rows) > 1]
    if len(models) < 2 or not ranked:
        return
    names = _names(models)
    for word, place in (("Most", 0), ("Least", -1)):
        ends: dict[str, list[str]] = {}
        for found, rows in ranked:
            ends.setdefault(_with_equals(found, rows, rows[place], alpha), []).append(names(found))
        yield f"{word} robust: {'; '.join(f'{methods} on {_and(where)}' for methods, where in ends.items())}."
    judged = [found for found, _ in ranked if found.stability is not None and found.stability.tested]
    if judged:
        yield _stable_models(judged)


def _stable_models(judged: Sequence[ModelFindings]) -> str:
    stable = sum(bool(found.stability and found.stability.stable) for found in judged)
    chance = sum(bool(found.stability and found.stability.change == "chance") for found in judged)
    text = f"The ranking of methods is stable under other settings on {stable} of {len(judged)} models"
    return text + f"; on {chance} the order changes only among methods that are not told apart" * (chance > 0) + "."


def _ranked(found: ModelFindings) -> list[ScoreRow]:
    kind = ranked_kind(found.scores)
    rows = [row for row in found.scores if row.kind == kind and row.perturbation is None]
    known = [row for row in rows if not math.isnan(row.robustness.value)]
    return sorted(known, key=lambda row: -row.robustness.value)


def _with_equals(found: ModelFindings, rows: Sequence[ScoreRow], end: ScoreRow, alpha: float) -> str:
    different = {
        frozenset((row.first, row.second))
        for row in found.pairs
        if row.measure == "robustness" and row.p_adjusted < alpha
    }
    equals = [row.method for row in rows if row is not end and frozenset((row.method, end.method)) not in different]
    return f"{end.method} (not told apart from {_and(equals)})" if equals else end.method


def _names(models: Sequence[ModelFindings]) -> Callable[[ModelFindings], str]:
    unique = len({found.model for found in models}) == len(models)
    return lambda found: found.model if unique else f"{found.model} ({found.target_layer})"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
