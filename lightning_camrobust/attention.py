"""Listen to the attention of a transformer while it runs, whoever wrote it."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_camrobust.errors import ModelError
from lightning_camrobust.layout import Layout, find_layout
from lightning_camrobust.types import Trace

_SOFTMAX = (torch.softmax, functional.softmax, Tensor.softmax)


class AttentionListener(TorchFunctionMode):
    """While active, hands the attention probabilities of every attention to a function, in the order they are made.

    Heard are ``scaled_dot_product_attention``, ``nn.MultiheadAttention``, and a softmax over the last axis of a tensor
    with four axes, which is how attention is written by hand. Kernels of other libraries are not heard. What the
    network computes stays the same up to rounding: an implementation that shows its probabilities takes the place of
    one that does not.

    The mode is one of this thread, and nothing of the network is touched. While a mode is active, torch's own
    transformer layers leave the fast path on which they would call none of these functions.

    Args:
        hear: Called with the probabilities ``(b, heads, n, m)``, and with the tensor of the same values, whatever its
            shape, that the network went on with: the one to differentiate by.

    Example:
        >>> shapes = []
        >>> with AttentionListener(lambda probabilities, _: shapes.append(tuple(probabilities.shape))):
        ...     tokens = torch.rand(2, 3, 5, 8)
        ...     _ = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        >>> shapes
        [(2, 3, 5, 5)]
    """

    def __init__(self, hear: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self._hear = hear

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Stand in for each function of torch that the network calls."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAX and output.dim() == 4 and _axis(args, kwargs) in (-1, 3):
            self._hear(output, output)
        return output

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        # Dropout is left out: networks are looked at in eval mode.
        if enable_gqa:
            key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], dim=-3) for each in (key, value))
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
        probabilities = scores.softmax(dim=-1)
        self._hear(probabilities, probabilities)
        return probabilities @ value

    def _multi_head(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        wanted, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        # What comes back is a view that nothing was computed from; gradients arrive at the tensor it looks at.
        self._hear(weights, weights if weights._base is None else weights._base)
        if not wanted:
            return output, None
        return output, weights.mean(dim=-3) if averaged else weights


def check_attends_everywhere(probabilities: Tensor, trace: Trace, *, tokens: int | None) -> None:
    """Check that an attention goes from every token of an image to every token.

    Args:
        probabilities: What was heard.
        trace: A pass of the network over the images.
        tokens: How many tokens an image has, if that is known from an earlier layer.

    Raises:
        ModelError: If it does not.
    """
    batch, _, queries, keys = probabilities.shape if probabilities.dim() == 4 else (0, 0, 0, 0)
    if batch == len(trace.images) and queries == keys == (tokens or keys):
        return
    expected = f"({len(trace.images)}, heads, {tokens or 'n'}, {tokens or 'n'})"
    raise ModelError(
        f"CAM method 'attention_rollout': {type(trace.model).__name__} has attention {tuple(probabilities.shape)} "
        f"where {expected} is needed, from every token of an image to every token. Windowed attention (Swin), "
        "shrinking grids and attention pooling cannot be rolled out. Use a gradient method such as 'gradcam'."
    )


def token_layout(tokens: int, trace: Trace) -> Layout:
    """Find out how the tokens of a transformer fill a grid.

    Args:
        tokens: How many there are.
        trace: A pass of the network over the images.

    Returns:
        The layout, that of the target layer where it has as many tokens.

    Raises:
        ModelError: If they fill no grid of the images' proportions.
    """
    known = trace.layout
    if known.size is not None and known.prefix + known.size[0] * known.size[1] == tokens:
        return known
    found = find_layout(trace.activation.new_empty(1, tokens, 2), trace.images)
    if found is None:
        raise ModelError(
            f"CAM method 'attention_rollout': the {tokens} tokens of {type(trace.model).__name__} fill no grid of the "
            "images' proportions, at most five others in front. Use a gradient method such as 'gradcam'."
        )
    return found


def _axis(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)
