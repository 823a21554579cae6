"""Slow and obvious versions of the formulas, written apart from the package and never imported by it."""

import itertools
import math

import numpy as np
from torch.nn.functional import interpolate


def tie_groups(scores):
    """Rank span (t, b) of each item, ranks from 1, largest score first."""
    spans = []
    for score in scores:
        top = 1 + sum(1 for other in scores if other > score)
        spans.append((top, top + sum(1 for other in scores if other == score) - 1))
    return spans


def contribution(span, depth, ties):
    top, bottom = span
    if depth < top:
        return 0.0
    if ties == "w" or depth >= bottom:
        return 1.0
    return (depth - top + 1) / (bottom - top + 1)


def agreement(first, second, depth, ties):
    ours = [contribution(span, depth, ties) for span in first]
    theirs = [contribution(span, depth, ties) for span in second]
    overlap = math.fsum(a * b for a, b in zip(ours, theirs, strict=True))
    if ties == "w":
        return 2 * overlap / (math.fsum(ours) + math.fsum(theirs))
    if ties == "b":
        return overlap / math.sqrt(math.fsum(a * a for a in ours) * math.fsum(b * b for b in theirs))
    return overlap / depth


def rbo(clean, noisy, p, ties):
    """Rank-biased overlap as the infinite sum it is defined by, cut where p^d is nothing."""
    if ties == "stable":
        clean, noisy = broken_by_position(clean), broken_by_position(noisy)
        ties = "a"
    first, second, length = tie_groups(clean), tie_groups(noisy), len(clean)
    terms = []
    for depth in range(1, length + int(math.log(1e-20) / math.log(p)) + 2):
        share = agreement(first, second, depth, ties) if depth < length else 1.0
        terms.append((1 - p) * p ** (depth - 1) * share)
    return math.fsum(terms)


def broken_by_position(scores):
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    ranks = [0.0] * len(scores)
    for rank, item in enumerate(order):
        ranks[item] = -float(rank)
    return ranks


def rbo_over_all_tie_breaks(clean, noisy, p):
    """Mean over every way of breaking every tie; only for a handful of items."""
    values = [rbo(first, second, p, "a") for first in all_tie_breaks(clean) for second in all_tie_breaks(noisy)]
    return math.fsum(values) / len(values)


def all_tie_breaks(scores):
    levels = sorted(set(scores), reverse=True)
    groups = [[item for item, score in enumerate(scores) if score == level] for level in levels]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        ranks = [0.0] * len(scores)
        for rank, item in enumerate(itertools.chain(*orders)):
            ranks[item] = -float(rank)
        yield ranks


def chance_level(length, p):
    return (1 - p**length) / (length * (1 - p))


def segment_means(maps, segments):
    """Upsample each map to the size of the picture, then take the mean of each region, one at a time."""
    large = interpolate(maps[:, None].double(), size=segments.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    rows = []
    for picture, labels in zip(large.numpy(), segments.numpy(), strict=True):
        rows.append(
            [
                picture[labels == label].mean() if (labels == label).any() else np.nan
                for label in range(segments.max() + 1)
            ]
        )
    return np.array(rows)


def stability(similarities, same, rankable):
    """Consistency, responsiveness and robustness from lists, NaN where a set is empty."""
    kept = [r for r, s, ok in zip(similarities, same, rankable, strict=True) if ok and s]
    changed = [1 - r for r, s, ok in zip(similarities, same, rankable, strict=True) if ok and not s]
    consistency = sum(kept) / len(kept) if kept else math.nan
    responsiveness = sum(changed) / len(changed) if changed else math.nan
    return consistency, responsiveness, consistency * responsiveness
