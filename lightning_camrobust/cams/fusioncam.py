"""Fusion-CAM: one gradient and one region method, fused by what the network says of the image behind each."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.masking import hidden_inputs
from lightning_camrobust.members import resolve_member
from lightning_camrobust.pooling import TIE_TOLERANCE
from lightning_camrobust.types import Baseline, CAMMethod, Trace

# What the authors' code adds to a sum before it divides by it.
_PAPER_EPS = 1e-8


class Fused(NamedTuple):
    """What fusing gives, at the size of the image.

    Attributes:
        map: The fused map, ``(b, H, W)`` in [0, 1].
        agreement: How near the two weighted maps are in each pixel, ``(b, H, W)`` in [0, 1]; 1 is equal. It also falls
            where one of the methods has by far the larger weight, since the weights are part of what is compared.
    """

    map: Tensor
    agreement: Tensor

    @property
    def mean_agreement(self) -> Tensor:
        """Mean agreement of each image, ``(b,)``: a cheap warning that two families of CAM drift apart."""
        return self.agreement.mean(dim=(1, 2))


@dataclass(frozen=True)
class FusionCAM:
    """Gradient map G and region map S, weighted by the confidence they leave, fused more softly where they differ.

    All maps are upsampled bilinearly to the image's size and scaled to [0, 1] (``minmax``). ``gain(M)`` is the
    probability of the explained class for the image behind mask M, less that for the baseline.

    1. Values of G below its ``theta``-th percentile become 0.
    2. ``u, v`` = shares of gain(G) and gain(S); ``D = minmax(u G + v S)``.
    3. ``u', v'`` = shares of gain(D) and gain(S); ``P = u' D``, ``Q = v' S``.
    4. ``agreement = clip(1 - |P - Q|, 0, 1)``, map ``minmax(agreement max(P, Q) + (1 - agreement)(P + Q) / 2)``.

    The defaults mend three things in the authors' code, which :meth:`paper` keeps: a percentile over all pixels changes
    nothing where ReLU zeroed as many already; gains below 0 make shares outside [0, 1]; and step 3 there divides
    between a raw gain of D and the share v, which are not of one kind, so that two equal maps fuse to a third one.

    Where neither mask gains anything, both get half. A map that is flat at the layer's resolution is zero everywhere. A
    region map comes with its ReLU applied before upsampling; the authors apply it after, which makes a difference only
    where a layer's output has negative values.

    Attributes:
        gradient: A CAM method, by name or ready-made; its map is denoised.
        region: Another one.
        theta: Percentile of G below which it is zeroed, 0..100 (100 excluded).
        theta_on: Over which pixels of G the percentile is taken: ``"positive"`` ones or ``"all"``.
        clamp_gain: Whether a gain below 0 counts as 0.
        second_stage: What S enters step 3 with: its ``"gain"``, or its share v of step 2 (``"paper"``).
        baseline: What lies behind a mask: ``"zero"``, a tensor of zeros in the model's input units (the mean colour for
            normalised inputs), or a baseline by name or ready-made, which acts on pixels.
        seed: For baselines that draw random numbers.

    Raises:
        ArgumentError: If a setting is out of range or names nothing.

    Source:
        Dekdegue et al. 2026 (arXiv 2603.05386) and the code its authors released.

    Example:
        >>> FusionCAM(gradient="layercam", theta=20).gradient
        'layercam'
        >>> FusionCAM.paper().second_stage
        'paper'
    """

    gradient: str | CAMMethod = "gradcam"
    region: str | CAMMethod = "scorecam"
    theta: float = 10
    theta_on: Literal["positive", "all"] = "positive"
    clamp_gain: bool = True
    second_stage: Literal["gain", "paper"] = "gain"
    baseline: str | Baseline = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.theta < 100:
            raise ArgumentError(f"FusionCAM: `theta` must be a percentile from 0 to below 100, got {self.theta!r}.")
        for name, choices in (("theta_on", ("positive", "all")), ("second_stage", ("gain", "paper"))):
            if getattr(self, name) not in choices:
                raise ArgumentError(f"FusionCAM: `{name}` must be one of {choices}, got {getattr(self, name)!r}.")

    @classmethod
    def paper(cls) -> "FusionCAM":
        """Build the variant that does what the authors' code does."""
        return cls(theta=10, theta_on="all", clamp_gain=False, second_stage="paper", baseline="zero")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)`` in [0, 1]: the fused map, averaged over the area of each cell."""
        fused = self.fuse(trace).map
        return interpolate(fused[:, None], size=trace.activation.shape[2:], mode="area")[:, 0]

    def fuse(self, trace: Trace) -> Fused:
        """Fuse at the size of the image.

        Args:
            trace: One pass of the network over pictures.

        Returns:
            The fused map and the agreement of its two parts, ``(b, H, W)`` each.

        Raises:
            ArgumentError: If the trace is of volumes.
        """
        if trace.images.dim() != 4 or trace.activation.dim() != 4:
            raise ArgumentError(
                "CAM method FusionCAM explains pictures only, not volumes. Use 'gradcam' or 'scorecam'."
            )
        gradient = self._denoised(_full_size(resolve_member("cams", self.gradient)(trace), trace))
        region = _full_size(resolve_member("cams", self.region)(trace), trace)
        hidden = self._hidden(trace)
        nothing = _confidence(trace, hidden)
        gain, region_gain = (self._gain(trace, each, hidden, nothing) for each in (gradient, region))
        shares = self._shares(gain, region_gain)
        union = _minmax(_weigh(shares[0], gradient) + _weigh(shares[1], region))
        second = region_gain if self.second_stage == "gain" else shares[1]
        shares = self._shares(self._gain(trace, union, hidden, nothing), second)
        return _fuse_softly(_weigh(shares[0], union), _weigh(shares[1], region))

    def _denoised(self, maps: Tensor) -> Tensor:
        ordered = maps.flatten(1).sort(dim=1).values
        last = ordered.shape[1] - 1
        skipped = (ordered == 0).sum(dim=1, keepdim=True) * (self.theta_on == "positive")
        position = skipped + (last - skipped) * (self.theta / 100)
        below = position.floor()
        low, high = (ordered.gather(1, place.long().clamp(0, last)) for place in (below, below + 1))
        threshold = torch.lerp(low, high, (position - below).to(maps.dtype))
        return _minmax(maps.masked_fill(maps < threshold[..., None], 0))

    def _hidden(self, trace: Trace) -> Tensor:
        """Return what lies behind a mask, in the model's input units, ``(b, c, H, W)``."""
        everything = torch.ones_like(trace.images[:, :1], dtype=torch.bool)
        return hidden_inputs(trace, self.baseline, removed=everything, seed=self.seed)

    def _gain(self, trace: Trace, maps: Tensor, hidden: Tensor, nothing: Tensor) -> Tensor:
        behind = hidden + maps[:, None] * (trace.images - hidden)
        gain = _confidence(trace, behind.to(trace.images.dtype)) - nothing
        return gain.clamp_min(0) if self.clamp_gain else gain

    def _shares(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        total = first + second if self.clamp_gain else first + second + _PAPER_EPS
        first, second = (torch.where(total == 0, 0.5, each / total) for each in (first, second))
        return first, second


def _confidence(trace: Trace, inputs: Tensor) -> Tensor:
    """Return the probability of the explained class, ``(b,)`` float64."""
    return trace.forward(inputs).double().softmax(dim=1).gather(1, trace.classes[:, None])[:, 0]


def _weigh(share: Tensor, maps: Tensor) -> Tensor:
    return share.to(maps.dtype)[:, None, None] * maps


def _fuse_softly(first: Tensor, second: Tensor) -> Fused:
    agreement = (1 - (first - second).abs()).clamp(0, 1)
    mixed = agreement * torch.maximum(first, second) + (1 - agreement) * (first + second) / 2
    return Fused(_minmax(mixed), agreement)


def _full_size(maps: Tensor, trace: Trace) -> Tensor:
    """Upsample maps ``(b, h, w)`` to the image's size and scale them to [0, 1]."""
    large = interpolate(maps[:, None], size=trace.images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    low, high = maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))
    # Asked before upsampling, which leaves float dust on a flat map, and minmax would make it a picture.
    flat = high - low <= TIE_TOLERANCE * high
    return _minmax(large).masked_fill(flat[:, None, None], 0)


def _minmax(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1]; one without a range becomes zero."""
    raised = maps - maps.amin(dim=(1, 2), keepdim=True)
    highest = raised.amax(dim=(1, 2), keepdim=True)
    return raised / torch.where(highest == 0, 1, highest)


EXAMPLES = (FusionCAM(), FusionCAM.paper())
