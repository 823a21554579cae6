"""Shards: the results of a few images each, in Parquet files that are either whole or not there."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from lightning_camrobust.study.rows import DIGEST
from lightning_camrobust.study.storage import written_whole

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS = "shards"
RESULTS = "results.parquet"
# Disks take names of 255 bytes, encrypted ones 143. Of a longer name the start is kept, and a hash.
_LONGEST, _KEPT = 120, 100


@dataclass(frozen=True)
class Shard:
    """A few images in a row, measured with one model and target layer.

    Attributes:
        model: Its name in the study.
        target_layer: Dotted name.
        number: 0, 1, ... in the order of the images.
        start: Index of the first image.
        stop: Index behind the last one.
    """

    model: str
    target_layer: str
    number: int
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        """Return the file that it belongs into, in the folder of a study."""
        return (
            folder / SHARDS / _folder_name(self.model) / _folder_name(self.target_layer) / f"{self.number:06d}.parquet"
        )


def cut_into_shards(layers: Mapping[str, Sequence[str]], *, num_images: int, shard_size: int) -> list[Shard]:
    """Cut a study into shards, in the order of its rows.

    Args:
        layers: Names of the target layers of each model.
        num_images: Images in the data set.
        shard_size: Images in one shard; the last one may hold fewer.

    Returns:
        All shards of the study.

    Example:
        >>> shards = cut_into_shards({"net": ["layer4"]}, num_images=3, shard_size=2)
        >>> [(shard.number, shard.start, shard.stop) for shard in shards]
        [(0, 0, 2), (1, 2, 3)]
    """
    return [
        Shard(model, layer, number, start, min(start + shard_size, num_images))
        for model, names in layers.items()
        for layer in names
        for number, start in enumerate(range(0, num_images, shard_size))
    ]


def write_shard(folder: Path, shard: Shard, rows: "pa.Table") -> None:
    """Write a shard's file.

    Args:
        folder: Of the study.
        shard: Which one.
        rows: Its results.

    Raises:
        StudyFolderError: If the disk is full or the folder cannot be written to; other shards stay as they are.
    """
    import pyarrow.parquet as pq

    with written_whole(shard.path(folder)) as part:
        pq.write_table(rows, part, row_group_size=len(rows), write_page_checksum=True)


def missing_shards(folder: Path, shards: Sequence[Shard], *, schema: "pa.Schema", cells: int) -> list[Shard]:
    """Say which shards have to be measured (again).

    Args:
        folder: Of the study.
        shards: All shards.
        schema: Of the rows.
        cells: Rows of one image: noises times methods.

    Returns:
        Those without a whole file, in order.
    """
    return [shard for shard in shards if not _is_whole(shard, folder, schema, cells)]


def is_merged(folder: Path, *, digest: str) -> bool:
    """Say whether the results of a study are put together already.

    Args:
        folder: Of the study.
        digest: Of its settings.

    Returns:
        Whether ``results.parquet`` is there, can be read, and is of this very study.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(folder / RESULTS).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return bool(metadata.get(DIGEST) == digest.encode())


def merge_shards(folder: Path, shards: Sequence[Shard], *, schema: "pa.Schema") -> Path:
    """Put all shards into one file, one row group each; call it when none is missing.

    Args:
        folder: Of the study.
        shards: All of them, in the order of the rows.
        schema: Of the rows.

    Returns:
        ``results.parquet``.

    Raises:
        StudyFolderError: If it cannot be written; a former one stays as it is.
    """
    import pyarrow.parquet as pq

    path = folder / RESULTS
    with written_whole(path) as part, pq.ParquetWriter(part, schema, write_page_checksum=True) as writer:
        for shard in shards:
            rows = pq.read_table(shard.path(folder), page_checksum_verification=True, partitioning=None)
            writer.write_table(rows, row_group_size=len(rows))
    return path


def _is_whole(shard: Shard, folder: Path, schema: "pa.Schema", cells: int) -> bool:
    """Tell whether a file holds all rows of a shard, undamaged and of this very study."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard.path(folder)
    if not path.is_file():
        return False
    try:
        rows = pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except (OSError, pa.ArrowException):
        return False
    if not rows.schema.equals(schema) or (rows.schema.metadata or {}).get(DIGEST) != schema.metadata[DIGEST]:
        return False
    indices = np.repeat(np.arange(shard.start, shard.stop), cells)
    return (
        np.array_equal(rows["index"].to_numpy(), indices)
        and rows["model"].unique().to_pylist() == [shard.model]
        and rows["target_layer"].unique().to_pylist() == [shard.target_layer]
    )


def _folder_name(name: str) -> str:
    """Turn a name into one that a folder can have, different for different names."""
    safe = quote(name, safe=" ,()[]=")
    if len(safe) > _LONGEST:
        # A plus sign is quoted otherwise, so that no short name is like it.
        safe = f"{safe[:_KEPT]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return safe if safe.strip(".") else safe.replace(".", "%2E")
