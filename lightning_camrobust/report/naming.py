"""What our keys are called in a logger of the user's: with its prefix and with its own separator of groups."""

from collections.abc import Iterable
from itertools import count
from typing import Any


def group_separator(logger: Any) -> str:
    """Tell what a logger puts between the parts of a key.

    Args:
        logger: Any logger.

    Returns:
        ``"/"`` where it says nothing else.

    Example:
        >>> group_separator(object())
        '/'
    """
    found = getattr(logger, "group_separator", "/")
    return found if isinstance(found, str) and found else "/"


def regrouped(logger: Any, key: str) -> str:
    """Write a key with the logger's own separator; the prefix is left to the logger.

    Args:
        logger: Any logger.
        key: With ``/`` between its parts.

    Returns:
        The key, as ``logger.log_metrics`` is to get it.

    Example:
        >>> regrouped(object(), "cam_robustness/gradcam/fog/1")
        'cam_robustness/gradcam/fog/1'
    """
    return key.replace("/", group_separator(logger))


def own_key(logger: Any, key: str) -> str:
    """Write a key as it stands in the logger's files in the end, like the scalars beside it.

    Args:
        logger: Any logger.
        key: With ``/`` between its parts.

    Returns:
        The key with the logger's prefix and separator.

    Example:
        >>> from types import SimpleNamespace
        >>> own_key(SimpleNamespace(_prefix="run", LOGGER_JOIN_CHAR="-", group_separator="."), "cam_robustness/images")
        'run-cam_robustness.images'
    """
    prefix = getattr(logger, "_prefix", "")
    join = getattr(logger, "LOGGER_JOIN_CHAR", "-")
    return f"{prefix}{join}{regrouped(logger, key)}" if prefix else regrouped(logger, key)


def unused_stem(stem: str, paths: Iterable[str]) -> str:
    """Number a run whose files would overwrite those of another: validations can share epoch and step.

    Args:
        stem: What its files are to begin with.
        paths: Of the files that are there; every run has one that ends in ``-per-image.csv``.

    Returns:
        The stem, with ``-2``, ``-3`` and so on behind it if it is taken.

    Example:
        >>> unused_stem("step=3", ["run/step=30-per-image.csv"])
        'step=3'
        >>> unused_stem("step=3", ["run/step=3-per-image.csv", "run/step=3-2-per-image.csv"])
        'step=3-3'
    """
    taken = {path.rsplit("/", 1)[-1].removesuffix("-per-image.csv") for path in paths}
    stems = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(each for each in stems if each not in taken)
