"""The results of a run as one table of numbers, which can travel between processes in a single message."""

import torch
from torch import Tensor

from lightning_camrobust.heldout import NOT_MINE
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.types import Comparison


def pack_rows(rows: list[Tensor], plan: ProbePlan, *, seconds: float, capacity: int | None = None) -> Tensor:
    """Put the rows of one process together.

    Args:
        rows: Tables of :meth:`Comparison.as_rows`, ``(images, 1 + 3 * cells)`` each.
        plan: What was measured.
        seconds: Time spent.
        capacity: Fill up to this many rows, so that the tables of all processes have one size; None leaves them as
            they are.

    Returns:
        ``(rows, 2 + 3 * cells)`` float64, on the CPU. The first column holds the seconds.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> pack_rows([], make_plan(severities=1), seconds=2.5, capacity=2).shape
        torch.Size([2, 5])
    """
    width = 1 + 3 * len(plan.cells)
    table = torch.cat([torch.zeros(0, width, dtype=torch.float64), *rows])
    missing = 0 if capacity is None else capacity - len(table)
    padding = torch.full((max(missing, 0), width), float(NOT_MINE), dtype=torch.float64)
    table = torch.cat([table, padding])
    return torch.cat([torch.full((len(table), 1), seconds, dtype=torch.float64), table], dim=1)


def unpack_rows(table: Tensor, plan: ProbePlan) -> tuple[Comparison, float]:
    """Take the rows of all processes apart, in the order of the data, whatever process measured them.

    Args:
        table: ``(rows, 2 + 3 * cells)`` float64, those of several processes below one another.
        plan: What was measured.

    Returns:
        The comparison with fields ``(images, cells)``, each image once, and the seconds of the slowest process.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> plan = make_plan(severities=1)
        >>> table = torch.tensor([[1.0, 7, 0.5, 1, 1], [2.0, 3, 0.25, 0, 1], [2.0, -1, -1, -1, -1]]).double()
        >>> comparison, seconds = unpack_rows(table, plan)
        >>> comparison.similarity[:, 0].tolist(), seconds
        ([0.25, 0.5], 2.0)
    """
    table = table.cpu()
    seconds = float(table[:, 0].max()) if len(table) else 0.0
    real = table[table[:, 1] > NOT_MINE][:, 1:]
    # Sums of floats depend on their order; the data's order is the same for any number of processes.
    _, inverse = torch.unique(real[:, 0], sorted=True, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1 if len(real) else 0,), len(real), dtype=torch.int64)
    first = first.scatter_reduce(0, inverse, torch.arange(len(real)), "amin")
    ordered = real[first, 1:].reshape(len(first), len(plan.cells), 3)
    return Comparison(ordered[..., 0], ordered[..., 1] == 1, ordered[..., 2] == 1), seconds
