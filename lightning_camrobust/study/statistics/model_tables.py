"""Tables of images by methods of several models, put side by side."""

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Floats
from lightning_camrobust.study.statistics.image_means import check_image_means


def stack_models(values: Mapping[str, Floats], methods: Sequence[str], *, speaker: str) -> Floats:
    """Put the tables of all models into one array.

    Args:
        values: For each model ``(images, methods)``, row i being the same image for all.
        methods: Labels.
        speaker: Name of the function that was called.

    Returns:
        ``(images, models, methods)``.

    Raises:
        ArgumentError: If there is no model or method, or shapes do not fit.

    Example:
        >>> stack_models({"a": np.ones((5, 2)), "b": np.ones((5, 2))}, ["x", "y"], speaker="mixed_comparison").shape
        (5, 2, 2)
    """
    tables = [check_image_means(table, methods, speaker=f"{speaker}, model {name!r}") for name, table in values.items()]
    if not tables or not methods or len({len(table) for table in tables}) > 1:
        raise ArgumentError(
            f"{speaker}: `values` must hold at least one model, `methods` one method, and all models the same images "
            f"in the same order, got {[table.shape for table in tables]}. Keep the images they share."
        )
    return np.stack(tables, axis=1)


def first_copies(stacked: Floats) -> list[int]:
    """Find for each method the first one that it equals everywhere, up to 1e-9.

    Args:
        stacked: ``(images, models, methods)``.

    Returns:
        Indices ``(methods)``; its own for a method that is no copy.

    Example:
        >>> first_copies(np.array([[[0.1, 0.2, 0.1]]]))
        [0, 1, 0]
    """
    sources: list[int] = []
    for index in range(stacked.shape[2]):
        column = stacked[:, :, index]
        earlier = (
            first
            for first in sorted(set(sources))
            if np.allclose(stacked[:, :, first], column, rtol=0, atol=1e-9, equal_nan=True)
        )
        sources.append(next(earlier, index))
    return sources


def duplicate_methods(values: Mapping[str, Floats], methods: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Group the methods that have the same values on every image and model, up to rounding.

    Args:
        values: For each model ``(images, methods)``.
        methods: Labels.

    Returns:
        Groups of two or more, in the order of `methods`.

    Raises:
        ArgumentError: If shapes do not fit.

    Example:
        >>> duplicate_methods({"resnet": np.array([[0.1, 0.2, 0.1]])}, ["gradcam", "eigencam", "hirescam"])
        (('gradcam', 'hirescam'),)
    """
    sources = first_copies(stack_models(values, methods, speaker="duplicate_methods"))
    groups = [
        tuple(method for method, source in zip(methods, sources, strict=True) if source == first)
        for first in sorted(set(sources))
    ]
    return tuple(group for group in groups if len(group) > 1)
