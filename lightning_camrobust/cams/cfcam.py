"""CF-CAM: channels cleaned of outliers by clustering, and weighted cluster by cluster."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import Trace

# What the authors' script says: the least radius, and the two widths of its filter.
_LEAST_EPS = 1e-5
_CODE_SIGMA_CELLS = 5.0
_CODE_SIGMA_GRADIENT = 0.1


@dataclass(frozen=True)
class CFCAM:
    """Strong channels by their own gradient, other channels by the filtered mean gradient of their cluster.

    Channels with an L2 norm at or above a percentile are important and get their Grad-CAM weight. The others are
    clustered by DBSCAN on their activations; each member of a cluster gets the mean of the cluster's filtered mean
    gradient, and channels that DBSCAN calls noise are dropped. The map is ``ReLU(sum_c w_c A_c)``.

    Only the mean of a filtered gradient is used, so a filter does no more than weigh the cells near the border
    differently from those in the middle. The Gaussian here is renormalised at the border, so that a constant gradient
    keeps its mean.

    The preset ``paper_code=True`` does what the authors' script does, up to the upsampling and the division by the
    maximum, which belong to pictures. Its weights go through a softmax, and softmax of mean gradients (about 1e-3) is
    nearly uniform: that map is close to the plain mean of the kept channels and hardly depends on the class. (Maps of
    class y and y + 1 of a network with 128 channels correlate by 1.000, those of the default by -0.03 on average.) The
    script adds gradient noise after the weights were taken; accordingly the preset reads ``trace.clean_gradient``
    where there is one, and gradient noise cannot change it. Neither holds for the default.

    Attributes:
        norm_percentile: Percentile of the channels' L2 norms from which on a channel is important, 0..100.
        eps_percentile: Percentile of the distances between the other channels that is DBSCAN's radius, 0..100.
        min_fraction: Share of the other channels that makes a neighbourhood dense, 0..1; never fewer than 2 channels.
        filter: ``"gaussian"``, as in the paper's second version; ``"code"``, the script's: one kernel as large as the
            map, a Gaussian around its centre times a Gaussian of the gradient's distance from its mean, normalised,
            zero-padded.
        sigma: Standard deviation of the Gaussian filter, in cells; the paper's is not known. Unused by ``"code"``.
        weighting: ``"linear"`` takes weights as they are, ``"softmax"`` over the kept channels.
        paper_code: The authors' script: percentiles 75 and 25, fraction 0.05, filter ``"code"``, softmax. Takes no
            other setting.

    Raises:
        ArgumentError: If a setting is out of range, or ``paper_code`` comes with other settings.

    Source:
        He et al. 2025 (arXiv 2504.00060) and the script its authors released.

    Example:
        >>> CFCAM(sigma=2.0)
        CFCAM(norm_percentile=75, eps_percentile=25, min_fraction=0.05, filter='gaussian', sigma=2.0, \
weighting='linear', paper_code=False)
    """

    norm_percentile: float = 75
    eps_percentile: float = 25
    min_fraction: float = 0.05
    filter: Literal["gaussian", "code"] = "gaussian"
    sigma: float = 1.0
    weighting: Literal["linear", "softmax"] = "linear"
    paper_code: bool = False

    def __post_init__(self) -> None:
        for name, highest in (("norm_percentile", 100), ("eps_percentile", 100), ("min_fraction", 1)):
            if not 0 <= getattr(self, name) <= highest:
                raise ArgumentError(f"CFCAM: `{name}` must lie in 0..{highest}, got {getattr(self, name)!r}.")
        for name, choices in (("filter", ("gaussian", "code")), ("weighting", ("linear", "softmax"))):
            if getattr(self, name) not in choices:
                raise ArgumentError(f"CFCAM: `{name}` must be one of {choices}, got {getattr(self, name)!r}.")
        if not 0 < self.sigma < float("inf"):
            raise ArgumentError(f"CFCAM: `sigma` must be above 0, in cells, got {self.sigma!r}.")
        changed = [each.name for each in fields(self)[:-1] if getattr(self, each.name) != each.default]
        if self.paper_code and changed:
            raise ArgumentError(
                f"CFCAM: `paper_code=True` fixes every other setting, but {', '.join(changed)} came with it. Leave it "
                "out, or build a variant of the script with CFCAM(filter='code', weighting='softmax', ...)."
            )

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above; NaN where an image's activation or gradient is not finite."""
        clean = trace.clean_gradient if self.paper_code else None
        gradients = trace.gradient if clean is None else clean
        return torch.stack([self._map(*each) for each in zip(trace.activation, gradients, strict=True)])

    def _map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        # Which channels are near each other is decided by comparing numbers, so rounding must not.
        features, slopes = activation.double(), gradient.double()
        weights, kept = self._weights(features, slopes)
        if self.paper_code or self.weighting == "softmax":
            weights = weights.masked_fill(~kept, -torch.inf).softmax(dim=0)
        # Nothing, but NaN where something is not finite: comparisons with NaN would only drop the channel.
        trouble = 0 * (features.sum() + slopes.sum())
        return ((weights @ features.flatten(1)).relu() + trouble).view(activation.shape[1:]).to(activation.dtype)

    def _weights(self, features: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        norms = features.flatten(1).norm(dim=1)
        kept = norms >= torch.quantile(norms, self.norm_percentile / 100)
        weights = torch.where(kept, slopes.flatten(1).mean(dim=1), 0.0)
        rest = (~kept).nonzero()[:, 0]
        eps_share = self.eps_percentile / 100
        labels = _dbscan(features[rest].flatten(1), eps_share=eps_share, min_fraction=self.min_fraction)
        rest, labels = rest[labels >= 0], labels[labels >= 0]
        if len(rest):
            cluster = torch.unique(labels, return_inverse=True)[1]
            members = one_hot(cluster).to(slopes.dtype)
            means = torch.tensordot(members.T, slopes[rest], dims=1)
            means = means / members.sum(dim=0).view(-1, *[1] * (means.dim() - 1))
            weights[rest] = self._filtered_means(means)[cluster]
            # Not in place: the first weights remember which channels they were taken from.
            kept = kept.index_fill(0, rest, True)
        return weights, kept

    def _filtered_means(self, slopes: Tensor) -> Tensor:
        """Take the mean over the cells of filtered gradients ``(n, h, w)``, without filtering them."""
        if self.paper_code or self.filter == "code":
            return _coded_filter_means(slopes)
        for size in reversed(slopes.shape[1:]):
            slopes = slopes @ _gaussian(size, self.sigma, like=slopes).mean(dim=0)
        return slopes


def _dbscan(points: Tensor, *, eps_share: float, min_fraction: float) -> Tensor:
    """Label points ``(n, d)`` by the first core point of their cluster, ``(n,)`` int64; -1 is noise.

    A point within reach of several clusters joins the one whose first core point comes first, as in scikit-learn.
    """
    count = len(points)
    distances = torch.pdist(points)
    rows, columns = torch.triu_indices(count, count, 1, device=points.device)
    near = torch.eye(count, dtype=torch.bool, device=points.device)
    near[rows, columns] = distances <= _percentile_of_pairs(distances, eps_share).clamp_min(_LEAST_EPS)
    near = near | near.T
    core = near.sum(dim=1) >= max(2, int(count * min_fraction))
    # Points that are no core spread no label: theirs stays the largest.
    labels = torch.where(core, torch.arange(count, device=core.device), count)
    while count:
        # A label is a core point as well, whose own label may be smaller still: chains halve in every round.
        found = _smallest_label_near(near, labels)
        jumped = torch.where(core, found[found.clamp_max(count - 1)], count)
        if torch.equal(jumped, labels):
            return found.where(found < count, -1)
        labels = jumped
    return labels


def _percentile_of_pairs(distances: Tensor, share: float) -> Tensor:
    """Take a percentile of all distances off the diagonal of their matrix, which holds each of them twice."""
    if not len(distances):
        return distances.new_zeros(())
    last = 2 * len(distances) - 1
    below = min(int(share * last), last - 1)
    ordered = distances.sort().values
    low, high = ordered[below // 2], ordered[(below + 1) // 2]
    return torch.lerp(low, high, share * last - below)


def _smallest_label_near(near: Tensor, labels: Tensor) -> Tensor:
    return torch.where(near, labels, len(labels)).amin(dim=1)


def _gaussian(size: int, sigma: float, *, like: Tensor) -> Tensor:
    """Matrix ``(size, size)`` that filters one axis; each row adds up to 1."""
    steps = torch.arange(size, dtype=like.dtype, device=like.device)
    return (-((steps[:, None] - steps) ** 2) / (2 * sigma**2)).softmax(dim=1)


def _coded_filter_means(slopes: Tensor) -> Tensor:
    axes = tuple(range(1, slopes.dim()))
    from_centre, met = slopes.new_zeros(()), slopes
    for axis in axes:
        size = slopes.shape[axis]
        steps = torch.arange(size, dtype=slopes.dtype, device=slopes.device)
        from_centre = from_centre[..., None] + (steps - size / 2) ** 2
        # The mean of a convolution needs no more than the sum of all cells that each cell of the kernel meets.
        shift = steps - steps[:, None] + (size - 1) // 2
        meets = ((shift >= 0) & (shift < size)).to(slopes.dtype)
        met = (met.movedim(axis, -1) @ meets.T).movedim(-1, axis)
    from_mean = slopes - slopes.mean(dim=axes, keepdim=True)
    kernel = (-from_centre / (2 * _CODE_SIGMA_CELLS**2) - from_mean**2 / (2 * _CODE_SIGMA_GRADIENT**2)).exp()
    shares = kernel / (kernel.sum(dim=axes, keepdim=True) + 1e-6)
    return (shares * met).mean(dim=axes)


EXAMPLES = (CFCAM(), CFCAM(paper_code=True))
