"""How neutral a picture without content is to a network: a neutral one speaks for no class."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError


@dataclass(frozen=True)
class Neutrality:
    """What a network says about baseline pictures.

    Attributes:
        most_likely: Largest probability of any class, ``(b,)`` float64; 1/k for a neutral picture.
        own_class: Probability of the class explained in the image, ``(b,)`` float64.
        divergence: Kullback-Leibler divergence from the uniform distribution in nats, ``(b,)`` float64, 0 to log k.
    """

    most_likely: Tensor
    own_class: Tensor
    divergence: Tensor


def measure_neutrality(
    classify: Callable[[Tensor], Tensor], pictures: Tensor, classes: Tensor, *, chunk_size: int = 64
) -> Neutrality:
    """Ask a network about baseline pictures.

    Args:
        classify: Takes pixels ``(n, c, H, W)`` in [0, 1] to probabilities ``(n, k)``.
        pictures: The baseline's picture of each image, ``(b, c, H, W)`` in [0, 1].
        classes: The class explained in each image, ``(b,)`` integers.
        chunk_size: Images in one forward pass.

    Returns:
        The record, one value an image.

    Raises:
        ArgumentError: If `classify` returns no probabilities.

    Example:
        >>> coin = lambda pixels: torch.tensor([[0.5, 0.5]]).expand(len(pixels), 2)
        >>> measure_neutrality(coin, torch.zeros(1, 3, 4, 4), torch.tensor([1])).divergence
        tensor([0.], dtype=torch.float64)
    """
    with torch.no_grad():
        probabilities = torch.cat([classify(each).double() for each in torch.split(pictures, chunk_size)])
    _check_probabilities(probabilities, count=len(pictures))
    if int(classes.min()) < 0 or int(classes.max()) >= probabilities.shape[1]:
        raise ArgumentError(
            f"`classes` must lie in 0..{probabilities.shape[1] - 1}, as `classify` returns {probabilities.shape[1]} "
            f"columns; got {int(classes.min())}..{int(classes.max())}."
        )
    # x log x is 0 at 0. Rounding must not make a divergence negative.
    divergence = torch.xlogy(probabilities, probabilities).sum(dim=1) + math.log(probabilities.shape[1])
    return Neutrality(
        most_likely=probabilities.amax(dim=1),
        own_class=probabilities.gather(1, classes.long()[:, None])[:, 0],
        divergence=divergence.clamp_min(0),
    )


def _check_probabilities(probabilities: Tensor, *, count: int) -> None:
    if probabilities.dim() != 2 or len(probabilities) != count:
        raise ArgumentError(f"`classify` must return probabilities ({count}, k), got {tuple(probabilities.shape)}.")
    # Half precision sums to 1 within a few thousandths. Written so that NaN fails.
    if not (float(probabilities.min()) >= 0 and float((probabilities.sum(dim=1) - 1).abs().max()) <= 1e-2):
        raise ArgumentError(
            "`classify` must return probabilities that sum to 1; these do not. Apply softmax to logits."
        )
