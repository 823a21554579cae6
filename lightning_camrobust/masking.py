"""Show the network images of which parts are hidden, and read the score of the explained class."""

from typing import Literal

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.precision import float32_by_default
from lightning_camrobust.randomness import ImageRandomness
from lightning_camrobust.types import Baseline, Trace

Score = Literal["probability", "logit"]
_SCORES = ("probability", "logit")


def check_score(score: str, *, member: str) -> None:
    """Check the name of a score.

    Args:
        score: What came.
        member: Who asks, for the message.

    Raises:
        ArgumentError: If it is neither ``"probability"`` nor ``"logit"``.

    Example:
        >>> check_score("logit", member="RISE")
    """
    if score not in _SCORES:
        raise ArgumentError(f"{member}: `score` must be one of {_SCORES}, got {score!r}.")


def hidden_inputs(trace: Trace, baseline: str | Baseline, *, removed: Tensor, seed: int) -> Tensor:
    """Make what is shown in place of the hidden pixels.

    Random numbers are the same for every image, so that those of an image and of its disturbed copy do not differ.

    Args:
        trace: A pass of the network over pictures.
        baseline: ``"zero"``: 0 in the model's own input units, which is the mean colour where inputs are normalised.
            Else the name of a baseline, or an instance, which works on pixels in [0, 1].
        removed: Which pixels are hidden, ``(b, 1, H, W)`` bool.
        seed: Of a baseline that draws random numbers.

    Returns:
        ``(b, c, H, W)`` in the model's input units; only values where ``removed`` is true are meant to be used.

    Raises:
        UnknownNameError: If there is no such baseline.

    Example:
        >>> from lightning_camrobust.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> pass_ = trace(net, torch.rand(1, 1, 4, 4), target_layer=net[0])
        >>> hidden_inputs(pass_, "zero", removed=torch.ones(1, 1, 4, 4, dtype=torch.bool), seed=0).any()
        tensor(False)
    """
    if isinstance(baseline, str) and baseline == "zero":
        return torch.zeros_like(trace.images)
    member = resolve_member("baseline", baseline)
    space = trace.pixel_space()
    pixels = space.to_pixels(trace.images)
    keys = torch.zeros(len(pixels), 2, dtype=torch.int32, device=pixels.device)
    with float32_by_default():
        fill = member(pixels, removed=removed, randomness=ImageRandomness(keys, seed, "masking", 0))
    return space.from_pixels(fill, pixels=pixels, inputs=trace.images)


def class_scores(trace: Trace, inputs: Tensor, *, score: Score) -> Tensor:
    """Read the score of the explained class for changed copies of the images.

    Args:
        trace: A pass of the network over b images.
        inputs: ``(n, b, c, H, W)``, n changed copies of all images, in the model's input units; run at once.
        score: ``"probability"`` after the softmax, or ``"logit"``.

    Returns:
        ``(n, b)`` float64, so that a probability next to 1 still differs from another.

    Example:
        >>> from lightning_camrobust.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> pass_ = trace(net, torch.rand(3, 1, 4, 4), target_layer=net[0])
        >>> class_scores(pass_, torch.rand(5, 3, 1, 4, 4), score="probability").shape
        torch.Size([5, 3])
    """
    classes = trace.classes.repeat(len(inputs))
    return explained_scores(trace.forward(inputs.flatten(0, 1)), classes, score=score).view(inputs.shape[:2])


def explained_scores(logits: Tensor, classes: Tensor, *, score: Score) -> Tensor:
    """Pick the score of one class a row.

    Args:
        logits: ``(n, k)``.
        classes: ``(n,)`` int64.
        score: ``"probability"`` after the softmax, or ``"logit"``.

    Returns:
        ``(n,)`` float64.

    Example:
        >>> explained_scores(torch.zeros(1, 4), torch.tensor([2]), score="probability")
        tensor([0.2500], dtype=torch.float64)
    """
    values = logits.double()
    values = values.softmax(dim=1) if score == "probability" else values
    return values.gather(1, classes[:, None])[:, 0]
