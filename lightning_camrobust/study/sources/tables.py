"""Read the true classes of images from a CSV file."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.sources.labels import whole_number

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
_LABEL_COLUMNS = ("label", "class", "target")


def labels_from_table(files: Sequence[str], table: Path) -> list[int]:
    """Read labels from a CSV file.

    Args:
        files: Paths relative to the folder, with slashes.
        table: Columns ``file,label``, with a heading or without; one row an image.

    Returns:
        One label a file.

    Raises:
        ArgumentError: If it is no such table, or images and rows do not belong together one to one.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"open_images: `labels` {str(table)!r} cannot be read as a CSV file: {error}.") from error
    file_column, label_column, rows = _columns(rows, table)
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"row {number} of {table.name!r}"
        if len(row) <= max(file_column, label_column):
            raise ArgumentError(f"open_images: {where} has {len(row)} columns: {row!r:.100}. Write file,label.")
        file = row[file_column].strip().replace("\\", "/").removeprefix("./")
        if file in labels:
            raise ArgumentError(f"open_images: {where} names {file!r} a second time. Keep one row an image.")
        labels[file] = whole_number(row[label_column].strip(), where=where)
    _check_one_to_one(files, labels, table)
    return [labels[file] for file in files]


def _columns(rows: list[list[str]], table: Path) -> tuple[int, int, list[list[str]]]:
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    file = [place for place, cell in enumerate(heading) if cell in _FILE_COLUMNS]
    label = [place for place, cell in enumerate(heading) if cell in _LABEL_COLUMNS]
    if len(file) == 1 and len(label) == 1:
        return file[0], label[0], rows[1:]
    if len(heading) == 2 and re.fullmatch(r"-?\d+", heading[1]):
        return 0, 1, rows
    raise ArgumentError(
        f"open_images: `labels` {str(table)!r} must have the columns file,label; its first row is {heading!r:.120}. "
        "Write the heading file,label above the columns to be used."
    )


def _check_one_to_one(files: Sequence[str], labels: dict[str, int], table: Path) -> None:
    unlabelled = sorted(set(files) - set(labels))
    if unlabelled:
        raise ArgumentError(
            f"open_images: {len(unlabelled)} of {len(files)} images have no row in {table.name!r}, which has "
            f"{len(labels)} ({unlabelled[0]!r} is the first). Name files as they lie in the folder, such as "
            f"{files[0]!r}; write -1 where the class is not known."
        )
    extra = sorted(set(labels) - set(files))
    if extra:
        raise ArgumentError(
            f"open_images: {table.name!r} has {len(labels)} rows for {len(files)} images: {len(extra)} rows name no "
            f"image ({extra[0]!r} is the first). Fetch the missing images, or delete the rows."
        )
