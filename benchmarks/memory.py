"""(f) Peak memory of a probe against that of a forward."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.jobs import Subject, probe_job, six_method_plan, subject
from benchmarks.tables import Table


def measure(*, device: str) -> Table:
    """Record every allocation of one probe and of one forward."""
    count = 32
    table = Table(
        key="memory",
        title="Peak memory",
        columns=["network", "forward, MiB", "probe, MiB", "ratio"],
        text=f"{count} images at 224 px. What is allocated at the same time at most, from the allocator's own record; "
        "the images themselves and the weights are there before.",
    )
    for name in ("ResNet-18", "ResNet-50", "VGG-11"):
        on = subject(name, count=count, device=device)
        forward, whole = peak(lambda on=on: _forward(on)), peak(probe_job(on, six_method_plan()))
        table.rows.append([name, round(forward / 2**20, 1), round(whole / 2**20, 1), whole / forward])
    reached = all(row[-1] <= 1.1 for row in table.rows)
    table.goal = f"at most 1.1: {'reached' if reached else 'missed by some'}."
    for row in table.rows:
        row[-1] = f"{row[-1]:.3f}"
    return table


def peak(job: Callable[[], Any]) -> int:
    """Bytes that a job holds at most, beyond what was there before."""
    job()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        job()
    held = highest = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def _forward(on: Subject) -> None:
    with torch.inference_mode():
        on.model(on.images)
