"""Compare the maps of clean images with those of their noisy copies, by every similarity that was asked for."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lightning_camrobust.comparison import pair_up
from lightning_camrobust.explained import Explained
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.scoring import ScoredMaps
from lightning_camrobust.types import Comparison, MapSimilarity, Similarity


@dataclass(frozen=True)
class Look:
    """One or more copies of the same b images: what the network said and where it looked.

    Attributes:
        explained: Maps and logits, ``copies * b`` of each, all images of the first copy first.
        scored: The maps' scores.
    """

    explained: Explained
    scored: ScoredMaps


def compare_looks(before: Look, after: Look, plan: ProbePlan) -> tuple[Comparison, dict[str, Tensor]]:
    """Compare one look at the clean images with one at their noisy copies.

    Args:
        before: One copy.
        after: One copy or more.
        plan: What is measured.

    Returns:
        The comparison, fields ``(b, copies * methods)``; and for each further similarity its values of the same shape.
    """
    images, copies, methods, _ = after.scored.scores.shape
    clean, noisy = (look.explained.decisions(multilabel=plan.multilabel) for look in (before, after))
    same = clean[:, None] == noisy.reshape(copies, images).T  # (b, copies)
    rankable = (before.scored.rankable & after.scored.rankable).flatten(1)
    same = same[..., None].expand(images, copies, methods).flatten(1)
    others = {
        label: pair_up(_similarity(member, before, after), same_class=same, rankable=rankable).similarity
        for label, member in plan.similarities.items()
    }
    values = _similarity(plan.similarity, before, after)
    return pair_up(values, same_class=same, rankable=rankable), others


def _similarity(member: Similarity | MapSimilarity, before: Look, after: Look) -> Tensor:
    """Return ``(b, copies * methods)`` float64."""
    if getattr(member, "of_maps", False):
        pairs = zip(before.explained.maps.values(), after.explained.maps.values(), strict=True)
        of_maps = cast("MapSimilarity", member)
        return torch.stack([_of_maps(of_maps, clean, noisy) for clean, noisy in pairs], dim=2).flatten(1)
    clean, noisy = before.scored.scores.expand_as(after.scored.scores), after.scored.scores
    present = after.scored.present[:, None, None].expand(noisy.shape)
    rows = [each.reshape(-1, noisy.shape[-1]) for each in (clean, noisy, present)]
    values: Tensor = cast("Similarity", member)(rows[0], rows[1], present=rows[2])
    return values.reshape(len(noisy), -1)


def _of_maps(member: MapSimilarity, clean: Tensor, noisy: Tensor) -> Tensor:
    """Return ``(b, copies)`` for the maps of one method."""
    copies = len(noisy) // len(clean)
    values = member(clean.repeat(copies, *[1] * (clean.dim() - 1)), noisy)
    return values.reshape(copies, len(clean)).T
