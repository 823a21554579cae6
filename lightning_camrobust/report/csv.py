"""CSV: files in a folder beside ``metrics.csv``."""

from typing import Any

from lightning_camrobust.report.drawing import png_bytes
from lightning_camrobust.report.naming import own_key, unused_stem
from lightning_camrobust.report.publication import Publication

LOGGER = "CSVLogger"


def introduce(logger: Any, publication: Publication) -> None:
    """Write the card.

    Args:
        logger: Lightning's.
        publication: The first one.
    """
    disk, folder = _folder(logger, publication)
    disk.pipe_file(f"{folder}/about.md", publication.card.encode())


def publish(logger: Any, publication: Publication) -> None:
    """Write per-image numbers and pictures.

    Args:
        logger: Lightning's.
        publication: What to show.
    """
    disk, folder = _folder(logger, publication)
    stem = unused_stem(publication.stem, disk.find(folder, maxdepth=1))
    disk.pipe_file(f"{folder}/{stem}-per-image.csv", publication.table.encode())
    for name, pixels in publication.pictures.items():
        disk.pipe_file(f"{folder}/{stem}-{name}.png", png_bytes(pixels))


def _folder(logger: Any, publication: Publication) -> tuple[Any, str]:
    # Lightning writes metrics.csv through fsspec, also to a bucket; the files beside it go the same way.
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    disk, start = url_to_fs(logger.log_dir)
    folder = f"{start}/{own_key(logger, publication.folder)}"
    disk.makedirs(folder, exist_ok=True)
    return disk, folder
