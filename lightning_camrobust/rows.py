"""The results of a run as one table of numbers, which can travel between processes in a single message."""

from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

from lightning_camrobust.heldout import NOT_MINE
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.types import Comparison


@dataclass(frozen=True)
class Spent:
    """Where the time of a run went, in seconds; of several processes the slowest counts.

    Attributes:
        probing: All that the probe took.
        segmenting: What of it went into cutting images that were not seen before.
        training: Training since the run before.
    """

    probing: float = 0.0
    segmenting: float = 0.0
    training: float = 0.0

    @property
    def repeated(self) -> float:
        """What the same images will cost again in the next run."""
        return max(self.probing - self.segmenting, 0.0)


_TIMES = len(fields(Spent))


def pack_rows(rows: list[Tensor], plan: ProbePlan, *, spent: Spent, capacity: int | None = None) -> Tensor:
    """Put the rows of one process together.

    Args:
        rows: Tables of :meth:`Comparison.as_rows`, ``(images, 1 + 3 * cells)`` each.
        plan: What was measured.
        spent: Time spent.
        capacity: Fill up to this many rows, so that the tables of all processes have one size; None leaves them as
            they are.

    Returns:
        ``(rows, 4 + 3 * cells)`` float64, on the CPU. The first columns hold the times.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> pack_rows([], make_plan(severities=1), spent=Spent(2.5), capacity=2).shape
        torch.Size([2, 7])
    """
    width = 1 + 3 * len(plan.cells)
    table = torch.cat([torch.zeros(0, width, dtype=torch.float64), *rows])
    missing = 0 if capacity is None else capacity - len(table)
    padding = torch.full((max(missing, 0), width), float(NOT_MINE), dtype=torch.float64)
    table = torch.cat([table, padding])
    times = torch.tensor(astuple(spent), dtype=torch.float64).expand(len(table), _TIMES)
    return torch.cat([times, table], dim=1)


def unpack_rows(table: Tensor, plan: ProbePlan) -> tuple[Comparison, Spent]:
    """Take the rows of all processes apart, in the order of the data, whatever process measured them.

    Args:
        table: ``(rows, 4 + 3 * cells)`` float64, those of several processes below one another.
        plan: What was measured.

    Returns:
        The comparison with fields ``(images, cells)``, each image once, and the times of the slowest process.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> plan = make_plan(severities=1)
        >>> table = torch.tensor([[1.0, 0, 0, 7, 0.5, 1, 1], [2.0, 0, 0, 3, 0.25, 0, 1], [2.0, 0, 0, -1, -1, -1, -1]])
        >>> comparison, spent = unpack_rows(table.double(), plan)
        >>> comparison.similarity[:, 0].tolist(), spent.probing
        ([0.25, 0.5], 2.0)
    """
    table = table.cpu()
    spent = Spent(*table[:, :_TIMES].amax(dim=0).tolist()) if len(table) else Spent()
    real = table[table[:, _TIMES] > NOT_MINE][:, _TIMES:]
    # Sums of floats depend on their order; the data's order is the same for any number of processes.
    _, inverse = torch.unique(real[:, 0], sorted=True, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1 if len(real) else 0,), len(real), dtype=torch.int64)
    first = first.scatter_reduce(0, inverse, torch.arange(len(real)), "amin")
    ordered = real[first, 1:].reshape(len(first), len(plan.cells), 3)
    return Comparison(ordered[..., 0], ordered[..., 1] == 1, ordered[..., 2] == 1), spent
