"""Put a report's files in place all together, or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning_camrobust.errors import CAMRobustnessError

PAGE = "report.html"
LISTING = "camrobust-files"
_OURS = re.compile(r"(?:tables|figures)/[\w.-]+\.(?:csv|png|svg)")


class ReportWriteError(CAMRobustnessError, OSError):
    """The report could not be written; what was there before is as it was."""


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Make a folder to write to first, beside the final place, and remove it in any case.

    Args:
        folder: Of the study; made if it is missing.

    Yields:
        An empty folder on the same file system.

    Raises:
        ReportWriteError: If anything cannot be written while the folder is in use.
    """
    staged = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        yield staged
    except OSError as error:
        raise ReportWriteError(
            f"Report: the files could not be written to {folder}: {error.strerror or error}. An earlier report there "
            "is as it was. Free some space, or name a folder that you may write to."
        ) from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


def write_files(staged: Path, contents: Mapping[str, str]) -> None:
    """Write text files below the staging folder.

    Args:
        staged: From :func:`staging_folder`.
        contents: Text by relative path; UTF-8, lines end in a line feed.
    """
    for name, text in contents.items():
        target = staged / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)


def move_into_place(staged: Path, folder: Path) -> None:
    """Move staged files to their places; on failure bring the earlier ones back.

    Files of the earlier report that the new one does not have are removed: the page names its own files, so that
    nothing else in the folder is touched.

    Args:
        staged: Holds the page and its files.
        folder: Of the study.

    Raises:
        OSError: If a file cannot be moved; all earlier files are then in their places again.
    """
    kept = Path(tempfile.mkdtemp(prefix=".before-", dir=staged))
    new = sorted(str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file())
    stale = [name for name in _listed_files(folder / PAGE) if name not in new]
    moved: list[str] = []
    saved: list[str] = []
    try:
        # The page goes last, so that it never names files which are not there yet.
        for name in sorted([*new, *stale], key=lambda name: name == PAGE):
            if (folder / name).exists():
                _copy(folder / name, kept / name)
                saved.append(name)
            if name in stale:
                (folder / name).unlink(missing_ok=True)
            else:
                _move(staged / name, folder / name)
                moved.append(name)
    except OSError:
        for name in saved:
            _move(kept / name, folder / name)
        for name in moved:
            if name not in saved:
                (folder / name).unlink(missing_ok=True)
        raise


def _listed_files(page: Path) -> list[str]:
    """Read which files the earlier page says are its own; only plain names in our two folders count."""
    try:
        text = page.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    found = re.search(rf'<meta name="{LISTING}" content="([^"]*)"', text)
    return [name for name in (found[1].split() if found else []) if _OURS.fullmatch(name)]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
