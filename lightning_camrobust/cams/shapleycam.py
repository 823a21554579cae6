"""ShapleyCAM."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.logits import as_logits
from lightning_camrobust.types import Trace

_SCORES = ("logit", "rest")


# Half precision loses small gradients; a power of two leaves no other mark.
_SCALE = 1024.0


@dataclass(frozen=True)
class ShapleyCAM:
    """Channels weighted by gradient and curvature: ``w_k = mean(g - H A / 2)``, map ``ReLU(sum_k w_k A_k)``.

    ``g`` is the gradient of the explained score by the activation ``A`` and ``H`` its matrix of second derivatives.
    The network runs once more, with a graph that can be differentiated twice. Where only piecewise linear steps follow
    the target layer (ReLU, pooling, linear layers), the logit has no curvature, and its map is Grad-CAM's.

    Attributes:
        score: What is explained. ``"logit"`` of the class; ``"rest"`` (residual softmax target): the logit plus the
            logarithm of the probability, which has a curvature behind any network.

    Raises:
        ArgumentError: If ``score`` is none of the two.

    Source:
        Cai 2025 (arXiv 2501.06261); the formula as in pytorch-grad-cam, class ``ShapleyCAM``, and its target
        ``ClassifierOutputReST``.

    Example:
        >>> ShapleyCAM()
        ShapleyCAM(score='logit')
    """

    score: Literal["logit", "rest"] = "logit"

    def __post_init__(self) -> None:
        if self.score not in _SCORES:
            raise ArgumentError(f"ShapleyCAM: `score` must be one of {_SCORES}, got {self.score!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above.

        Raises:
            ModelError: If a step behind the target layer has no second derivative in torch.
        """
        gradient, bend = self._derivatives(trace)
        if trace.clean_gradient is not None:
            # Somebody disturbed the gradient on purpose; what is computed anew has to feel it as well.
            gradient = gradient + (trace.gradient - trace.clean_gradient)
        spatial = tuple(range(2, trace.activation.dim()))
        weights = (gradient - bend / 2).mean(dim=spatial, keepdim=True)
        return (weights * trace.activation).sum(dim=1).relu()

    def _derivatives(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """Compute the gradient and the Hessian-vector product with the activation, as maps ``(b, c, h, w)``."""
        # The one kind of attention that can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            with torch.autocast(*trace.autocast):
                leaf, logits = _forward(trace)
            explained = trace.classes[:, None]
            score = logits.gather(1, explained)
            if self.score == "rest":
                score = score + logits.log_softmax(dim=1).gather(1, explained)
            # Images do not sway each other, so the sum over the batch has the derivatives of each.
            (gradient,) = torch.autograd.grad(score.sum() * _SCALE, leaf, create_graph=True)
            bend = _bend(gradient, leaf, trace)
        wide = (each.detach().to(trace.activation.dtype) / _SCALE for each in (gradient, bend))
        maps = (trace.layout.to_map(each) for each in wide)
        return next(maps), next(maps)


def _forward(trace: Trace) -> tuple[Tensor, Tensor]:
    """Run the network on the traced images, with a graph from the last run of the target layer on."""
    leaves: list[Tensor] = []
    seen = 0

    def cut(_module: nn.Module, _args: object, output: Tensor) -> Tensor | None:
        nonlocal seen
        seen += 1
        if seen != trace.runs:
            return None
        leaves.append(output.detach().clone().requires_grad_())
        return leaves[0].clone()

    handle = trace.target_layer.register_forward_hook(cut)
    try:
        logits = as_logits(trace.model(trace.images), batch_size=len(trace.images))
    finally:
        handle.remove()
    return leaves[0], logits


def _bend(gradient: Tensor, leaf: Tensor, trace: Trace) -> Tensor:
    if not gradient.requires_grad:
        return torch.zeros_like(leaf)
    try:
        (bend,) = torch.autograd.grad(gradient, leaf, grad_outputs=leaf.detach(), allow_unused=True)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ModelError(
            f"CAM method 'shapleycam': a step of {type(trace.model).__name__} behind the target layer has no second "
            f"derivative in torch ({error}). Use a method of first derivatives, such as 'gradcam'."
        ) from error
    return torch.zeros_like(leaf) if bend is None else bend


EXAMPLES = (ShapleyCAM(), ShapleyCAM(score="rest"))
