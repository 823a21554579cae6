"""Whether a ranking of methods survives another way of measuring: tables of scores, and Kendall's tau of columns."""

from dataclasses import dataclass
from itertools import combinations

import torch
from scipy import stats
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

# Below this tau two ways of measuring do not rank the methods alike; our own choice.
STABLE_TAU = 0.8


# Scores closer than this, relative to the largest, are equal but for rounding.
_DUST = 1e-12


@dataclass(frozen=True)
class RankingTable:
    """Scores of several methods, measured in several ways.

    Attributes:
        metrics: What was measured.
        methods: What was judged, at least two.
        variants: The ways of measuring, at least two: baselines, step counts or seeds.
        scores: ``(metric, method, variant)`` float64.

    Raises:
        ArgumentError: If there are fewer than two methods or variants, or the shape does not fit.

    Example:
        >>> scores = torch.tensor([[[0.1, 0.9], [0.2, 0.8]]]).double()
        >>> table = RankingTable(("deletion",), ("gradcam", "eigencam"), ("black", "white"), scores)
        >>> table.stable, table.tau[0, 0, 1].item()
        (False, -1.0)
    """

    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    variants: tuple[str, ...]
    scores: Tensor

    def __post_init__(self) -> None:
        if len(self.methods) < 2 or len(self.variants) < 2:
            raise ArgumentError(
                "RankingTable: a ranking needs two methods or more, and two ways of measuring or more; "
                f"got methods {self.methods} and variants {self.variants}."
            )
        wanted = (len(self.metrics), len(self.methods), len(self.variants))
        if self.scores.shape != wanted:
            raise ArgumentError(f"RankingTable: `scores` must be {wanted}, got {tuple(self.scores.shape)}.")

    @property
    def spread(self) -> Tensor:
        """Largest minus smallest score of a method over the variants, ``(metric, method)`` float64."""
        return self.scores.amax(dim=2) - self.scores.amin(dim=2)

    @property
    def tau(self) -> Tensor:
        """Kendall's tau-b of the methods between two variants, ``(metric, variant, variant)``; NaN if all are equal."""
        columns = torch.stack([_ranks(each) for each in self.scores.cpu().mT.flatten(0, 1)])
        ranks = columns.view(len(self.metrics), len(self.variants), len(self.methods)).numpy()
        count = len(self.variants)
        taus = torch.ones(len(self.metrics), count, count, dtype=torch.float64)
        for metric in range(len(self.metrics)):
            for first, second in combinations(range(count), 2):
                value = stats.kendalltau(ranks[metric, first], ranks[metric, second]).statistic
                taus[metric, first, second] = taus[metric, second, first] = float(value)
        return taus

    @property
    def stable_metrics(self) -> dict[str, bool]:
        """Whether each metric ranks the methods alike in all variants: no tau below 0.8, none undefined."""
        # One pair of five methods turned round is a tau of 0.8, but for rounding. A comparison with NaN is false.
        flags = (self.tau >= STABLE_TAU - 1e-9).flatten(1).all(dim=1).tolist()
        return dict(zip(self.metrics, flags, strict=True))

    @property
    def stable(self) -> bool:
        """Whether all metrics rank the methods alike in all variants."""
        return all(self.stable_metrics.values())

    def __str__(self) -> str:
        return "\n\n".join(self._metric_text(index) for index in range(len(self.metrics)))

    def _metric_text(self, index: int) -> str:
        width = max(len(name) for name in (*self.methods, self.metrics[index]))
        columns = [max(len(name), 8) for name in (*self.variants, "spread")]
        titles = zip((*self.variants, "spread"), columns, strict=True)
        lines = ["  ".join([self.metrics[index].ljust(width), *(title.rjust(size) for title, size in titles)])]
        for name, row, spread in zip(self.methods, self.scores[index], self.spread[index], strict=True):
            values = zip((*row.tolist(), float(spread)), columns, strict=True)
            lines.append("  ".join([name.ljust(width), *(f"{value:{size}.4f}" for value, size in values)]))
        return "\n".join([*lines, self._verdict(index)])

    def _verdict(self, index: int) -> str:
        tau = self.tau[index]
        pairs = list(combinations(range(len(self.variants)), 2))
        # An undefined tau comes first: it is the worst that can be said of a pair.
        least = min(pairs, key=lambda pair: -2.0 if tau[pair].isnan() else float(tau[pair]))
        names = f"{self.variants[least[0]]} and {self.variants[least[1]]}"
        claim = "ranking stable" if self.stable_metrics[self.metrics[index]] else "ranking unstable"
        return f"{claim}: least Kendall tau {float(tau[least]):.2f}, between {names}"


def _ranks(scores: Tensor) -> Tensor:
    """Rank scores ``(method,)``; a score that is only dust above the one below it shares its rank."""
    if not bool(scores.isfinite().all()):
        return scores
    ordered, order = scores.sort()
    rises = ordered.diff() > _DUST * scores.abs().amax()
    ranks = torch.cat([rises.new_zeros(1), rises]).cumsum(0).to(scores.dtype)
    return torch.empty_like(scores).scatter_(0, order, ranks)
