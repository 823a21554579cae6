"""How drops of water look: lit from one side, by the distance to their outlines."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

# Pixels from the outline at which the inside of a drop is flat.
_FARTHEST = 20


def drop_relief(liquid: Tensor) -> Tensor:
    """Light drops of water from the upper left, by the distance of their pixels to the outlines.

    Rounded to 8 bits: the outlines (Canny, thresholds 50 and 150), the distance to them up to 20 pixels, averaged over
    3 x 3 pixels, its histogram made even, a slanting relief filter, and an average over 3 x 3 pixels again. The script
    does the same by OpenCV, with two differences: its distance is an approximation and here it is Euclidean, and a
    liquid above 1 wraps around to dark there and counts as 1 here.

    Args:
        liquid: ``(b, H, W)`` in [0, 1], 0 where it is dry.

    Returns:
        ``(b, H, W)``: liquid times relief, divided by its maximum; 0 everywhere if that is 0.

    Source:
        Canny 1986; Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> drop_relief(torch.zeros(1, 8, 8)).abs().max()
        tensor(0.)
    """
    levels = (liquid * 255).floor().clamp_(0, 255)
    relief = _even_histogram(_box_sum(_outline_distance(_outlines(levels))).div_(9).floor_())
    wide, (height, width) = _mirror(relief), relief.shape[1:]
    lit = torch.zeros_like(relief)
    for row, weights in enumerate(((-2, -1, 0), (-1, 1, 1), (0, 1, 2))):
        for column, weight in enumerate(weights):
            lit += wide[:, row : row + height, column : column + width] * weight
    relief = levels * _box_sum(lit.clamp_(0, 255)).div_(9).round_()
    highest = relief.amax(dim=(1, 2), keepdim=True)
    return relief / torch.where(highest > 0, highest, 1.0)


def _mirror(layer: Tensor) -> Tensor:
    # A lone row or column has nothing to mirror.
    mode = "reflect" if min(layer.shape[1:]) > 1 else "replicate"
    return pad(layer[:, None], (1, 1, 1, 1), mode=mode)[:, 0]


def _box_sum(layer: Tensor) -> Tensor:
    wide = _mirror(layer)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def _outlines(levels: Tensor) -> Tensor:
    """Find edges after Canny, in whole numbers: ``(b, H, W)`` of 0..255 to bool."""
    wide = pad(levels[:, None], (1, 1, 1, 1), mode="replicate")[:, 0].to(torch.int32)
    rows = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    columns = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
    across, down = rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2]
    steep = pad(across.abs() + down.abs(), (1, 1, 1, 1))

    def beside(row: int, column: int) -> Tensor:
        return steep[:, 1 + row : steep.shape[1] - 1 + row, 1 + column : steep.shape[2] - 1 + column]

    here = beside(0, 0)
    # tan 22.5 and tan 67.5 degrees, in units of 2^-15.
    flat = down.abs() * 2**15 < across.abs() * 13573
    upright = down.abs() * 2**15 > across.abs() * (13573 + 2**16)
    rising = (across ^ down) < 0
    slanting = torch.where(
        rising,
        (here > beside(-1, 1)) & (here > beside(1, -1)),
        (here > beside(-1, -1)) & (here > beside(1, 1)),
    )
    upright_peak = (here > beside(-1, 0)) & (here >= beside(1, 0))
    flat_peak = (here > beside(0, -1)) & (here >= beside(0, 1))
    peak = torch.where(flat, flat_peak, torch.where(upright, upright_peak, slanting))
    return _connected(peak & (here > 150), peak & (here > 50))


def _connected(strong: Tensor, weak: Tensor) -> Tensor:
    """Keep what is strong, and what is weak and hangs together with it."""
    while True:
        grown = max_pool2d(strong.float()[:, None], 3, stride=1, padding=1)[:, 0].bool() & weak
        # Images that have finished stay as they are while others go on.
        if torch.equal(grown, strong):
            return strong
        strong = grown


def _outline_distance(outlines: Tensor) -> Tensor:
    """Measure the Euclidean distance to the next outline, at most 20 pixels: first along columns, then along rows."""
    far = torch.where(outlines, 0.0, _FARTHEST + 1.0).float()
    for _ in range(min(_FARTHEST, far.shape[1] - 1)):
        far[:, 1:] = torch.minimum(far[:, 1:], far[:, :-1] + 1)
        far[:, :-1] = torch.minimum(far[:, :-1], far[:, 1:] + 1)
    squares = far.square()
    nearest = squares.clone()
    for step in range(1, min(_FARTHEST, far.shape[2] - 1) + 1):
        nearest[:, :, step:] = torch.minimum(nearest[:, :, step:], squares[:, :, :-step] + step**2)
        nearest[:, :, :-step] = torch.minimum(nearest[:, :, :-step], squares[:, :, step:] + step**2)
    return nearest.sqrt().clamp_(max=_FARTHEST)


def _even_histogram(levels: Tensor) -> Tensor:
    """Spread 0..20 over 0..255, so that the levels of each image are used evenly; one level alone stays."""
    order = torch.arange(_FARTHEST + 1, device=levels.device)
    counts = torch.stack([(levels == level).sum(dim=(1, 2)) for level in range(_FARTHEST + 1)], dim=1)
    below = counts.cumsum(dim=1)
    lowest = torch.where(counts > 0, below, below[:, -1:]).amin(dim=1, keepdim=True)
    rest = below[:, -1:] - lowest
    spread = ((below - lowest).clamp_(min=0).float() * (255 / rest.clamp(min=1).float())).round_()
    table = torch.where(rest > 0, spread, order.float())
    return table.gather(1, levels.long().flatten(1)).view_as(levels)
