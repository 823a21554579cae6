"""The scores as torchmetrics, fed with ready maps from any CAM library."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_camrobust.compare.rbo import RankBiasedOverlap, Ties
from lightning_camrobust.comparison import compare_maps
from lightning_camrobust.stability import StabilitySums, Undefined, check_undefined, sum_up

_SUMS = ("same_similarity", "same_count", "changed_dissimilarity", "changed_count", "degenerate_count")
_TIES = ("b", "a", "w", "stable")


class _CAMStability(Metric):
    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    same_similarity: Tensor
    same_count: Tensor
    changed_dissimilarity: Tensor
    changed_count: Tensor
    degenerate_count: Tensor

    def __init__(self, *, p: float = 0.2, ties: Ties = "b", undefined: Undefined = "nan", **kwargs: Any) -> None:
        """Set the metric up.

        Args:
            p: Patience of the rank-biased overlap, in (0, 1).
            ties: Its tie rule, ``"b"``, ``"a"``, ``"w"`` or ``"stable"``.
            undefined: ``"nan"`` or ``"vacuous"``, the rule for empty sets.
            kwargs: Arguments of :class:`torchmetrics.Metric`, such as ``dist_sync_fn``.

        Raises:
            ArgumentError: If a setting is wrong.
        """
        super().__init__(**kwargs)
        self._similarity = RankBiasedOverlap(p=p, ties=ties)
        self.p, self.ties = p, ties
        self.undefined: Undefined = undefined
        check_undefined(undefined)
        # MetricCollection merges metrics whose states look alike after one update. Metrics with other settings may look
        # alike by chance (identical maps), so the settings are part of the state; the first one, since torchmetrics
        # before 1.7 looks no further.
        settings = torch.tensor([p, _TIES.index(ties)], dtype=torch.float64)
        self.add_state("settings", default=settings, dist_reduce_fx="max")
        for name in _SUMS:
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, clean_maps: Tensor, noisy_maps: Tensor, clean_classes: Tensor, noisy_classes: Tensor, segments: Tensor
    ) -> None:
        """Add a batch of pairs.

        Args:
            clean_maps: Maps of the clean images, ``(b, h, w)`` float, any scale.
            noisy_maps: Maps of the noisy images, same shape.
            clean_classes: Predicted class of the clean images, ``(b,)`` integers.
            noisy_classes: Predicted class of the noisy images, ``(b,)`` integers.
            segments: Labels of the clean images, ``(b, H, W)`` integers; negative labels are ignored.

        Raises:
            ArgumentError: If shapes or types do not fit.
        """
        sums = sum_up(
            compare_maps(clean_maps, noisy_maps, clean_classes, noisy_classes, segments, similarity=self._similarity)
        )
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(sums, name))

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several over steps, between 0 and 1.

        Args:
            val: What :meth:`compute` or :meth:`forward` returned, once or several times; None computes it.
            ax: Matplotlib axes to draw on.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)

    @property
    def sums(self) -> StabilitySums:
        """The sums so far: support counts |S| and |D|, and the pairs left out as degenerate."""
        return StabilitySums(*(getattr(self, name) for name in _SUMS))

    def _warned(self, value: Tensor, *needed: str) -> Tensor:
        if bool(value.isnan()):
            counts = ", ".join(f"{name}={int(getattr(self, name))}" for name in _SUMS if name.endswith("count"))
            missing = " and ".join(needed) if len(needed) == 1 else "both, " + " and ".join(needed)
            warnings.warn(
                f"{type(self).__name__} is undefined and returns NaN: it needs {missing}; so far {counts}. "
                "Add images or stronger noise, or pass undefined='vacuous' to let an empty set count as 1.",
                UserWarning,
                stacklevel=3,
            )
        return value


_KEPT = "pairs whose prediction survived (same_count)"
_CHANGED = "pairs whose prediction changed (changed_count)"


class CAMRobustness(_CAMStability):
    """Consistency times responsiveness of class activation maps under noise, in [0, 1]; higher is better.

    As input to ``update``: clean maps and noisy maps ``(b, h, w)``, the classes predicted on clean and noisy images
    ``(b,)``, and segment labels of the clean images ``(b, H, W)``. As output of ``compute``: a scalar, NaN with one
    warning if no prediction survived or none changed (``undefined="vacuous"`` lets the empty set count as 1).
    Pairs with a flat, all-zero or NaN map are counted in ``degenerate_count`` and enter no set.

    Source:
        Sarkar et al. 2025 (arXiv 2508.18154).

    Example:
        >>> segments = torch.tensor([[[0, 0], [1, 1]]]).repeat(2, 1, 1)
        >>> top, bottom = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> metric = CAMRobustness()
        >>> clean, noisy = torch.stack([top, top]), torch.stack([top, bottom])
        >>> metric.update(clean, noisy, torch.tensor([0, 0]), torch.tensor([0, 1]), segments)
        >>> metric.compute()
        tensor(0.8000, dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the score, scalar float64."""
        return self._warned(self.sums.robustness(self.undefined), _KEPT, _CHANGED)


class CAMConsistency(_CAMStability):
    """Mean rank-biased overlap over the pairs whose prediction survived the noise, in [0, 1]; higher is better.

    Input, output and rules as in :class:`CAMRobustness`; in a ``MetricCollection`` they share one state.

    Example:
        >>> metric = CAMConsistency()
        >>> maps, classes = torch.rand(1, 2, 2), torch.tensor([0])
        >>> metric.update(maps, maps, classes, classes, torch.tensor([[[0, 0], [1, 1]]]))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the score, scalar float64."""
        return self._warned(self.sums.consistency(self.undefined), _KEPT)


class CAMResponsiveness(_CAMStability):
    """Mean of one minus the rank-biased overlap over the pairs whose prediction changed, in [0, 1]; higher is better.

    Input, output and rules as in :class:`CAMRobustness`; in a ``MetricCollection`` they share one state.

    Example:
        >>> metric = CAMResponsiveness()
        >>> maps = torch.rand(1, 2, 2)
        >>> metric.update(maps, maps, torch.tensor([0]), torch.tensor([1]), torch.tensor([[[0, 0], [1, 1]]]))
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the score, scalar float64."""
        return self._warned(self.sums.responsiveness(self.undefined), _CHANGED)
