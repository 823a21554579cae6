"""Compare the maps of clean images with those of their noisy copies, in every way that was asked for."""

from typing import cast

import torch
from torch import Tensor

from lightning_camrobust.comparison import pair_up
from lightning_camrobust.looking import Look, Looker
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.reading import Reading
from lightning_camrobust.scoring import ScoredMaps
from lightning_camrobust.types import Comparison, MapSimilarity, Similarity


def compare_looks(
    before: Look, after: Look, plan: ProbePlan, looker: Looker, *, original: Look | None = None
) -> tuple[Comparison, dict[str, Tensor]]:
    """Compare one look at the clean images with one at their noisy copies.

    Args:
        before: One copy.
        after: One copy or more.
        plan: What is measured.
        looker: What looked.
        original: The same copies as ``after``, explained for the classes of the clean images; needed only for readings
            that ask for it.

    Returns:
        The comparison, fields ``(b, copies * methods)``; and for each further reading its values of the same shape.
    """
    images, copies, methods, _ = after.scored[0].scores.shape
    clean, noisy = (look.explained.decisions(multilabel=plan.multilabel) for look in (before, after))
    same = clean[:, None] == noisy.reshape(copies, images).T  # (b, copies)
    same = same[..., None].expand(images, copies, methods).flatten(1)

    def read(reading: Reading) -> Comparison:
        seen = original if reading.target == "original" and original is not None else after
        first, second = looker.scored(before, reading), looker.scored(seen, reading)
        values = _similarity(reading.similarity, before, seen, first, second)
        return pair_up(values, same_class=same, rankable=(first.rankable & second.rankable).flatten(1))

    return read(plan.reading), {label: read(reading).similarity for label, reading in plan.readings.items()}


def _similarity(
    member: Similarity | MapSimilarity, before: Look, after: Look, first: ScoredMaps, second: ScoredMaps
) -> Tensor:
    """Return ``(b, copies * methods)`` float64."""
    if getattr(member, "of_maps", False):
        pairs = zip(before.explained.maps.values(), after.explained.maps.values(), strict=True)
        of_maps = cast("MapSimilarity", member)
        return torch.stack([_of_maps(of_maps, clean, noisy) for clean, noisy in pairs], dim=2).flatten(1)
    clean, noisy = first.scores.expand_as(second.scores), second.scores
    present = second.present[:, None, None].expand(noisy.shape)
    rows = [each.reshape(-1, noisy.shape[-1]) for each in (clean, noisy, present)]
    values: Tensor = cast("Similarity", member)(rows[0], rows[1], present=rows[2])
    return values.reshape(len(noisy), -1)


def _of_maps(member: MapSimilarity, clean: Tensor, noisy: Tensor) -> Tensor:
    """Return ``(b, copies)`` for the maps of one method."""
    copies = len(noisy) // len(clean)
    values = member(clean.repeat(copies, *[1] * (clean.dim() - 1)), noisy)
    return values.reshape(copies, len(clean)).T
