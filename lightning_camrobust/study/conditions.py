"""Under which conditions outcomes were measured, as plain words, and in what two of them differ."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

Conditions = Mapping[str, str]

# What matters for every pair of outcomes; members matter where they are compared, see `paired`.
ALWAYS = ("similarity", "segmenter", "reduction", "target", "severity_column", "layer_fusion", "seed", "precision")
_SHOWN, _BEFORE = 60, 20


def study_conditions(settings: Mapping[str, Any], *, target_layer: str) -> dict[str, str]:
    """Take out of a manifest's settings what another study must share to be compared with this one.

    Args:
        settings: Of the manifest; what an older one does not hold is left out.
        target_layer: Name of the layer, or of several that are fused, joined by commas.

    Returns:
        ``data`` (the fingerprint of all images) and ``num_images``; the settings of the main reading and of the grid;
        one entry for each ``method LABEL``, ``perturbation LABEL`` and ``reading LABEL``.

    Example:
        >>> settings = {"data": {"num_images": 3}, "grid": {"seed": 0, "methods": {"rise": {"masks": 200}}}}
        >>> study_conditions(settings, target_layer="layer4")
        {'num_images': '3', 'seed': '0', 'method rise': '{"masks": 200}'}
    """
    grid, data = settings.get("grid", {}), settings["data"]
    found = {
        "data": data.get("fingerprint"),
        "num_images": data.get("num_images"),
        **{name: grid.get("reading", {}).get(name) for name in ("similarity", "segmenter", "reduction")},
        **{name: grid.get(name) for name in ("target", "severity_column", "align_geometric", "seed")},
        # One layer has nothing to be fused with.
        "layer_fusion": grid.get("layer_fusion") if "," in target_layer else None,
        "precision": settings.get("precision"),
    }
    for noun in ("method", "perturbation", "reading"):
        found |= {f"{noun} {label}": about for label, about in grid.get(f"{noun}s", {}).items()}
    return {name: _text(value) for name, value in found.items() if value is not None}


def differing(first: Conditions, second: Conditions, names: Iterable[str]) -> list[str]:
    """Say which conditions differ; one that either side does not know is passed over.

    Args:
        first: Of one model.
        second: Of the other.
        names: Which conditions matter.

    Returns:
        One part of a sentence each; long values are cut to where they differ.

    Example:
        >>> differing({"seed": "0", "target": "3"}, {"seed": "1"}, ["seed", "target"])
        ["the seed ('0' in the first, '1' in the second)"]
    """
    return [
        "the {} ({} in the first, {} in the second)".format(
            "pictures themselves, by their fingerprint" if name == "data" else name,
            *_shortened(first[name], second[name]),
        )
        for name in names
        if name in first and name in second and first[name] != second[name]
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shortened(first: str, second: str) -> list[str]:
    """Cut two long values so that the place where they begin to differ is seen."""
    place = next((place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), 0)
    start = max(0, place - _BEFORE) if max(len(first), len(second)) > _SHOWN else 0
    return [
        repr(("..." if start else "") + text[start : start + _SHOWN] + ("..." if len(text) > start + _SHOWN else ""))
        for text in (first, second)
    ]
