"""Time jobs side by side: in turns, so that whatever else the machine does falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timings:
    """Seconds of each job in each round.

    Attributes:
        seconds: By job, one entry a round.
    """

    seconds: dict[str, list[float]]

    def median(self, job: str) -> float:
        """Median seconds of a job."""
        return statistics.median(self.seconds[job])

    def ratio(self, job: str, reference: str) -> tuple[float, float, float]:
        """Median, lower and upper quartile of the ratio of two jobs, round by round."""
        pairs = zip(self.seconds[job], self.seconds[reference], strict=True)
        ratios = sorted(mine / other for mine, other in pairs)
        if len(ratios) < 2:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


def in_turns(jobs: Mapping[str, Callable[[], object]], *, rounds: int, warmups: int = 1) -> Timings:
    """Run all jobs once a round, each round in the opposite order of the one before.

    Args:
        jobs: What to time, by name.
        rounds: How often.
        warmups: Rounds before, not counted.

    Returns:
        The timings.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warmups + rounds):
        for name in list(jobs) if turn % 2 else list(reversed(jobs)):
            elapsed = once(jobs[name])
            if turn >= warmups:
                seconds[name].append(elapsed)
    return Timings(seconds)


def once(job: Callable[[], object]) -> float:
    """Seconds that a job takes, until an accelerator has finished it as well."""
    wait()
    start = time.perf_counter()
    job()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    """Let the accelerator finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
