"""The rows of a study's results: one an image, model, layer, noise and method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_camrobust.study.outcomes import Bools, Floats, Integers, Noise

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST = b"camrobust_study"


@dataclass(frozen=True)
class ImageValues:
    """What was measured on some images.

    Attributes:
        images: Name of each, ``(b,)``.
        labels: True class, ``(b,)``; -1 where it is not known.
        clean_classes: Predicted on the clean image, ``(b,)``.
        noisy_classes: Predicted on its copies, ``(b, noises)``.
        same: Whether the prediction survived, ``(b, noises)``. This is what counts. A perturbation with a reference
            image of its own (LVAT with a codec) is compared with the class predicted on that reference, not with
            ``clean_classes``: the two differ where the codec alone changes the prediction.
        chance: What two uniformly random rankings score on average, ``(b,)``; NaN where that is not known.
        similarity: ``(b, noises, methods)``; NaN where a map cannot be ranked.
        readings: The same under other settings, by label.
    """

    images: Sequence[str]
    labels: Integers
    clean_classes: Integers
    noisy_classes: Integers
    same: Bools
    chance: Floats
    similarity: Floats
    readings: Mapping[str, Floats]


def reading_column(label: str) -> str:
    """Return the name of the column of a further reading.

    Example:
        >>> reading_column("p=0.9")
        'similarity[p=0.9]'
    """
    return f"similarity[{label}]"


def row_schema(readings: Sequence[str], *, digest: str) -> "pa.Schema":
    """Return names and types of the columns.

    Whether a pair kept its class is said by ``same_class`` alone: ``clean_class == noisy_class`` is the same for most
    perturbations, but not for those with a reference image of their own, see :class:`ImageValues`.

    Args:
        readings: Labels of the further readings.
        digest: Of all that determines the numbers.

    Returns:
        The schema, with the digest in its metadata.

    Example:
        >>> row_schema(["p=0.9"], digest="").names[-2:]
        ['similarity', 'similarity[p=0.9]']
    """
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    types = {
        "model": text,
        "target_layer": text,
        "index": pa.int32(),
        "image": text,
        "label": pa.int32(),
        "perturbation": text,
        "severity": pa.int8(),
        "kind": text,
        "method": text,
        "clean_class": pa.int32(),
        "noisy_class": pa.int32(),
        "same_class": pa.bool_(),
        "chance": pa.float64(),
        "similarity": pa.float64(),
        **{reading_column(label): pa.float64() for label in readings},
    }
    return pa.schema(list(types.items()), metadata={DIGEST: digest.encode()})


def place_columns(
    model: str, target_layer: str, images: Iterable[int], noises: Sequence[Noise], methods: Sequence[str]
) -> dict[str, NDArray[np.generic]]:
    """Say of each row where it belongs: images, then noises, then methods.

    Args:
        model: Name.
        target_layer: Name.
        images: Their indices.
        noises: Every perturbation at every severity.
        methods: Labels of the CAM methods.

    Returns:
        The columns ``model``, ``target_layer``, ``index``, ``perturbation``, ``severity``, ``kind``, ``method``.

    Example:
        >>> columns = place_columns("net", "layer4", [7], [Noise("fog", 1), Noise("fog", 5)], ["gradcam", "eigencam"])
        >>> list(zip(*(columns[name].tolist() for name in ("index", "severity", "method"))))
        [(7, 1, 'gradcam'), (7, 1, 'eigencam'), (7, 5, 'gradcam'), (7, 5, 'eigencam')]
    """
    indices = np.asarray(list(images))
    rows = len(indices) * len(noises) * len(methods)

    def of_noise(values: Iterable[object]) -> NDArray[np.generic]:
        return np.tile(np.repeat(np.asarray(list(values)), len(methods)), len(indices))

    return {
        "model": np.full(rows, model),
        "target_layer": np.full(rows, target_layer),
        "index": np.repeat(indices, len(noises) * len(methods)),
        "perturbation": of_noise(noise.perturbation for noise in noises),
        "severity": of_noise(noise.severity for noise in noises),
        "kind": of_noise(noise.kind for noise in noises),
        "method": np.tile(np.asarray(methods), len(indices) * len(noises)),
    }


def make_rows(place: Mapping[str, NDArray[np.generic]], values: ImageValues, schema: "pa.Schema") -> "pa.Table":
    """Lay values out in rows.

    Args:
        place: From :func:`place_columns`, for these images.
        values: What was measured on them.
        schema: From :func:`row_schema`.

    Returns:
        The table.
    """
    import pyarrow as pa

    _, noises, methods = values.similarity.shape

    def of_image(column: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.repeat(column, noises * methods)

    columns: dict[str, NDArray[np.generic]] = {
        **place,
        "image": of_image(np.asarray(values.images)),
        "label": of_image(values.labels),
        "clean_class": of_image(values.clean_classes),
        "noisy_class": np.repeat(values.noisy_classes.ravel(), methods),
        "same_class": np.repeat(values.same.ravel(), methods),
        "chance": of_image(values.chance),
        "similarity": values.similarity.ravel(),
        **{reading_column(label): reading.ravel() for label, reading in values.readings.items()},
    }
    # NaN says that there is no value, and in a table that is a null.
    arrays = [
        pa.array(columns[field.name], from_pandas=pa.types.is_floating(field.type)).cast(field.type) for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
