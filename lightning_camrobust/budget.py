"""Keep the probe under a share of the training time."""

import time
from dataclasses import dataclass

# Fewer images make a curve that nobody can read.
FEWEST_IMAGES = 4


class TrainingClock:
    """Seconds of training since the last probe.

    Example:
        >>> clock = TrainingClock()
        >>> clock.start()
        >>> clock.stop()
        >>> clock.take() > 0, clock.take()
        (True, 0.0)
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Training goes on."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Training pauses."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def take(self) -> float:
        """Return the seconds, and begin at 0 again."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


@dataclass(frozen=True)
class TimeBudget:
    """What a probe may cost, and what it did cost.

    Attributes:
        max_share: Share of the training time, in (0, 1).
        training_seconds: Training time from one probe to the next.
        probe_seconds: What a probe took, without what is only done once.

    Example:
        >>> budget = TimeBudget(max_share=0.05, training_seconds=20.0, probe_seconds=2.0)
        >>> budget.affordable(images=32), budget.share(seconds=2.0)
        (16, 0.1)
    """

    max_share: float
    training_seconds: float
    probe_seconds: float = 0.0

    def affordable(self, *, images: int) -> int:
        """Say how many of the probed images fit: all of them if they do, and at least 4 (or all there are)."""
        allowed = self.max_share * self.training_seconds
        fitting = images if self.probe_seconds <= allowed else int(images * allowed / self.probe_seconds)
        return min(images, max(fitting, FEWEST_IMAGES))

    def share(self, *, seconds: float) -> float:
        """Express seconds as a share of the training time."""
        return seconds / self.training_seconds if self.training_seconds > 0 else float("inf")
