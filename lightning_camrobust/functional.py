"""The scores as plain functions of ready maps: stateless twins of the metrics."""

from torch import Tensor

from lightning_camrobust.compare.rbo import RankBiasedOverlap, Ties, rank_biased_overlap
from lightning_camrobust.comparison import compare_maps
from lightning_camrobust.stability import StabilitySums, Undefined, sum_up

__all__ = ["cam_consistency", "cam_responsiveness", "cam_robustness", "rank_biased_overlap"]


def cam_robustness(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    p: float = 0.2,
    ties: Ties = "b",
    undefined: Undefined = "nan",
) -> Tensor:
    """Consistency times responsiveness.

    Pairs with a flat, all-zero or NaN map are left out, as no ranking follows from it.

    Args:
        clean_maps: Maps of the clean images, ``(b, h, w)`` float, any scale.
        noisy_maps: Maps of the noisy images, same shape.
        clean_classes: Predicted class of the clean images, ``(b,)`` integers.
        noisy_classes: Predicted class of the noisy images, ``(b,)`` integers.
        segments: Labels of the clean images, ``(b, H, W)`` integers; negative labels are ignored.
        p: Patience of the rank-biased overlap, in (0, 1).
        ties: Its tie rule, ``"b"``, ``"a"``, ``"w"`` or ``"stable"``.
        undefined: ``"nan"``: NaN unless some predictions survived and some changed; ``"vacuous"``: an empty set counts
            as 1 (still NaN if no pair at all could be scored).

    Returns:
        Scalar float64 in [0, 1]. Unrelated maps score ``b (1 - b)`` with chance level b, at most 0.25.

    Raises:
        ArgumentError: If shapes, types or settings are wrong.

    Source:
        Sarkar et al. 2025 (arXiv 2508.18154); see docs/reading-the-numbers.md for what is known and what is inferred.

    Example:
        >>> import torch
        >>> segments = torch.tensor([[[0, 0], [1, 1]]]).repeat(2, 1, 1)
        >>> top, bottom = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> clean, noisy = torch.stack([top, top]), torch.stack([top, bottom])
        >>> cam_robustness(clean, noisy, torch.tensor([0, 0]), torch.tensor([0, 1]), segments)  # 1 * (1 - 0.2)
        tensor(0.8000, dtype=torch.float64)
    """
    sums = _sums(clean_maps, noisy_maps, clean_classes, noisy_classes, segments, p=p, ties=ties)
    return sums.robustness(undefined)


def cam_consistency(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    p: float = 0.2,
    ties: Ties = "b",
    undefined: Undefined = "nan",
) -> Tensor:
    """Mean rank-biased overlap over the pairs whose predicted class survived the noise.

    Arguments, errors and source as in :func:`cam_robustness`.

    Returns:
        Scalar float64 in [0, 1], 1 = the segments keep their order.

    Example:
        >>> import torch
        >>> segments = torch.tensor([[[0, 0], [1, 1]]])
        >>> maps, classes = torch.rand(1, 2, 2), torch.tensor([0])
        >>> cam_consistency(maps, maps, classes, classes, segments)
        tensor(1., dtype=torch.float64)
    """
    sums = _sums(clean_maps, noisy_maps, clean_classes, noisy_classes, segments, p=p, ties=ties)
    return sums.consistency(undefined)


def cam_responsiveness(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    p: float = 0.2,
    ties: Ties = "b",
    undefined: Undefined = "nan",
) -> Tensor:
    """Mean of one minus the rank-biased overlap over the pairs whose predicted class changed.

    Arguments, errors and source as in :func:`cam_robustness`.

    Returns:
        Scalar float64 in [0, 1], 0 = the map did not move although the prediction did.

    Example:
        >>> import torch
        >>> segments = torch.tensor([[[0, 0], [1, 1]]])
        >>> maps = torch.rand(1, 2, 2)
        >>> cam_responsiveness(maps, maps, torch.tensor([0]), torch.tensor([1]), segments)
        tensor(0., dtype=torch.float64)
    """
    sums = _sums(clean_maps, noisy_maps, clean_classes, noisy_classes, segments, p=p, ties=ties)
    return sums.responsiveness(undefined)


def _sums(
    clean_maps: Tensor,
    noisy_maps: Tensor,
    clean_classes: Tensor,
    noisy_classes: Tensor,
    segments: Tensor,
    *,
    p: float,
    ties: Ties,
) -> StabilitySums:
    return sum_up(
        compare_maps(
            clean_maps, noisy_maps, clean_classes, noisy_classes, segments, similarity=RankBiasedOverlap(p=p, ties=ties)
        )
    )
