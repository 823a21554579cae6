"""What a network returned, read as one row of logits per image; and the class that is explained."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError, ModelError


def as_logits(output: Any, *, batch_size: int) -> Tensor:
    """Find the logits in what a network returned, and check them.

    Args:
        output: A tensor, a mapping or record with ``logits``, or a tuple or list whose first entry is one of these.
        batch_size: Number of images the network was given.

    Returns:
        ``(b, k)`` float with k >= 2; a single logit z, of a binary head, becomes ``(-z, z)``, so that class 1 is
        predicted where z > 0.

    Raises:
        ModelError: If there are no logits ``(b, k)``.

    Example:
        >>> as_logits({"logits": torch.tensor([[2.0]])}, batch_size=1)
        tensor([[-2.,  2.]])
    """
    found = find_logits(output)
    if found.dim() == 1 and len(found) == batch_size and found.is_floating_point():
        found = found[:, None]
    if found.dim() != 2 or found.shape[0] != batch_size or not found.is_floating_point():
        raise ModelError(
            f"The model must return float logits (b, classes) with b={batch_size}; got shape {tuple(found.shape)}, "
            f"{found.dtype}. Pool spatial outputs and flatten, or pass a module whose forward does."
        )
    return torch.cat([-found, found], dim=1) if found.shape[1] == 1 else found


def find_logits(output: Any) -> Tensor:
    """Find the logits in what a network returned, and leave them as they are.

    Args:
        output: As for :func:`as_logits`.

    Returns:
        The tensor itself.

    Raises:
        ModelError: If there is none.

    Example:
        >>> find_logits({"logits": torch.tensor([[2.0]])})
        tensor([[2.]])
    """
    found = _search(output)
    if found is None:
        keys = f" with keys {list(output)}" if isinstance(output, Mapping) else ""
        raise ModelError(
            "The model must return logits: a tensor (b, classes), or a dict or record with `logits`; got "
            f"{type(output).__name__}{keys}. Wrap it in a module whose forward returns the logits, or pass "
            "CAMRobustnessCallback(classifier=lambda module, images: module(images)['out'])."
        )
    return found


def explained_classes(classes: Tensor | Callable[[Tensor], Tensor] | None, logits: Tensor) -> Tensor:
    """Decide which class of each image is explained.

    Args:
        classes: ``(b,)`` integers, a function of the logits that returns them, or None for the predicted class.
        logits: ``(b, k)``.

    Returns:
        ``(b,)`` int64 on the logits' device.

    Raises:
        ArgumentError: If shape, type or range of the classes is wrong.

    Example:
        >>> explained_classes(None, torch.tensor([[1.0, 3.0]])), explained_classes(torch.tensor([0]), torch.ones(1, 2))
        (tensor([1]), tensor([0]))
    """
    if classes is None:
        return logits.argmax(dim=1)
    chosen = torch.as_tensor(classes(logits) if callable(classes) else classes)
    batch_size, num_classes = logits.shape
    if chosen.shape != (batch_size,) or chosen.is_floating_point() or chosen.is_complex():
        raise ArgumentError(
            f"`classes` must be ({batch_size},) integers, one class an image; "
            f"got shape {tuple(chosen.shape)}, {chosen.dtype}. Leave it None to explain the predicted class."
        )
    # Autograd refuses tensors of inference mode, such as classes predicted in it.
    chosen = chosen.to(logits.device, torch.int64).clone()
    if bool(((chosen < 0) | (chosen >= num_classes)).any()):
        raise ArgumentError(
            f"`classes` must lie in 0..{num_classes - 1}, as the model has {num_classes} logits; "
            f"got {chosen.min().item()}..{chosen.max().item()}."
        )
    return chosen


def _search(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return _search(output["logits"]) if "logits" in output else None
    if getattr(output, "logits", None) is not None:
        return _search(output.logits)
    if isinstance(output, (tuple, list)) and output:
        return _search(output[0])
    return None
