"""Run networks in code that can be differentiated twice: uncompiled, and with torch's plain attention.

Activation checkpointing runs its part of a network again in the backward pass, after these contexts: compiled, and with
fused attention, which keep other tensors. Torch would stop there with an error that names nothing of this.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import multi_head_attention_forward, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from lightning_camrobust.checkpointing import inside_checkpointing
from lightning_camrobust.errors import ModelError


@contextmanager
def eager_where_compiled(model: nn.Module) -> Iterator[None]:
    """Run a compiled network inside the block as it was written: compiled code has no second derivative, no hooks.

    Args:
        model: The network, compiled or with compiled parts.

    Yields:
        Nothing.

    Raises:
        ModelError: If a compiled part runs inside activation checkpointing, or at all before torch 2.6.

    Example:
        >>> net = nn.ReLU()
        >>> with eager_where_compiled(net):
        ...     seen = net(torch.tensor([-1.0, 1.0]))
        >>> seen
        tensor([0., 1.])
    """
    # Costs nothing if dynamo is not loaded.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    compiled = [each for each in model.modules() if _is_compiled(each)]
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None:
        _refuse_compiled(compiled)
        yield
        return
    guards = [each.register_forward_pre_hook(_refuse_checkpointed) for each in compiled]
    try:
        with stance("force_eager"):
            yield
    finally:
        for guard in guards:
            guard.remove()


@contextmanager
def twice_differentiable_attention() -> Iterator[None]:
    """Let attention inside the block use the one implementation of torch that can be differentiated twice.

    Yields:
        Nothing.

    Raises:
        ModelError: If attention runs inside activation checkpointing, and would run as another kernel the second time.

    Example:
        >>> query = torch.rand(1, 1, 3, 4, requires_grad=True)
        >>> with twice_differentiable_attention():
        ...     seen = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        >>> (slope,) = torch.autograd.grad(seen.square().sum(), query, create_graph=True)
        >>> torch.autograd.grad(slope.sum(), query)[0].shape
        torch.Size([1, 1, 3, 4])
    """
    fused = any(getattr(torch.backends.cuda, f"{each}_sdp_enabled")() for each in ("flash", "mem_efficient", "cudnn"))
    with sdpa_kernel(SDPBackend.MATH), _RefusesCheckpointedAttention() if fused else nullcontext():
        yield


class _RefusesCheckpointedAttention(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        # Reentrant checkpointing runs without a graph at first, and can use another kernel for it.
        if torch.is_grad_enabled() and _may_be_fused(func, args, given) and inside_checkpointing():
            raise ModelError(
                "CAMConsistencyLoss: attention runs inside activation checkpointing, which runs it again in the "
                "backward pass, by then with a fused kernel; torch would refuse that. Choose the kernel that can be "
                "differentiated twice for the whole run, torch.backends.cuda.enable_flash_sdp(False), likewise "
                "enable_mem_efficient_sdp and enable_cudnn_sdp (on a CPU as well), or turn checkpointing off."
            )
        return func(*args, **given)


def _may_be_fused(func: Callable[..., Any], args: Any, given: dict[str, Any]) -> bool:
    """Tell whether a call is attention that a fused kernel may take; on a CPU none drops out or learns its mask."""
    if func is scaled_dot_product_attention:
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **given}
    elif func is multi_head_attention_forward:
        named = inspect.signature(func).bind(*args, **given).arguments
        # It calls the other one, unseen, if nobody wants to read the weights.
        if named.get("need_weights", True):
            return False
    else:
        return False
    drops_out = named.get("dropout_p", 0.0) > 0 and named.get("training", True)
    learns = getattr(named.get("attn_mask"), "requires_grad", False)
    return named["query"].device.type != "cpu" or not (drops_out or learns)


# Of `scaled_dot_product_attention`, which is no Python function and cannot be asked.
_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


def _refuse_compiled(parts: list[nn.Module]) -> None:
    if parts:
        raise ModelError(
            "CAMConsistencyLoss: the network, or a part of it, is compiled, and before torch 2.6 compiled code cannot "
            f"be run as it was written; this is torch {torch.__version__}. Give it the network that went into "
            "torch.compile, or update torch."
        )


def _refuse_checkpointed(_compiled: nn.Module, _args: object) -> None:
    if inside_checkpointing():
        raise ModelError(
            "CAMConsistencyLoss: a compiled part of the network runs inside activation checkpointing, which runs it "
            "again in the backward pass, compiled by then; torch would refuse that. Compile the whole network, with "
            "the checkpointing in it, or do not compile that part."
        )
