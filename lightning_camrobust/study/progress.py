"""A bar that says how much of a study is done, and how long the rest takes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


class StudyProgress:
    """Shows images done, of all models and target layers together. It travels to other processes before it starts.

    Args:
        total: Images of all models and layers together.
        done: How many of them were measured in earlier sessions.
    """

    def __init__(self, *, total: int, done: int) -> None:
        self._total, self._done, self._what = total, done, "images,"
        self._bar: Progress | None = None
        self._task: Any = None

    def narrow(self, total: int) -> None:
        """Show one of several processes only: nobody knows how far the others are.

        Args:
            total: Images that this process measures.
        """
        self._total, self._done, self._what = total, 0, "images of this process,"

    def start(self) -> None:
        """Show the bar, among the messages and not in what the command prints."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        # Chunks can take minutes, so the speed is taken from the whole session.
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._what),
            TimeElapsedColumn(),
            TextColumn("spent,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            speed_estimate_period=7 * 24 * 3600,
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("study", total=self._total, completed=self._done)
        self._bar.start()

    def show(self, what: str) -> None:
        """Say what is measured now."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def advance(self, images: int) -> None:
        """Add images that were measured just now."""
        if self._bar is not None:
            self._done = min(self._total, self._done + images)
            self._bar.update(self._task, completed=self._done)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
