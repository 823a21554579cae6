"""CSV: files in a folder beside ``metrics.csv``."""

from typing import Any

from lightning_camrobust.report.drawing import png_bytes
from lightning_camrobust.report.naming import own_key
from lightning_camrobust.report.publication import Publication

LOGGER = "CSVLogger"


def introduce(logger: Any, publication: Publication) -> None:
    """Write the card.

    Args:
        logger: Lightning's.
        publication: The first one.
    """
    _write(logger, publication, {"about.md": publication.card.encode()})


def publish(logger: Any, publication: Publication) -> None:
    """Write pictures and per-image numbers.

    Args:
        logger: Lightning's.
        publication: What to show.
    """
    files = {f"{publication.stem}-{name}.png": png_bytes(pixels) for name, pixels in publication.pictures.items()}
    files[f"{publication.stem}-per-image.csv"] = publication.table.encode()
    _write(logger, publication, files)


def _write(logger: Any, publication: Publication, files: dict[str, bytes]) -> None:
    # Lightning writes metrics.csv through fsspec, also to a bucket; the files beside it go the same way.
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    disk, start = url_to_fs(logger.log_dir)
    folder = f"{start}/{own_key(logger, publication.folder)}"
    disk.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        with disk.open(f"{folder}/{name}", "wb") as file:
            file.write(content)
