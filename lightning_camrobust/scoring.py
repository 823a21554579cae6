"""Segment scores of all maps of a pass: every method, every copy of the images, at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.reading import Reduction
from lightning_camrobust.segmented import SegmentedBatch


@dataclass(frozen=True)
class ScoredMaps:
    """The rank scores of a pass that held one or more copies of the same b images.

    Attributes:
        scores: ``(b, copies, methods, s)`` float64.
        present: Segments that exist, ``(b, s)`` bool.
        rankable: Maps that can be ranked, ``(b, copies, methods)`` bool.
    """

    scores: Tensor
    present: Tensor
    rankable: Tensor


def score_maps(maps: Sequence[Tensor], segments: SegmentedBatch, *, reduction: Reduction = "mean") -> ScoredMaps:
    """Score the maps of all methods.

    Args:
        maps: For each method ``(copies * b, h, w)`` float, all images of the first copy first.
        segments: The segments of the b images.
        reduction: What stands for a segment.

    Returns:
        The scores.

    Example:
        >>> from lightning_camrobust.pixels import PixelSpace
        >>> from lightning_camrobust.randomness import image_keys
        >>> from lightning_camrobust.segment.grid import Grid
        >>> images = torch.rand(2, 3, 8, 8)
        >>> batch = SegmentedBatch(images, PixelSpace((0.0,), (1.0,)), Grid(rows=2, columns=2), image_keys(images))
        >>> score_maps([torch.rand(6, 4, 4), torch.rand(6, 2, 2)], batch).scores.shape
        torch.Size([2, 3, 2, 4])
    """
    by_size: dict[torch.Size, list[int]] = {}
    for index, each in enumerate(maps):
        by_size.setdefault(each.shape[1:], []).append(index)
    scores, rankable, present = [torch.empty(0)] * len(maps), [torch.empty(0)] * len(maps), torch.empty(0)
    for members in by_size.values():
        together = torch.stack([maps[index] for index in members])  # (m, copies * b, h, w)
        copies_first = together.reshape(len(members), -1, len(segments), *together.shape[2:])
        found, present, ranked = segments.score(copies_first.permute(2, 1, 0, 3, 4), reduction=reduction)
        for position, index in enumerate(members):
            scores[index], rankable[index] = found[:, :, position], ranked[:, :, position]
    return ScoredMaps(torch.stack(scores, dim=2), present, torch.stack(rankable, dim=2))
