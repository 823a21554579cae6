"""The settings under which a study asks whether its conclusion still holds: one changed at a time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.reading import Reading
from lightning_camrobust.study.description import describe_member

_PATIENCES = (0.2, 0.5, 0.8, 0.9)
_TIES = ("b", "a", "w", "stable")
_SEGMENTERS = ("quickshift", "slic", "grid")
_REDUCTIONS = ("mean", "sum", "max")
_TARGETS = ("predicted", "original")


def sensitivity_readings(main: Reading) -> dict[str, Reading]:
    """List other ways to read the same maps.

    Args:
        main: The study's own.

    Returns:
        By label, each differing from ``main`` in one thing: RBO's p and tie rule (if the similarity is RBO), the
        segmenter, what stands for a segment, and whose class is explained on noisy images.

    Example:
        >>> from lightning_camrobust.reading import make_reading
        >>> list(sensitivity_readings(make_reading()))[:4]
        ['p=0.5', 'p=0.8', 'p=0.9', 'ties=a']
    """
    found: dict[str, Reading] = {}
    if isinstance(main.similarity, RankBiasedOverlap):
        for p in _PATIENCES:
            found[f"p={p}"] = replace(main, similarity=replace(main.similarity, p=p))
        for ties in _TIES:
            changed = replace(main.similarity, ties=ties)  # type: ignore[arg-type]
            found[f"ties={ties}"] = replace(main, similarity=changed)
    if not getattr(main.similarity, "of_maps", False):
        for name in _SEGMENTERS:
            found[f"segmenter={name}"] = replace(main, segmenter=resolve_member("segment", name))
        for reduction in _REDUCTIONS:
            found[f"reduction={reduction}"] = replace(main, reduction=reduction)  # type: ignore[arg-type]
    for target in _TARGETS:
        found[f"target={target}"] = replace(main, target=target)  # type: ignore[arg-type]
    return {label: reading for label, reading in found.items() if reading != main}


def resolve_readings(readings: str | Mapping[str, Reading], main: Reading) -> dict[str, Reading]:
    """Turn what a user says into readings.

    Args:
        readings: ``"sensitivity"``, ``"none"``, or readings by label.
        main: The study's own.

    Returns:
        By label.

    Raises:
        ArgumentError: If it is another word.

    Example:
        >>> from lightning_camrobust.reading import make_reading
        >>> resolve_readings("none", make_reading())
        {}
    """
    if isinstance(readings, Mapping):
        return dict(readings)
    if readings not in ("sensitivity", "none"):
        raise ArgumentError(
            f"StudyGrid: `readings` must be 'sensitivity' (all usual settings), 'none', or readings by label; "
            f"got {readings!r}."
        )
    return sensitivity_readings(main) if readings == "sensitivity" else {}


def describe_reading(reading: Reading) -> dict[str, Any]:
    """Write a reading as plain data.

    Args:
        reading: Any.

    Returns:
        Similarity and segmenter with their settings, reduction, target rule.

    Example:
        >>> from lightning_camrobust.reading import make_reading
        >>> describe_reading(make_reading())["similarity"]
        {'name': 'rbo', 'p': 0.2, 'ties': 'b'}
    """
    return {
        "similarity": describe_member(reading.similarity),
        "segmenter": describe_member(reading.segmenter),
        "reduction": reading.reduction,
        "target": reading.target,
    }
