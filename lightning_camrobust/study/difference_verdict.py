"""One sentence on how two models differ."""

from collections.abc import Iterator, Sequence

import numpy as np

from lightning_camrobust.study.findings import LOW_SUPPORT_IMAGES, Estimate, PairRow
from lightning_camrobust.study.model_pair import ModelPair
from lightning_camrobust.study.paired import unchecked_pictures
from lightning_camrobust.study.statistics.support import chance_floors
from lightning_camrobust.study.statistics.totals import consistency, flip_rate, responsiveness, robustness
from lightning_camrobust.study.wording import difference_text, leaves_zero_out, told_apart
from lightning_camrobust.summary import LOW_SUPPORT

_NOISE = {
    "photometric": "photometric noise",
    "geometric": "geometric noise",
    "attack": "attacks",
    "gradient": "noise on the gradient",
}


def difference_verdict(pair: ModelPair, rows: Sequence[PairRow], *, kept: Estimate, num_pairs: int = 1) -> str:
    """Write the verdict.

    Args:
        pair: The two models.
        rows: Cluster bootstrap of RM, C, R and the flip rate, in this order; then further tests.
        kept: Change of the similarity on the pairs that both models kept.
        num_pairs: Pairs of models whose RM was tested along with this one; Holm's correction is over these.

    Returns:
        What RM says, with interval and p; then whatever a reader must know to judge it: C and R that go in opposite
        directions, flip rates that differ, predictions that change under different noises, pairs that both models keep
        and that do not say what RM says, small sets, unequal chance floors, pictures that may not be the same, and what
        was left out. A difference is one if its corrected p-value is below 5%.
    """
    clauses = [
        _headline(pair, rows, num_pairs),
        *_opposites(rows),
        *_flips(pair, rows[3]),
        *_common_pairs(rows, kept),
        *_support(pair),
        *_floors(pair),
        *_pictures(pair),
    ]
    return "; ".join(clauses) + f"; {_images(pair)}."


def _headline(pair: ModelPair, rows: Sequence[PairRow], num_pairs: int) -> str:
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
    scores += f", p {_p(row.p_value)}"
    if num_pairs > 1:
        scores += f" ({_p(row.p_adjusted)} after Holm's correction over {num_pairs} pairs of models)"
    if told_apart(row):
        word = "more" if row.difference.value > 0 else "less"
        return f"{second}'s explanations are {word} robust than {first}'s {place}: {scores}"
    both = f"the robustness of {second}'s and {first}'s explanations"
    return f"No difference beyond chance between {both} {place}: {scores}"


def _opposites(rows: Sequence[PairRow]) -> Iterator[str]:
    kept, changed = rows[1].difference, rows[2].difference
    if told_apart(rows[1]) and told_apart(rows[2]) and kept.value * changed.value < 0:
        verbs = ("rises", "falls") if kept.value > 0 else ("falls", "rises")
        yield (
            f"but consistency {verbs[0]}, {difference_text(kept)}, while responsiveness {verbs[1]}, "
            f"{difference_text(changed)}, and RM hides one behind the other"
        )


def _flips(pair: ModelPair, row: PairRow) -> Iterator[str]:
    if told_apart(row):
        before, after = (float(flip_rate(each.total())[0]) for each in pair.sums)
        yield f"the flip rate differs too ({after:.3f} against {before:.3f})"
    apart = _apart(pair)
    if apart > 0:
        yield (
            f"on {apart:.1%} of the pairs only one of the models changes its prediction, so the two scores rest on "
            "different pairs"
        )


def _apart(pair: ModelPair) -> float:
    """Return the share of the pairs scored by both whose prediction survives in one model only; 0 without a pair."""
    both = ~np.isnan(pair.first.similarity[:, 0]) & ~np.isnan(pair.second.similarity[:, 0])
    return float((pair.first.same != pair.second.same)[both].mean()) if both.any() else 0.0


def _common_pairs(rows: Sequence[PairRow], kept: Estimate) -> Iterator[str]:
    """Tell the change where the same pairs count for both, if flip rates differ or RM says something else."""
    headline = np.sign(rows[0].difference.value) if told_apart(rows[0]) else 0.0
    common = np.sign(kept.value) if leaves_zero_out(kept) else 0.0
    if np.isnan(kept.value):
        if headline:
            yield "no scored pair is kept by both models, so nothing tells what RM would be on the same pairs"
    elif headline != common or told_apart(rows[3]):
        text = f"on those that both models keep the similarity changes by {difference_text(kept)}"
        unlike = "speaks against it" if common else "does not show it"
        yield f"{text}, which {unlike}" if headline and headline != common else text


def _support(pair: ModelPair) -> Iterator[str]:
    for name, sums in zip(pair.names, pair.sums, strict=True):
        for each, what in ((sums.same_count[:, 0], "kept"), (sums.changed_count[:, 0], "changed")):
            count, images = int(each.sum()), int((each > 0).sum())
            if 0 < count < LOW_SUPPORT or 0 < images < LOW_SUPPORT_IMAGES:
                yield f"low support: {name} has only {count} {what} pairs of {images} images"


def _floors(pair: ModelPair) -> Iterator[str]:
    models = (pair.first, pair.second)
    unknown = [bool(np.isnan(each.chance).all()) for each in models]
    if sum(unknown) == 1:
        yield (
            f"the chance floor is known for {pair.names[int(unknown[0])]} only, so the two were scored by another "
            "measure and are not directly comparable"
        )
    before, after = (float(chance_floors(each.chance, sums)[0]) for each, sums in zip(models, pair.sums, strict=True))
    if abs(after - before) >= 0.005:
        why = (
            "as their predictions change on images with other numbers of segments"
            if np.array_equal(pair.first.chance, pair.second.chance, equal_nan=True)
            else "so the two were scored on other segments or by another measure and are not directly comparable"
        )
        yield f"random rankings would get RM {after:.3f} against {before:.3f}, {why}"


def _pictures(pair: ModelPair) -> Iterator[str]:
    if unchecked_pictures(pair.first, pair.second):
        yield (
            "that pictures of one name are the same for both could not be checked, as their studies hold other images, "
            "another order or other labels"
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


def _p(p_value: float) -> str:
    return "< 0.001" if p_value < 0.0005 else f"{p_value:.3f}"
