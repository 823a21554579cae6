"""One number a curve of removal: areas, AOPC, and the share of the change that the removal itself brings."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_camrobust.critique.curves import RemovalCurves
from lightning_camrobust.errors import ArgumentError

# What `removal_scores` returns, and whether a larger value speaks for the map; an artefact speaks for no map.
BETTER = {"deletion": "lower", "insertion": "higher", "aopc": "higher", "symmetric": "higher", "fidelity": "higher"}


class Interval(NamedTuple):
    """A mean over images with its confidence interval."""

    mean: float
    low: float
    high: float


def removal_scores(curves: RemovalCurves) -> dict[str, Tensor]:
    """Score each image's curves.

    Args:
        curves: From :func:`~lightning_camrobust.critique.curves.removal_curves`.

    Returns:
        ``(b,)`` float64 under each name: ``deletion`` and ``insertion``, areas under the curves; ``aopc`` of MoRF;
        ``symmetric``, the area between LeRF and MoRF; ``fidelity`` and ``artefact``, means over the steps.

    Example:
        >>> curve, share = torch.tensor([[1.0, 0.0, 0.0]]).double(), torch.tensor([0.0, 0.5, 1.0]).double()
        >>> scores = removal_scores(RemovalCurves(share, morf=curve, lerf=1 - curve, insertion=curve))
        >>> scores["deletion"].item(), scores["insertion"].item()
        (0.25, 0.25)
    """
    lerf, morf = area_under_curve(curves.lerf, curves.share), area_under_curve(curves.morf, curves.share)
    return {
        "deletion": morf,
        "insertion": area_under_curve(curves.insertion, curves.share),
        "aopc": aopc(curves.morf),
        "symmetric": lerf - morf,
        "fidelity": fidelity(curves).mean(dim=1),
        "artefact": artefact(curves).mean(dim=1),
    }


def area_under_curve(curve: Tensor, share: Tensor) -> Tensor:
    """Integrate curves by the trapezoid rule.

    Args:
        curve: ``(b, steps + 1)``.
        share: ``(steps + 1,)``, from 0 to 1.

    Returns:
        ``(b,)``, in the unit of the curve.

    Example:
        >>> area_under_curve(torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.5000])
    """
    return torch.trapezoid(curve, share.to(curve), dim=1)


def aopc(curve: Tensor) -> Tensor:
    """Area over the perturbation curve: ``1 / (L + 1) * sum over k = 0..L of (f(x0) - f(xk))``.

    Args:
        curve: ``(b, L + 1)``, f(x0) first.

    Returns:
        ``(b,)``, in the unit of the curve.

    Source:
        Samek et al. 2017 (arXiv 1509.06321), equation 12.

    Example:
        >>> aopc(torch.tensor([[1.0, 0.5, 0.0]]))
        tensor([0.5000])
    """
    return (curve[:, :1] - curve).mean(dim=1)


def artefact(curves: RemovalCurves) -> Tensor:
    """Estimate what the removal itself does to the score: ``f(x) - LIF(q)``, LIF being the LeRF curve.

    Pixels that carry no importance should change nothing when they go; what changes is put down to the baseline.

    Args:
        curves: From :func:`~lightning_camrobust.critique.curves.removal_curves`.

    Returns:
        ``(b, steps + 1)`` float64. Together with :func:`fidelity` it sums to ``f(x) - MIF(q)``.

    Source:
        After the abstract of Brocki and Chung 2022 (arXiv 2203.02928); the estimator is our reading of it.

    Example:
        >>> share = torch.tensor([0.0, 1.0])
        >>> morf, lerf = torch.tensor([[1.0, 0.25]]), torch.tensor([[1.0, 0.75]])
        >>> artefact(RemovalCurves(share, morf, lerf, morf))
        tensor([[0.0000, 0.2500]])
    """
    return curves.morf[:, :1] - curves.lerf


def fidelity(curves: RemovalCurves) -> Tensor:
    """Estimate what the order of a map is worth beyond the artefact: ``LIF(q) - MIF(q)``.

    Args:
        curves: From :func:`~lightning_camrobust.critique.curves.removal_curves`.

    Returns:
        ``(b, steps + 1)`` float64; around 0 for a map in random order.

    Source:
        After the abstract of Brocki and Chung 2022 (arXiv 2203.02928); the estimator is our reading of it.

    Example:
        >>> share = torch.tensor([0.0, 1.0])
        >>> morf, lerf = torch.tensor([[1.0, 0.25]]), torch.tensor([[1.0, 0.75]])
        >>> fidelity(RemovalCurves(share, morf, lerf, morf))
        tensor([[0.0000, 0.5000]])
    """
    return curves.lerf - curves.morf


def bootstrap_interval(values: Tensor, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Estimate how well a mean over images is known, by drawing images with replacement (percentile method).

    Args:
        values: One value an image, ``(b,)``; NaN is left out.
        confidence: Strictly between 0 and 1.
        resamples: How often the images are drawn.
        seed: Of a generator of its own.

    Returns:
        Mean, low and high end; all NaN if no image has a value.

    Raises:
        ArgumentError: If an argument is out of range.

    Example:
        >>> bootstrap_interval(torch.tensor([1.0, 1.0, 1.0]))
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    if values.dim() != 1 or not 0 < confidence < 1 or resamples < 1:
        raise ArgumentError(
            "bootstrap_interval: `values` must be (b,), `confidence` strictly between 0 and 1 and `resamples` at "
            f"least 1, got {tuple(values.shape)}, {confidence!r} and {resamples!r}."
        )
    known: np.ndarray[Any, np.dtype[np.float64]] = values[~values.isnan()].double().cpu().numpy()
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    # How often each image is drawn, instead of which: memory does not grow with the square of the images.
    times = generator.multinomial(len(known), np.full(len(known), 1 / len(known)), size=resamples)
    low, high = np.quantile(times @ known / len(known), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(known.mean()), float(low), float(high))
