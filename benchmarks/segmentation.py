"""(g) Quickshift on the device against scikit-image's."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.networks import pictures
from benchmarks.tables import Table, spread
from benchmarks.timing import in_turns
from lightning_camrobust.segment.quickshift import Quickshift
from lightning_camrobust.segment.quickshift_skimage import QuickshiftSkimage


def measure(*, device: str, rounds: int) -> Table:
    """Time both on 32 photographs, and compare their labels."""
    images = pictures(32).to(device)
    ours, theirs = Quickshift(), QuickshiftSkimage()
    agreement = [_agreement(*pair) for pair in zip(ours(images).cpu(), theirs(images).cpu(), strict=True)]
    times = in_turns({"ours": lambda: ours(images), "theirs": lambda: theirs(images)}, rounds=min(rounds, 3))
    table = Table(
        key="segmentation",
        title="Quickshift",
        columns=["images", "ours, s", "scikit-image, s", "theirs / ours", "agreement, mean", "agreement, worst"],
        text="A batch of 32 photographs at 224 px; scikit-image with a thread for each core. Agreement: share of "
        "pixels with the same label after the best relabelling.",
    )
    ratio = times.ratio("theirs", "ours")
    row = [len(images), times.median("ours"), times.median("theirs"), spread(ratio)]
    table.rows.append([*row, f"{np.mean(agreement):.2%}", f"{min(agreement):.2%}"])
    wanted = 1 if device == "cpu" else 100
    reached = ratio[0] >= wanted and np.mean(agreement) >= 0.99
    table.goal = f"at least {wanted} times as fast, agreement at least 99%: {'reached' if reached else 'missed'}."
    return table


def _agreement(first: Tensor, second: Tensor) -> float:
    counts = torch.zeros(int(first.max()) + 1, int(second.max()) + 1, dtype=torch.int64)
    counts.index_put_((first.flatten(), second.flatten()), torch.tensor(1), accumulate=True)
    rows, columns = linear_sum_assignment(-counts.numpy())
    return float(counts[rows, columns].sum() / first.numel())
