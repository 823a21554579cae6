"""Score-CAM."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.pooling import TIE_TOLERANCE
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class ScoreCAM:
    """Channels weighted by what the network says of an image that shows through the channel alone.

    Each channel is upsampled to the image's size, scaled to [0, 1] and multiplied to the model input; a softmax over
    the channels turns the explained logits of these inputs into weights: ``ReLU(sum_c w_c A_c)``. The logit of a black
    baseline, which the paper subtracts, is the same for all channels, so the softmax does not see it.

    The product is taken in the model's own input units, as everywhere in the literature: where inputs are normalised,
    what is hidden has the mean colour, not black. A flat channel shows nothing at all, and is weighted by what the
    network says of that, as in pytorch-grad-cam.

    No gradient is needed, but one forward of the network for each channel of each image.

    Attributes:
        top_channels: Only that many channels of each image, those of the largest L2 norm; None takes all.
        chunk_images: Masked images that go through the network together, and are held in memory at a time.
        align_corners: How channels are upsampled: False as in the authors' code, True as in pytorch-grad-cam.

    Raises:
        ArgumentError: If a setting is below 1.

    Source:
        Wang et al. 2020 (CVPR workshops, arXiv 1910.01279), equations 4 to 6.

    Example:
        >>> ScoreCAM(top_channels=64)
        ScoreCAM(top_channels=64, chunk_images=32, align_corners=False)
    """

    top_channels: int | None = None
    chunk_images: int = 32
    align_corners: bool = False

    def __post_init__(self) -> None:
        for name in ("top_channels", "chunk_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(f"ScoreCAM: `{name}` must be 1 or more, got {value!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above; ``(b, d, h, w)`` for volumes."""
        channels = self._chosen_channels(trace.activation)
        weights = self._scores(trace, channels).to(channels.dtype).softmax(dim=1)
        return (weights.view(*weights.shape, *[1] * (channels.dim() - 2)) * channels).sum(dim=1).relu()

    def _chosen_channels(self, activation: Tensor) -> Tensor:
        if self.top_channels is None or self.top_channels >= activation.shape[1]:
            return activation
        chosen = activation.flatten(2).norm(dim=2).topk(self.top_channels, dim=1).indices
        return activation[torch.arange(len(activation), device=activation.device)[:, None], chosen]

    def _scores(self, trace: Trace, channels: Tensor) -> Tensor:
        """Return the explained logit for each image behind each of its channels, ``(b, m)``."""
        count = channels.shape[1]
        owner = torch.arange(len(channels), device=channels.device).repeat_interleave(count)
        chunks = (torch.split(each, self.chunk_images) for each in (owner, channels.flatten(0, 1)))
        scores = [self._logits(trace, *chunk) for chunk in zip(*chunks, strict=True)]
        return torch.cat(scores).view(-1, count)

    def _logits(self, trace: Trace, owners: Tensor, channels: Tensor) -> Tensor:
        images = trace.images[owners]
        masks = self._masks(channels, size=images.shape[2:])
        logits = trace.forward((images * masks).to(images.dtype))
        return logits.gather(1, trace.classes[owners, None])[:, 0]

    def _masks(self, channels: Tensor, *, size: torch.Size) -> Tensor:
        mode = "bilinear" if channels.dim() == 3 else "trilinear"
        large = interpolate(channels[:, None], size=size, mode=mode, align_corners=self.align_corners)
        cells = tuple(range(1, large.dim()))
        lowest = large.amin(dim=cells, keepdim=True)
        span = large.amax(dim=cells, keepdim=True) - lowest
        # Asked before upsampling, which leaves float dust on a flat channel.
        low, high = channels.flatten(1).aminmax(dim=1)
        flat = high - low <= TIE_TOLERANCE * torch.maximum(high, -low)
        return ((large - lowest) / span).masked_fill(flat.view_as(span) | (span == 0), 0)


EXAMPLES = (ScoreCAM(), ScoreCAM(top_channels=4, align_corners=True))
