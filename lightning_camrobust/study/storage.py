"""Writing to a study's folder: a file is there as a whole or not at all, and errors say what to do."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_camrobust.errors import ArgumentError, CAMRobustnessError

# Ends the names of files that are not finished.
UNFINISHED = ".tmp"
_LOCK = ".lock"


class StudyFolderError(CAMRobustnessError, OSError):
    """The folder of a study cannot be written to."""

    def __str__(self) -> str:
        """Return the message alone, without the number of the error in front."""
        return str(self.strerror)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file beside its place, and move it there in one step when all of it is on the disk.

    Args:
        path: Where it belongs; folders are made.

    Yields:
        Where to write it.

    Raises:
        StudyFolderError: If that fails because of the disk or its permissions. What was at ``path`` before stays.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with written_whole(folder / "a.txt") as part:
        ...     _ = part.write_text("all of it")
        >>> [each.name for each in folder.iterdir()]
        ['a.txt']
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    with explain_storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _flush(part)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _flush(path.parent)


@contextmanager
def explain_storage(folder: Path) -> Iterator[None]:
    """Say what to do when a folder cannot be written to.

    Args:
        folder: For the message.

    Yields:
        Nothing.

    Raises:
        StudyFolderError: In place of an OSError that says that the disk is full, or that writing is not allowed.
    """
    try:
        yield
    except StudyFolderError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full"
            advice = "What was measured before is safe. Free some space and run the same again: it goes on from there."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what, advice = "it is read-only for this user", "Allow writing to it, or choose another folder."
        else:
            raise
        said = f"Study: cannot write to the folder {folder}, {what} ({error.strerror}). {advice}"
        raise StudyFolderError(error.errno, said) from error


def check_writable(folder: Path) -> None:
    """Make a folder and write to it once.

    Args:
        folder: Of the study.

    Raises:
        StudyFolderError: If that fails.
        ArgumentError: If there is a file in its place.
    """
    try:
        with explain_storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=UNFINISHED) as trial:
                trial.write(b"trial")
                trial.flush()
    except (FileExistsError, NotADirectoryError) as error:
        raise ArgumentError(
            f"Study: `folder` {folder} is a file, or lies in one. Name a folder; it is made."
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, until the block or the process ends, however it ends.

    Args:
        folder: Of the study.

    Yields:
        Nothing.

    Raises:
        ArgumentError: If another process measures there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    with explain_storage(folder), (folder / _LOCK).open("w") as file:
        try:
            # A lock of the process: children that are forked do not keep it alive.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ArgumentError(
                    f"run_study: another process is measuring in {folder} right now. Wait for it, or choose another "
                    "folder. To use several devices for one study, pass trainer={'devices': 2}."
                ) from error
            # Some network disks know no locks; then nobody is kept out.
        yield


def remove_unfinished(folder: Path, *, of: str | None = None) -> None:
    """Remove what a killed run left half written.

    Args:
        folder: Searched with all folders below it.
        of: Name of a file: only what was to become this file, in ``folder`` itself, is removed.
    """
    for leftover in folder.rglob(f"*{UNFINISHED}") if of is None else folder.glob(f"{of}.*{UNFINISHED}"):
        with suppress(FileNotFoundError):
            leftover.unlink()


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
