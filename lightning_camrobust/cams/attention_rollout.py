"""Attention rollout."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_camrobust.attention import AttentionListener, check_attends_everywhere, token_layout
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.layout import Layout
from lightning_camrobust.logits import as_logits
from lightning_camrobust.types import Trace

_Heard = TypeVar("_Heard")
_FUSIONS = ("mean", "max", "min")
_QUERIES = ("auto", "class", "mean")


@dataclass(frozen=True)
class AttentionRollout:
    """How much of each patch the attention of all layers together passes on to the class token.

    A layer's attention, fused over its heads, is averaged with the identity for the skip connection and scaled so that
    its rows sum to 1; the product over all layers is the rollout. It explains no class: the map is the same whatever
    class is asked for. With ``gradient=True`` attention counts as far as it speaks for the class.

    For transformers in which every token attends to every token: ViT, DeiT and their kin. The target layer has no say;
    if its cells are others than the patches, the map is averaged over their area.

    Attributes:
        needs: What a network must have.
        head_fusion: ``"mean"`` over the heads as in the paper, ``"max"`` or ``"min"``.
        discard_ratio: Share of a layer's fused attention values, the smallest ones, that is set to 0 first.
        gradient: Weigh attention by its gradient: ``R <- R + fuse(ReLU(dY/dA * A)) R`` for each layer, starting at the
            identity.
        query: Whose row of the rollout is shown. ``"class"``: the first token's. ``"mean"``: the mean over the patches.
            ``"auto"``: the first token's if there are tokens in front that belong to no patch, else the mean. Where
            those are registers only, and the head averages patches, say ``"mean"``.

    Raises:
        ArgumentError: If a setting is impossible.

    Source:
        Abnar and Zuidema 2020 (arXiv 2005.00928), section 3; with gradient Chefer et al. 2021 (arXiv 2103.15679),
        equations 5 and 6.

    Example:
        >>> AttentionRollout(head_fusion="max").needs
        'attention'
    """

    needs: ClassVar[str] = "attention"
    head_fusion: Literal["mean", "max", "min"] = "mean"
    discard_ratio: float = 0.0
    gradient: bool = False
    query: Literal["auto", "class", "mean"] = "auto"

    def __post_init__(self) -> None:
        if self.head_fusion not in _FUSIONS:
            raise ArgumentError(f"AttentionRollout: `head_fusion` must be one of {_FUSIONS}, got {self.head_fusion!r}.")
        if not 0 <= self.discard_ratio < 1:
            raise ArgumentError(
                f"AttentionRollout: `discard_ratio` must be a share, 0 <= ratio < 1, got {self.discard_ratio!r}."
            )
        if self.query not in _QUERIES:
            raise ArgumentError(f"AttentionRollout: `query` must be one of {_QUERIES}, got {self.query!r}.")

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)``, zero or above.

        Raises:
            ArgumentError: If volumes are explained, or the class token of a network without one is asked for.
            ModelError: If the network has no attention from every token to every token, or its tokens fill no grid.
        """
        if trace.images.dim() != 4:
            raise ArgumentError("CAM method 'attention_rollout' explains pictures only, not volumes. Use 'gradcam'.")
        layers = self._weighted_by_gradient(trace) if self.gradient else self._as_attended(trace)
        tokens = layers[0].shape[1]
        layout = token_layout(tokens, trace)
        rollout = torch.eye(tokens, dtype=trace.activation.dtype, device=trace.images.device)
        for attention in layers:
            change = self._without_faintest(attention.to(rollout.dtype))
            rollout = rollout + change @ rollout if self.gradient else _beside_skip(change) @ rollout
        maps = layout.to_map(self._row(rollout, layout)[..., None])
        return interpolate(maps, trace.activation.shape[2:], mode="area")[:, 0]

    def _as_attended(self, trace: Trace) -> list[Tensor]:
        layers: list[Tensor] = []

        def hear(probabilities: Tensor, _source: Tensor) -> None:
            check_attends_everywhere(probabilities, trace, tokens=layers[0].shape[1] if layers else None)
            # Fused at once: all heads of all layers would be large.
            layers.append(self._fuse(probabilities))

        with AttentionListener(hear):
            trace.forward(trace.images)
        return _heard_some(layers, trace)

    def _weighted_by_gradient(self, trace: Trace) -> list[Tensor]:
        heard: list[tuple[Tensor, Tensor]] = []

        def hear(probabilities: Tensor, source: Tensor) -> None:
            check_attends_everywhere(probabilities, trace, tokens=heard[0][0].shape[-1] if heard else None)
            heard.append((probabilities.detach(), source))

        # A graph from the image on, so that a network with every parameter frozen can be explained as well.
        inputs = trace.images.detach().clone().requires_grad_()
        with torch.enable_grad(), AttentionListener(hear):
            with torch.autocast(*trace.autocast):
                logits = as_logits(trace.model(inputs), batch_size=len(inputs))
            # Checkpointed blocks run again in the backward, and have to do so under the same listener.
            heard = list(_heard_some(heard, trace))
            slopes = _slopes(logits, [source for _, source in heard], trace)
        return [
            self._fuse(
                (0 * probabilities if slope is None else slope.reshape(probabilities.shape) * probabilities).relu()
            )
            for (probabilities, _), slope in zip(heard, slopes, strict=True)
        ]

    def _fuse(self, heads: Tensor) -> Tensor:
        """Fuse ``(b, heads, n, n)`` to ``(b, n, n)``."""
        if self.head_fusion == "mean":
            return heads.mean(dim=1)
        return heads.amax(dim=1) if self.head_fusion == "max" else heads.amin(dim=1)

    def _without_faintest(self, attention: Tensor) -> Tensor:
        flat = attention.flatten(1)
        count = int(self.discard_ratio * flat.shape[1])
        if not count:
            return attention
        # Values equal to the smallest one that is kept are kept as well: their order would be chance.
        smallest_kept = flat.sort(dim=1).values[:, count, None, None]
        return torch.where(attention < smallest_kept, torch.zeros_like(attention), attention)

    def _row(self, rollout: Tensor, layout: Layout) -> Tensor:
        query = self.query
        if query == "auto":
            query = "class" if layout.prefix else "mean"
        if query == "class" and not layout.prefix:
            raise ArgumentError(
                "AttentionRollout: `query` is 'class', but all tokens are patches. Use query='mean' or 'auto'."
            )
        return rollout[:, 0] if query == "class" else rollout[:, layout.prefix :].mean(dim=1)


