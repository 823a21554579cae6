"""Check the callback's plain settings."""

from typing import SupportsFloat, SupportsIndex

from lightning_camrobust.errors import ArgumentError


def whole_number(argument: str, value: int, *, least: int) -> int:
    """Return a whole number that is large enough, or refuse it by the argument's name.

    Example:
        >>> whole_number("num_samples", 8, least=1)
        8
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or value < least:
        raise ArgumentError(
            f"CAMRobustnessCallback: `{argument}` must be a whole number of at least {least}, got {value!r}."
        )
    return int(value)


def share_of_one(argument: str, value: float) -> float:
    """Return a number strictly between 0 and 1, or refuse it by the argument's name.

    Example:
        >>> share_of_one("max_time_share", 0.05)
        0.05
    """
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or not 0 < float(value) < 1:
        raise ArgumentError(
            f"CAMRobustnessCallback: `{argument}` must lie strictly between 0 and 1, got {value!r}. 0.05 means 5%."
        )
    return float(value)


def part_of_key(name: str) -> str:
    """Return a name that may stand in a monitor key, or refuse it.

    Example:
        >>> part_of_key("cam")
        'cam'
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise ArgumentError(
            f"CAMRobustnessCallback: `name` must be a word without '/', as it is part of a monitor key; got {name!r}."
        )
    return name
