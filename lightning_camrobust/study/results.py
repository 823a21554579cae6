"""Read what a study measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.conditions import study_conditions
from lightning_camrobust.study.manifest import MANIFEST, Manifest, read_manifest
from lightning_camrobust.study.outcomes import Floats, Noise, Outcomes
from lightning_camrobust.study.rows import place_columns, reading_column, row_schema
from lightning_camrobust.study.shards import RESULTS, cut_into_shards, missing_shards

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def load_manifest(folder: str | Path) -> Manifest:
    """Read what a study says of itself: settings, hashes, versions, times.

    Args:
        folder: Of the study.

    Returns:
        Plain data: ``settings``, ``digest`` of them, ``sessions``, ``seconds`` by model and target layer.

    Raises:
        ArgumentError: If there is no study, or its manifest is damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArgumentError(
            f"load_manifest: the folder {folder} holds no study (there is no {MANIFEST}). Name the folder that "
            "run_study or `camrobust study` wrote."
        )
    return manifest


def load_outcomes(folder: str | Path) -> list[Outcomes]:
    """Read the results of a finished study.

    Args:
        folder: Of the study.

    Returns:
        One entry a model and target layer, in the order of the study. ``same`` is the column ``same_class`` as it was
        measured, never a comparison of the columns of classes; see
        :class:`~lightning_camrobust.study.rows.ImageValues`.

    Raises:
        ArgumentError: If the study is not finished, or its files do not belong together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    manifest = load_manifest(folder)
    settings = manifest["settings"]
    schema = row_schema(settings["readings"], digest=manifest["digest"])
    path = folder / RESULTS
    if not path.is_file():
        raise _unfinished(folder, settings, schema)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if file.schema_arrow.metadata != schema.metadata or not file.schema_arrow.equals(schema):
            raise _damaged(path, "it was made with other settings than the manifest says")
        return [
            _outcomes(file, number, model, layer, settings, path=path)
            for number, (model, layer) in enumerate(_parts(settings))
        ]
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error


def _parts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return [(model, layer) for model, about in settings["models"].items() for layer in about["target_layers"]]


def _outcomes(
    file: "pq.ParquetFile", number: int, model: str, layer: str, settings: dict[str, Any], *, path: Path
) -> Outcomes:
    groups = -(-settings["data"]["num_images"] // settings["shard_size"])
    if file.num_row_groups != groups * len(_parts(settings)):
        raise _damaged(path, f"it has {file.num_row_groups} row groups")
    rows = file.read_row_groups(list(range(number * groups, (number + 1) * groups)))
    methods, noises = settings["methods"], [Noise(*each) for each in settings["noises"]]
    shape = (settings["data"]["num_images"], len(noises), len(methods))
    _check_order(rows, place_columns(model, layer, range(shape[0]), noises, methods), path=path)

    def cells(name: str) -> NDArray[Any]:
        return np.asarray(rows[name].to_numpy()).reshape(shape)

    def similarities(name: str) -> Floats:
        return np.ascontiguousarray(cells(name).astype(np.float64).transpose(0, 2, 1))

    return Outcomes(
        model=model,
        target_layer=layer,
        data=settings["data"]["name"],
        images=tuple(rows["image"][:: shape[1] * shape[2]].to_pylist()),
        labels=cells("label")[:, 0, 0].astype(np.int64),
        methods=tuple(methods),
        noises=tuple(noises),
        clean_classes=cells("clean_class")[:, 0, 0].astype(np.int64),
        noisy_classes=cells("noisy_class")[:, :, 0].astype(np.int64),
        same=cells("same_class")[:, :, 0].astype(bool),
        similarity=similarities("similarity"),
        chance=cells("chance")[:, 0, 0].astype(np.float64),
        readings={label: similarities(reading_column(label)) for label in settings["readings"]},
        conditions=study_conditions(settings, target_layer=layer),
    )


def _check_order(rows: "pa.Table", expected: Mapping[str, NDArray[Any]], *, path: Path) -> None:
    """Make sure that every row stands where it is expected, before arrays are made of them by position."""
    for name, values in expected.items():
        if len(rows) != len(values) or not np.array_equal(rows[name].to_numpy(), values):
            raise _damaged(path, f"rows are missing or out of order in column {name!r}")


def _unfinished(folder: Path, settings: dict[str, Any], schema: "pa.Schema") -> ArgumentError:
    layers = {model: about["target_layers"] for model, about in settings["models"].items()}
    shards = cut_into_shards(layers, num_images=settings["data"]["num_images"], shard_size=settings["shard_size"])
    cells = len(settings["noises"]) * len(settings["methods"])
    missing = missing_shards(folder, shards, schema=schema, cells=cells)
    return ArgumentError(
        f"load_outcomes: the study in {folder} is not finished, {len(missing)} of {len(shards)} shards are missing. "
        "Run the same command again: it goes on where it stopped."
    )


def _damaged(path: Path, why: str) -> ArgumentError:
    return ArgumentError(
        f"load_outcomes: {path} cannot be used: {why}. Delete it and run the same command again; it is put together "
        "anew from the shards."
    )
