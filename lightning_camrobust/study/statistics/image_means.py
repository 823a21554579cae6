"""Consistency and responsiveness of single images: what tests with images as blocks compare."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Bools, Floats

ImageMeasure = Literal["consistency", "responsiveness"]

# Means of images that differ by less are the same number, summed in another order; tests on ranks take them as tied.
TIE_DECIMALS = 9


def image_means(similarity: Floats, same: Bools, *, measure: ImageMeasure, common_pairs: bool = True) -> Floats:
    """Average the pairs of each image, for each method on its own.

    Whether a prediction survived does not depend on the method, so all methods share the pairs of an image, except
    where a map of one method cannot be ranked. Left as it is, such a method would be spared the noise that broke it,
    often the hardest one, and would be compared on easier pairs than the others. With ``common_pairs`` the methods that
    have a scored pair on an image are therefore averaged over the pairs that all of them could score. A method without
    a scored pair on an image (never drawn there, or never rankable) is NaN there and takes no pair from the others.

    There is no robustness of an image: it is a product that most images, whose prediction never or always changes, do
    not have. The cluster bootstrap compares it.

    Args:
        similarity: ``(images, methods, noises)``; NaN where a map cannot be ranked.
        same: Whether the prediction survived, ``(images, noises)`` bool.
        measure: ``"consistency"`` averages the similarity over the pairs that kept their class; ``"responsiveness"``
            averages 1 - similarity over the pairs that changed it.
        common_pairs: Whether methods are averaged over the same pairs of an image, as paired tests need it; False
            averages each method over all that it could score, which is right for describing one method.

    Returns:
        ``(images, methods)``; NaN where there is no such pair.

    Raises:
        ArgumentError: If shapes do not fit, or there is no such measure.

    Example:
        >>> similarity = np.array([[[0.9, 0.5, 0.2], [0.8, np.nan, 0.4]]])
        >>> same = np.array([[True, True, False]])
        >>> image_means(similarity, same, measure="consistency")
        array([[0.9, 0.8]])
        >>> image_means(similarity, same, measure="consistency", common_pairs=False)
        array([[0.7, 0.8]])
        >>> image_means(similarity, same, measure="responsiveness")
        array([[0.8, 0.6]])
    """
    check_measure(measure, speaker="image_means")
    similarity, same = np.asarray(similarity, dtype=np.float64), np.asarray(same)
    if similarity.ndim != 3 or same.shape != (similarity.shape[0], similarity.shape[2]) or same.dtype != np.bool_:
        raise ArgumentError(
            "image_means: `similarity` must be (images, methods, noises) and `same` boolean (images, noises), got "
            f"{similarity.shape} and {same.dtype} {same.shape}. Take both from one `Outcomes`."
        )
    wanted = same if measure == "consistency" else ~same
    scored = wanted[:, None, :] & ~np.isnan(similarity)
    if common_pairs:
        takes_part = scored.any(axis=2, keepdims=True)
        scored &= (scored | ~takes_part).all(axis=1, keepdims=True)
    worth = similarity if measure == "consistency" else 1.0 - similarity
    count = scored.sum(axis=2)
    total = np.where(scored, worth, 0.0).sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def check_measure(measure: str, *, speaker: str) -> None:
    """Check that a measure is one that single images have.

    Args:
        measure: Its name.
        speaker: Name of the function that was called.

    Raises:
        ArgumentError: If it is another word.

    Example:
        >>> check_measure("consistency", speaker="friedman_test")
    """
    if measure not in get_args(ImageMeasure):
        raise ArgumentError(
            f"{speaker}: `measure` must be 'consistency' or 'responsiveness', got {measure!r}. An image has no "
            "robustness of its own; compare that with a bootstrap over images."
        )


def check_image_means(values: Floats, methods: Sequence[str], *, speaker: str) -> Floats:
    """Check that there is one column a method, all finite or NaN.

    Args:
        values: ``(images, methods)``.
        methods: Labels, each once.
        speaker: Name of the function that was called.

    Returns:
        The values, float64.

    Raises:
        ArgumentError: If shapes do not fit, a label comes twice or a value is infinite.

    Example:
        >>> check_image_means(np.ones((1, 2)), ["gradcam", "eigencam"], speaker="friedman_test").shape
        (1, 2)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(methods):
        raise ArgumentError(
            f"{speaker}: `values` must be (images, methods) with one column for each of the {len(methods)} `methods`, "
            f"got {values.shape}. Make them with `image_means`."
        )
    if len(set(methods)) != len(methods):
        raise ArgumentError(f"{speaker}: `methods` must name each method once, got {list(methods)}. Rename one.")
    if np.isinf(values).any():
        raise ArgumentError(f"{speaker}: `values` must be finite, or NaN where undefined, got an infinite one.")
    return values


def check_level(level: float, *, name: str, speaker: str) -> None:
    """Check that a probability lies strictly between 0 and 1.

    Args:
        level: The probability.
        name: Of the argument.
        speaker: Name of the function that was called.

    Raises:
        ArgumentError: If it does not.

    Example:
        >>> check_level(0.05, name="alpha", speaker="friedman_test")
    """
    if not 0.0 < level < 1.0:
        raise ArgumentError(f"{speaker}: `{name}` must lie strictly between 0 and 1, got {level!r}; try 0.05 or 0.95.")