def _slopes(logits: Tensor, sources: list[Tensor], trace: Trace) -> tuple[Tensor | None, ...]:
    score = logits.gather(1, trace.classes[:, None]).sum()
    if not score.requires_grad or not all(source.requires_grad for source in sources):
        raise ModelError(
            f"CAM method 'attention_rollout': in {type(trace.model).__name__}, no gradient gets back to the "
            "attention. Part of it runs under `torch.no_grad()` or is detached. Leave `gradient` False."
        )
    slopes: tuple[Tensor | None, ...] = torch.autograd.grad(score, sources, allow_unused=True)
    return slopes


def _heard_some(heard: list[_Heard], trace: Trace) -> list[_Heard]:
    if not heard:
        raise ModelError(
            f"CAM method 'attention_rollout': no attention was heard in {type(trace.model).__name__}. It needs a "
            "transformer that computes attention with torch (scaled_dot_product_attention, nn.MultiheadAttention or a "
            "softmax over (b, heads, n, n) scores). Use a gradient method such as 'gradcam'."
        )
    return heard


def _beside_skip(attention: Tensor) -> Tensor:
    mixed = (attention + torch.eye(attention.shape[1], dtype=attention.dtype, device=attention.device)) / 2
    return mixed / mixed.sum(dim=2, keepdim=True)


EXAMPLES = (AttentionRollout(), AttentionRollout(head_fusion="max", discard_ratio=0.5), AttentionRollout(gradient=True))
