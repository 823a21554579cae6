"""One sentence on how two models differ."""

from collections.abc import Iterator, Sequence

import numpy as np

from lightning_camrobust.study.findings import Estimate, PairRow
from lightning_camrobust.study.model_pair import ModelPair
from lightning_camrobust.study.outcomes import Outcomes
from lightning_camrobust.study.statistics.totals import consistency, flip_rate, responsiveness, robustness
from lightning_camrobust.study.wording import difference_text, leaves_zero_out
from lightning_camrobust.summary import LOW_SUPPORT

_NOISE = {
    "photometric": "photometric noise",
    "geometric": "geometric noise",
    "attack": "attacks",
    "gradient": "noise on the gradient",
}


def difference_verdict(pair: ModelPair, rows: Sequence[PairRow], *, kept: Estimate) -> str:
    """Write the verdict.

    Args:
        pair: The two models.
        rows: Cluster bootstrap of RM, C, R and the flip rate, in this order; then further tests.
        kept: Change of the similarity on the pairs that both models kept.

    Returns:
        What RM says, with interval and p; then whatever a reader must know to judge it: C and R that go in opposite
        directions, flip rates that differ, sets with few pairs, unequal chance floors, and what was left out.
    """
    clauses = [_headline(pair, rows), *_opposites(rows), *_flips(pair, rows[3], kept), *_support(pair), *_floors(pair)]
    return "; ".join(clauses) + f"; {_images(pair)}."


def _headline(pair: ModelPair, rows: Sequence[PairRow]) -> str:
    first, second = pair.names
    row, place = rows[0], f"under {_NOISE[pair.kind]} with {pair.method}"
    if np.isnan(row.difference.value):
        return (
            f"Undefined: the robustness of {second} and {first} cannot be compared {place}, because {_why(pair, rows)}"
        )
    if _all_equal(pair):
        return f"No difference at all between {second}'s and {first}'s explanations {place}: all scores are equal"
    before, after = (float(robustness(each.total())[0]) for each in pair.sums)
    scores = f"RM {after:.2f} against {before:.2f}, difference {difference_text(row.difference)}"
    if np.isnan(row.p_value):
        few = "rests on too few images for an interval"
        return f"Undecided: the robustness of {second}'s and {first}'s explanations {place} {few}: {scores}"
    tests = sum(not np.isnan(each.p_value) for each in rows)
    scores += f", p {_p(row.p_value)} ({_p(row.p_adjusted)} after Holm's correction over the {tests} tests made)"
    if leaves_zero_out(row.difference):
        word = "more" if row.difference.value > 0 else "less"
        return f"{second}'s explanations are {word} robust than {first}'s {place}: {scores}"
    both = f"the robustness of {second}'s and {first}'s explanations"
    return f"No difference beyond chance between {both} {place}: {scores}"


def _opposites(rows: Sequence[PairRow]) -> Iterator[str]:
    kept, changed = rows[1].difference, rows[2].difference
    if leaves_zero_out(kept) and leaves_zero_out(changed) and kept.value * changed.value < 0:
        verbs = ("rises", "falls") if kept.value > 0 else ("falls", "rises")
        yield (
            f"but consistency {verbs[0]}, {difference_text(kept)}, while responsiveness {verbs[1]}, "
            f"{difference_text(changed)}, and RM hides one behind the other"
        )


def _flips(pair: ModelPair, row: PairRow, kept: Estimate) -> Iterator[str]:
    if leaves_zero_out(row.difference):
        before, after = (float(flip_rate(each.total())[0]) for each in pair.sums)
        yield (
            f"the flip rate differs too ({after:.3f} against {before:.3f}), so the two scores rest on different pairs: "
            f"on those that both models keep the similarity changes by {difference_text(kept)}"
        )


def _support(pair: ModelPair) -> Iterator[str]:
    for name, sums in zip(pair.names, pair.sums, strict=True):
        total = sums.total()
        for count, what in ((total.same_count, "kept"), (total.changed_count, "changed")):
            if 0 < count[0] < LOW_SUPPORT:
                yield f"low support: {name} has only {int(count[0])} {what} pairs"


def _floors(pair: ModelPair) -> Iterator[str]:
    floors = [_floor(each) for each in (pair.first, pair.second)]
    if abs(floors[1] - floors[0]) >= 0.005:
        yield (
            f"unrelated maps would get RM {floors[1]:.3f} against {floors[0]:.3f}, so the two were scored on other "
            "segments or by another measure and are not directly comparable"
        )


def _images(pair: ModelPair) -> str:
    only_first, only_second, unscored = pair.images_left_out
    named = (
        (only_first, f"only in {pair.names[0]}"),
        (only_second, f"only in {pair.names[1]}"),
        (unscored, "without a scored pair in one of them"),
    )
    parts = [f"{count} {what}" for count, what in named if count]
    text = f"{len(pair.first.images)} images" + (f" (left out: {', '.join(parts)})" if parts else "")
    noises = [f"{count} only in {name}" for count, name in zip(pair.noises_left_out, pair.names, strict=True) if count]
    text += f", {len(pair.first.noises)} noises" + (f" (left out: {', '.join(noises)})" if noises else "")
    return text


def _why(pair: ModelPair, rows: Sequence[PairRow]) -> str:
    causes = []
    for name, sums in zip(pair.names, pair.sums, strict=True):
        total = sums.total()
        for score, what in ((consistency(total), "kept"), (responsiveness(total), "changed")):
            if np.isnan(score[0]):
                causes.append(f"none of the scored predictions of {name} {what} its class")
    halves = [f"; {row.measure} differs by {difference_text(row.difference)}" for row in rows[1:3] if row.p_value >= 0]
    return " and ".join(causes) + "".join(halves)


def _all_equal(pair: ModelPair) -> bool:
    equal = np.array_equal(pair.first.similarity, pair.second.similarity, equal_nan=True)
    return bool(equal and (pair.first.same == pair.second.same).all())


def _floor(outcomes: Outcomes) -> float:
    known = outcomes.chance[~np.isnan(outcomes.chance)]
    return float((known * (1 - known)).mean()) if known.size else np.nan


def _p(p_value: float) -> str:
    return "< 0.001" if p_value < 0.0005 else f"{p_value:.3f}"
