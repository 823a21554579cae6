"""Which way a loss rises: what all attacks share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_camrobust.errors import LayerNotReachedError, ModelError

# float16 gradients below 6e-8 vanish; a power of two leaves no other mark.
HALF_PRECISION_SCALE = 1024.0


def gradients_by(points: Sequence[Tensor], losses: Callable[..., Tensor]) -> list[Tensor]:
    """Differentiate each image's loss by what belongs to that image.

    Losses are added up, never averaged, so that the gradient of an image does not depend on the batch.

    Args:
        points: Tensors ``(b, ...)`` to differentiate at: pixels, or latent codes.
        losses: A function of the points that returns one loss an image, ``(b,)``.

    Returns:
        A gradient for each point, in its shape, zero where it is NaN or infinite.

    Raises:
        LayerNotReachedError: If the loss does not depend on the points.
        ModelError: If the network cannot be differentiated as often as needed.

    Example:
        >>> gradients_by([torch.tensor([[2.0], [3.0]])], lambda point: point.square().sum(dim=1))
        [tensor([[4.],
                [6.]])]
    """
    with torch.enable_grad():
        leaves = [point.detach().clone().requires_grad_() for point in points]
        loss = losses(*leaves).sum() * HALF_PRECISION_SCALE
        gradients = differentiate(loss, leaves, keep_graph=False)
    return [(each / HALF_PRECISION_SCALE).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for each in gradients]


def unit_rows(vectors: Tensor, *, otherwise: Tensor | None = None) -> Tensor:
    """Scale what belongs to each image to length one: divide by the largest entry, then by the L2 norm.

    Args:
        vectors: ``(b, ...)`` float; the largest entry goes first, so that squares of tiny numbers do not vanish.
        otherwise: What stands in for a vector of zeros, same shape; None leaves it zero.

    Returns:
        ``(b, ...)`` of L2 norm one an image.

    Example:
        >>> unit_rows(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    rows = vectors.flatten(1)
    largest = rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1)
    length = rows.norm(dim=1, keepdim=True)
    unit = (rows / torch.where(length > 0, length, 1)).view_as(vectors)
    if otherwise is None:
        return unit
    return torch.where((largest > 0).view(-1, *[1] * (vectors.dim() - 1)), unit, otherwise)


def differentiate(score: Tensor, by: Sequence[Tensor], *, keep_graph: bool) -> tuple[Tensor, ...]:
    """Differentiate a number without touching the ``.grad`` of any tensor.

    Args:
        score: A scalar with a graph.
        by: Tensors it depends on.
        keep_graph: Whether the result can be differentiated again.

    Returns:
        The derivatives, each in the shape of its tensor.

    Raises:
        LayerNotReachedError: If the score does not depend on one of them.
        ModelError: If the network has no second derivative where one is needed.

    Example:
        >>> point = torch.tensor(3.0, requires_grad=True)
        >>> differentiate(point**2, [point], keep_graph=False)
        (tensor(6.),)
    """
    try:
        return torch.autograd.grad(score, by, create_graph=keep_graph)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        if "derivative for" in str(error) or "double backward" in str(error):
            raise ModelError(
                f"The network cannot be differentiated twice, which a change of its map needs: {error} "
                "Use an attack on the logits, such as 'fgsm' or 'pgd'."
            ) from error
        raise LayerNotReachedError(
            "No gradient gets from what the attack raises back to what it changes. Likely causes: `.detach()` or "
            "`torch.no_grad()` within the network (or within `decode`), or a target layer that the logits do not "
            "depend on. Attacks need gradients from the logits down to the pixels."
        ) from error
