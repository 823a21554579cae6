"""Logged values that a decision of all processes rests on: fresh or old, and the same number everywhere."""

from collections.abc import Mapping
from typing import Any

import torch

from lightning_camrobust.errors import ArgumentError, nearest_names
from lightning_camrobust.freshness import FreshValues, Reading
from lightning_camrobust.trainers import gather_rows

_SCORES = ("robustness", "consistency", "responsiveness", "flip_rate", "degenerate_rate", "num_images", "seconds")
_SCORES_OF_CELLS = ("robustness", "consistency", "flip_rate")


class MonitoredValues:
    """Read some keys of a trainer at the end of each validation of a fit, alike on all processes.

    Args:
        keys: The argument that named each key, and the key.
        speaker: Who asks, for messages.

    Attributes:
        known: The last number under each key, for checkpoints.
    """

    def __init__(self, keys: Mapping[str, str], *, speaker: str) -> None:
        self.known: dict[str, float] = {}
        self._keys = dict(keys)
        self._speaker = speaker
        self._values = FreshValues(dict.fromkeys(self._keys.values()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, each once."""
        return self._values.keys

    def resume(self, known: Mapping[str, float]) -> None:
        """Take up the last number under each key from a checkpoint; it is known, and no new one."""
        self.known = dict(known)
        self._values.resume(known)

    def begin(self, trainer: Any) -> None:
        """Call it when a training starts; scores that a callback of ours puts back after a resume are no new ones."""
        for each in trainer.callbacks:
            self._values.resume(getattr(each, "standing", {}))

    def start(self, trainer: Any) -> None:
        """Call it when a validation starts."""
        self._values.start(trainer.callback_metrics)

    def read(self, trainer: Any) -> dict[str, Reading]:
        """Call it when a validation ended, on every process; with several processes, they exchange one message.

        Args:
            trainer: The trainer.

        Returns:
            The reading of each key. Where processes hold different numbers it is their mean, as ``sync_dist=True``
            would log, and NaN if one of them is NaN.
        """
        found = agree(trainer, self._values.read(trainer.callback_metrics))
        # A value that was known before the training was resumed is still known.
        found = {key: _recall(reading, self.known.get(key)) for key, reading in found.items()}
        self.known.update({key: reading.value for key, reading in found.items() if reading.value is not None})
        return found

    def missing(self, trainer: Any, found: Mapping[str, Reading]) -> str | None:
        """Describe a key that never came, and that no callback of ours is about to bring.

        Args:
            trainer: The trainer.
            found: What `read` returned.

        Returns:
            The text of an error, or None if all is well.
        """
        for argument, key in self._keys.items():
            if found[key].value is None and not any(may_log(each, key) for each in trainer.callbacks):
                return (
                    f"{self._speaker}: `{argument}` must be the key of a value that is logged before the validation "
                    f"ends, got {key!r}, which was not logged. Nearest there: "
                    f"{nearest_names(key, trainer.callback_metrics)}. Correct the name, log it in validation_step "
                    f"with self.log({key!r}, ...), or, for a score of ours, give the trainer a CAMRobustnessCallback."
                )
        return None

    def refuse_missing(self, trainer: Any, found: Mapping[str, Reading]) -> None:
        """Raise if a key never came.

        Raises:
            ArgumentError: With the nearest keys that did come.
        """
        text = self.missing(trainer, found)
        if text is not None:
            raise ArgumentError(text)


def agree(trainer: Any, found: Mapping[str, Reading]) -> dict[str, Reading]:
    """Make the readings of all processes one, the same on each of them.

    Args:
        trainer: The trainer.
        found: What this process read.

    Returns:
        A key is fresh if it is on one process; the number is the mean over those on which it is fresh (if none, on
        which it is there), and the very number where they are equal. On one process: what was given.
    """
    if trainer.world_size == 1:
        return dict(found)
    flat = [part for each in found.values() for part in (each.value or 0.0, each.value is not None, each.fresh)]
    rows = gather_rows(trainer, torch.tensor([flat], dtype=torch.float64)).reshape(-1, len(found), 3)
    return {key: _merge(rows[:, index].tolist()) for index, key in enumerate(found)}


def may_log(callback: Any, key: str) -> bool:
    """Tell whether a callback of ours brings a value under a key in a validation, if there is one to bring.

    Args:
        callback: Any callback.
        key: The key.

    Returns:
        The answer.
    """
    if getattr(callback, "combined_key", None) == key:
        return True
    if not any(kind.__name__ == "CAMRobustnessCallback" for kind in type(callback).__mro__):
        return False
    name = callback.name
    if key in {f"val_{name}_{score}" for score in _SCORES}:
        return True
    score, _, cell = key.partition("/")
    if score not in {f"{name}_{each}" for each in _SCORES_OF_CELLS}:
        return False
    measured = None if callback.report is None else callback.report["cells"]
    return measured is None or cell in {f"{row['method']}/{row['perturbation']}/{row['severity']}" for row in measured}


def _merge(rows: list[list[float]]) -> Reading:
    fresh = [value for value, _, renewed in rows if renewed]
    values = fresh or [value for value, there, _ in rows if there]
    if not values:
        return Reading(None, fresh=False)
    equal = all(value == values[0] for value in values)
    return Reading(values[0] if equal else sum(values) / len(values), fresh=bool(fresh))


def _recall(reading: Reading, known: float | None) -> Reading:
    return reading if reading.value is not None else Reading(known, fresh=False)
