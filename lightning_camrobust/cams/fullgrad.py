"""FullGrad."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.logits import as_logits
from lightning_camrobust.types import Trace

_RESCALES = ("channel", "layer")
# pytorch-grad-cam's.
_EPSILON = 1e-7


@dataclass(frozen=True)
class FullGrad:
    """Input times its gradient, plus every bias of the network times the gradient of what it was added to.

    Each of these maps is made absolute, scaled to [0, 1], enlarged to the image and summed. Biases are those of 2-D
    convolutions, and those of 2-D batch norms with their running means folded in. The target layer has no say; only
    its resolution is used: the sum is averaged over the area of its cells.

    The network runs once more, with a graph from the image on, and is differentiated down to the image: as dear as a
    step of training.

    Attributes:
        rescale: What is scaled to [0, 1] at a time: a ``"channel"``, as in pytorch-grad-cam, or all channels of a
            ``"layer"``, so that faint ones stay faint.

    Raises:
        ArgumentError: If ``rescale`` is none of the two.

    Source:
        Srinivas and Fleuret 2019 (arXiv 1905.00780), equation 4.

    Example:
        >>> FullGrad()
        FullGrad(rescale='channel')
    """

    rescale: Literal["channel", "layer"] = "channel"

    def __post_init__(self) -> None:
        if self.rescale not in _RESCALES:
            raise ArgumentError(f"FullGrad: `rescale` must be one of {_RESCALES}, got {self.rescale!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above.

        Raises:
            ArgumentError: If volumes are explained.
            ModelError: If no gradient gets back to the image.
        """
        if trace.images.dim() != 4:
            raise ArgumentError("CAM method 'fullgrad' explains pictures only, not volumes. Use 'gradcam'.")
        parts = [part.to(trace.activation.dtype) for part in _full_gradients(trace)]
        total = torch.stack([self._saliency(part, tuple(trace.images.shape[2:])) for part in parts]).sum(dim=0)
        return interpolate(total[:, None], trace.activation.shape[2:], mode="area")[:, 0]

    def _saliency(self, part: Tensor, size: tuple[int, ...]) -> Tensor:
        part = part.abs()
        axes = (2, 3) if self.rescale == "channel" else (1, 2, 3)
        part = part - part.amin(dim=axes, keepdim=True)
        part = part / (part.amax(dim=axes, keepdim=True) + _EPSILON)
        # Enlarging is linear, so that the channels may be summed first.
        return interpolate(part.sum(dim=1, keepdim=True), size, mode="bilinear", align_corners=False)[:, 0]


def _full_gradients(trace: Trace) -> list[Tensor]:
    """List input times gradient, and bias times gradient for each run of each layer with a bias, ``(b, c, ., .)``."""
    inputs = trace.images.detach().clone().requires_grad_()
    with torch.enable_grad(), _outputs_with_bias(trace.model) as heard:
        with torch.autocast(*trace.autocast):
            logits = as_logits(trace.model(inputs), batch_size=len(inputs))
        # Checkpointed blocks run again in the backward, and are heard again.
        found = list(heard)
        score = logits.gather(1, trace.classes[:, None]).sum()
        if not score.requires_grad:
            raise ModelError(
                f"CAM method 'fullgrad': no gradient gets from the logits of {type(trace.model).__name__} back to the "
                "image. Part of it runs under `torch.no_grad()` or is detached. Use 'gradcam' on a layer behind it."
            )
        gradients = torch.autograd.grad(score, [inputs, *(output for output, _ in found)], allow_unused=True)
    factors = [inputs.detach(), *(bias[:, None, None] for _, bias in found)]
    return [factor * each for factor, each in zip(factors, gradients, strict=True) if each is not None]


@contextmanager
def _outputs_with_bias(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    found: list[tuple[Tensor, Tensor]] = []

    def keep(bias: Tensor, output: Tensor) -> Tensor | None:
        if output.dim() != 4 or not output.requires_grad:
            return None
        found.append((output, bias))
        # A copy goes on: an in-place ReLU would write into the output whose gradient is wanted.
        return output.clone()

    handles = []
    for name, module in model.named_modules():
        bias = _bias(module)
        if bias is None:
            continue
        behind = _activation_within(module, name)
        if behind is None:
            handles.append(module.register_forward_hook(lambda _module, _args, output, bias=bias: keep(bias, output)))
        else:
            handles.append(behind.register_forward_pre_hook(lambda _module, args, bias=bias: keep(bias, args[0])))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _activation_within(module: nn.Module, name: str) -> nn.Module | None:
    """Find the activation function inside a normalisation that goes on with one, as timm's do."""
    if not isinstance(module, _BatchNorm) or type(module).__module__.startswith("torch."):
        return None
    activation = getattr(module, "act", None)
    if not isinstance(activation, nn.Module):
        raise ModelError(
            f"CAM method 'fullgrad': layer {name!r} ({type(module).__name__}) does more than normalise, so that the "
            "share of its bias is not known. Use a method of the target layer, such as 'gradcam'."
        )
    return activation


def _bias(module: nn.Module) -> Tensor | None:
    """Give what a layer adds to each channel, ``(c,)``, or None."""
    if isinstance(module, nn.Conv2d):
        return None if module.bias is None else module.bias.detach()
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return None
    shift = -module.running_mean / torch.sqrt(module.running_var + module.eps)
    return (shift * module.weight + module.bias).detach() if module.affine else shift


EXAMPLES = (FullGrad(), FullGrad(rescale="layer"))
