"""What our keys are called in a logger of the user's: with its prefix and with its own separator of groups."""

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
