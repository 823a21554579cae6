"""Normalisation during the pass of noisy copies: whether they count as data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_camrobust.checkpointing import inside_checkpointing
from lightning_camrobust.errors import ArgumentError, ModelError

# Which statistics noisy copies are normalised by.
BatchNormRule = Literal["running", "batch", "learn"]


def check_batch_norm(rule: BatchNormRule) -> BatchNormRule:
    """Check the rule for batch normalisation.

    Args:
        rule: ``"running"``, ``"batch"`` or ``"learn"``.

    Returns:
        It.

    Raises:
        ArgumentError: If it is another word.

    Example:
        >>> check_batch_norm("running")
        'running'
    """
    if rule not in ("running", "batch", "learn"):
        raise ArgumentError(
            "CAMConsistencyLoss: `batch_norm` must be 'running' (noisy copies are normalised as in a test), 'batch' "
            f"(by their own batch) or 'learn' (likewise, and running statistics learn of them), got {rule!r}."
        )
    return rule


@contextmanager
def keep_running_statistics(model: nn.Module, *, rule: BatchNormRule) -> Iterator[None]:
    """Keep all buffers of a network as they are while the block runs it, if that is the rule.

    Running statistics are buffers, and so is what spectral normalisation iterates on.

    Args:
        model: The network.
        rule: ``"running"``: layers in training normalise by their running statistics, as in a test, so that no image
            sways another. ``"batch"``: they normalise by the batch as ever, and learn nothing of it. ``"learn"``: noisy
            copies are data like any other, as in augmentation, and running statistics become those of the mixture.

    Yields:
        Nothing.

    Raises:
        ModelError: If the rule is ``"running"`` and such a layer runs inside activation checkpointing.

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm2d(2).train()
        >>> with keep_running_statistics(norm, rule="batch"):
        ...     seen = norm(torch.rand(4, 2, 3, 3) + 5)
        >>> norm.running_mean, int(norm.num_batches_tracked)
        (tensor([0., 0.]), 0)
    """
    if rule == "learn":
        yield
        return
    with _buffers_lent(model), _as_in_a_test(model) if rule == "running" else nullcontext():
        yield


@contextmanager
def _buffers_lent(model: nn.Module) -> Iterator[None]:
    kept = [(each, dict(each._buffers)) for each in model.modules() if each.training and each._buffers]
    try:
        for module, buffers in kept:
            # Copies are written to, not the buffers: changed in place, autograd would miss what it kept.
            _put(module, {name: None if each is None else each.clone() for name, each in buffers.items()})
        yield
    finally:
        for module, buffers in kept:
            _put(module, buffers)


def _put(module: nn.Module, buffers: Mapping[str, Tensor | None]) -> None:
    for name, each in buffers.items():  # one by one, as TorchScript's stand-in for a dict has no `update`
        module._buffers[name] = each


@contextmanager
def _as_in_a_test(model: nn.Module) -> Iterator[None]:
    layers = [each for each in model.modules() if isinstance(each, _NormBase) and each.training]
    layers = [each for each in layers if each.running_mean is not None]
    guards = [each.register_forward_pre_hook(_refuse_checkpointing) for each in layers]
    try:
        for layer in layers:
            layer.training = False
        yield
    finally:
        for layer, guard in zip(layers, guards, strict=True):
            guard.remove()
            layer.training = True


def _refuse_checkpointing(layer: nn.Module, _args: object) -> None:
    """Refuse to be run a second time in the backward pass, when the rule is over and nothing would tell."""
    if inside_checkpointing():
        raise ModelError(
            f"CAMConsistencyLoss: {type(layer).__name__} runs inside activation checkpointing, which runs it again "
            "in the backward pass, by then with other statistics; the gradients would be wrong. "
            "Pass batch_norm='batch' or 'learn', or leave batch normalisation out of the checkpointing."
        )
