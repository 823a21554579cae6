"""Whether a value in ``trainer.callback_metrics`` was measured now, or is an old one that nobody replaced.

Lightning keeps each value there until its key is logged again. A score that is renewed every n-th epoch stands still
in between, and a callback that counts validations takes that for "no improvement".
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """What stands under a key after a validation.

    Attributes:
        value: The number, None if the key never came.
        fresh: Whether it was logged since the last reading.
    """

    value: float | None
    fresh: bool


class FreshValues:
    """Tell fresh values of some keys from old ones, by looking only; several may watch the same key.

    Logging a key puts a new object into the mapping, even for an equal number, and otherwise nothing touches what
    lies there from the start of a validation to its end. So within a validation a key was renewed if and only if
    another object lies there. Between validations, where keys logged in training are renewed, objects say nothing (a
    look at the mapping may replace them by equal ones), but a number that changed was renewed.

    Args:
        keys: What to watch.

    Example:
        >>> watched, metrics = FreshValues(["score"]), {"score": 0.5}
        >>> watched.start(metrics)
        >>> watched.read(metrics)["score"]
        Reading(value=0.5, fresh=True)
        >>> watched.start(metrics)
        >>> watched.read(metrics)["score"]
        Reading(value=0.5, fresh=False)
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        self._held: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def resume(self, known: Mapping[str, Any]) -> None:
        """Take numbers for old ones, as after a training was interrupted.

        Args:
            known: The last number under each key.
        """
        self._last.update({key: float(known[key]) for key in self.keys if key in known})

    def start(self, metrics: Mapping[str, Any]) -> None:
        """Remember what lies there when a validation starts.

        Args:
            metrics: ``trainer.callback_metrics``.
        """
        self._held = {key: metrics[key] for key in self.keys if key in metrics}

    def read(self, metrics: Mapping[str, Any]) -> dict[str, Reading]:
        """Read all keys at the end of a validation.

        Args:
            metrics: ``trainer.callback_metrics``.

        Returns:
            The reading of each key.
        """
        found = {key: self._reading(key, metrics) for key in self.keys}
        self._last.update({key: reading.value for key, reading in found.items() if reading.value is not None})
        self._held = {}
        return found

    def _reading(self, key: str, metrics: Mapping[str, Any]) -> Reading:
        if key not in metrics:
            return Reading(None, fresh=False)
        held = self._held.get(key)
        renewed_before = held is not None and not (key in self._last and _same(float(held), self._last[key]))
        return Reading(float(metrics[key]), fresh=renewed_before or metrics[key] is not held)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
