"""Linear bounds of any value of a network, pulled back to the image (CROWN)."""

import torch
from torch import Tensor

from lightning_camrobust.certify.network_bounds import BoundedNetwork
from lightning_camrobust.certify.operations import Box, Rectifier


def lower_bounds(network: BoundedNetwork, number: int, coefficients: Tensor, boxes: list[Box]) -> Tensor:
    """Bound linear functions of a value from below.

    Args:
        network: The network.
        number: Which value; 0 is the image, i + 1 the output of step i.
        coefficients: ``(s, c, h, w)``, one function a row.
        boxes: Bounds of all values before it, of one image, each ``(1, c, h, w)``.

    Returns:
        ``(s,)``: a bound of ``<coefficients, value>`` for every image in the first box.

    Source:
        Zhang et al. 2018 (CROWN, arXiv 1811.00866).
    """
    waiting = {number: coefficients}
    bound = coefficients.new_zeros(len(coefficients))
    for index in range(number, 0, -1):
        # Values that nothing bounded depends on are passed over.
        if index in waiting:
            step = network.steps[index - 1]
            pulled, constants = step.operation.pull_back(waiting.pop(index), *(boxes[each] for each in step.inputs))
            bound = bound + constants
            for before, part in zip(step.inputs, pulled, strict=True):
                waiting[before] = waiting[before] + part if before in waiting else part
    image = waiting[0].flatten(1)
    lower, upper = boxes[0].lower.flatten(), boxes[0].upper.flatten()
    return bound + image.clamp(min=0) @ lower + image.clamp(max=0) @ upper


def tighten(network: BoundedNetwork, number: int, boxes: list[Box], *, below: Tensor, above: Tensor, rows: int) -> Box:
    """Bound some cells of a value by lines, and keep what is tighter.

    Args:
        network: The network.
        number: Which value.
        boxes: Bounds of the values up to and with it, of one image.
        below: ``(1, c, h, w)`` bool, which cells to bound from below.
        above: The same, from above.
        rows: How many at once.

    Returns:
        Bounds of the value, nowhere wider than before.
    """
    lower, upper = boxes[number]
    raised = _bounds_of_cells(network, number, boxes, below, 1.0, rows)
    lowered = _bounds_of_cells(network, number, boxes, above, -1.0, rows)
    return Box(
        torch.maximum(lower, lower.masked_scatter(below, raised)),
        torch.minimum(upper, upper.masked_scatter(above, -lowered)),
    )


def _bounds_of_cells(
    network: BoundedNetwork, number: int, boxes: list[Box], cells: Tensor, sign: float, rows: int
) -> Tensor:
    places = cells.flatten().nonzero()[:, 0]
    found = [
        lower_bounds(network, number, _unit_rows(boxes[number].lower, some, sign), boxes)
        for some in torch.split(places, rows)
    ]
    return torch.cat(found)


def _unit_rows(like: Tensor, places: Tensor, sign: float) -> Tensor:
    empty = like.new_zeros(len(places), like.numel())
    return empty.scatter_(1, places[:, None], sign).view(-1, *like.shape[1:])


def tight_boxes(network: BoundedNetwork, pixels: Box, *, rows: int) -> list[Box]:
    """Bound all values of one image: by intervals, and by lines where a ReLU would be undecided.

    Args:
        network: The network.
        pixels: Bounds of the image, ``(1, c, H, W)``.
        rows: How many cells are pulled back at once.

    Returns:
        One box for the image and one for each step.
    """
    rectified = {each for step in network.steps if isinstance(step.operation, Rectifier) for each in step.inputs}
    boxes = [pixels]
    for number, step in enumerate(network.steps, start=1):
        boxes.append(step.operation.interval(*(boxes[each] for each in step.inputs)))
        if number in rectified:
            undecided = (boxes[number].lower < 0) & (boxes[number].upper > 0)
            boxes[number] = tighten(network, number, boxes, below=undecided, above=undecided, rows=rows)
    return boxes
