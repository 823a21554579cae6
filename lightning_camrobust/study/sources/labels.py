"""Read the true classes of images."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_camrobust.errors import ArgumentError

UNKNOWN = -1


def as_label(value: Any, *, name: str) -> int:
    """Read one label.

    Args:
        value: An integer, as a number, 0-d array or tensor; or None where it is not known.
        name: Of the image, for messages.

    Returns:
        The class, or -1 where it is not known.

    Raises:
        ArgumentError: If it is something else.

    Example:
        >>> as_label(None, name="a.png"), as_label(7, name="b.png")
        (-1, 7)
    """
    number = value
    if getattr(value, "shape", None) is not None and callable(getattr(value, "item", None)):
        number = value.item() if all(length == 1 for length in value.shape) else value
    if number is None:
        return UNKNOWN
    if not isinstance(number, int) or number < UNKNOWN:
        shown = f"shape {tuple(value.shape)}" if number is value and hasattr(value, "shape") else f"{value!r:.80}"
        raise ArgumentError(
            f"open_images: the label of {name!r} must be one whole number, 0 or more (or -1 where it is not known), "
            f"got {shown}. Turn one-hot rows into numbers with argmax, class names with a sorted list of them, or "
            "leave labels out with labels='none'."
        )
    return int(number)


def labels_from_expression(files: Sequence[str], expression: str) -> list[int]:
    r"""Read labels out of file names.

    Args:
        files: Paths relative to the folder, with slashes.
        expression: Regular expression with one group, which must catch a whole number. It is searched for in the file's
            name, or in the whole relative path if it has a slash.

    Returns:
        One label a file.

    Raises:
        ArgumentError: If it is no such expression, or does not match a file.

    Example:
        >>> labels_from_expression(["0042_n01440764.jpg"], r"^(\d+)_")
        [42]
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ArgumentError(_not_an_expression(expression, f"is no regular expression ({error})")) from error
    if pattern.groups != 1:
        raise ArgumentError(_not_an_expression(expression, f"has {pattern.groups} groups, and must have one"))
    found = []
    for file in files:
        match = pattern.search(file if "/" in expression else file.rpartition("/")[2])
        if match is None:
            raise ArgumentError(f"open_images: labels={expression!r} does not match the file {file!r}. Correct it.")
        found.append(whole_number(match[1], where=f"labels={expression!r} in the file {file!r}"))
    return found


def labels_from_folders(files: Sequence[str], folders: Sequence[str], *, root: Path) -> list[int]:
    """Number the folders that lie right below the root, in sorted order, as torchvision's ImageFolder does.

    Args:
        files: Paths relative to the root, with slashes.
        folders: Names of all folders right below it.
        root: For messages.

    Returns:
        One label a file.

    Raises:
        ArgumentError: If a file lies in no folder, or a folder holds no file.

    Example:
        >>> labels_from_folders(["cat/1.png", "dog/1.png"], ["dog", "cat"], root=Path("pets"))
        [0, 1]
    """
    owners = [file.partition("/")[0] if "/" in file else None for file in files]
    loose = [file for file, owner in zip(files, owners, strict=True) if owner is None]
    if loose:
        raise ArgumentError(
            f"open_images: {len(loose)} images lie right in {str(root)!r} ({loose[0]!r} is the first), the others in "
            "folders below it, so that these folders cannot be the classes of all. Sort them in, or pass "
            "labels='none', a CSV file or a regular expression."
        )
    empty = sorted(set(folders) - set(owners))
    if empty:
        raise ArgumentError(
            f"open_images: folder {empty[0]!r} in {str(root)!r} holds no images, so that it cannot be said whether it "
            "counts as a class. Fill it, move it away, or pass labels='none', a CSV file or a regular expression."
        )
    numbers = {name: number for number, name in enumerate(sorted(folders))}
    return [numbers[owner] for owner in owners if owner is not None]


def check_folder_names(folders: Sequence[str], *, root: Path) -> None:
    """Check that nobody can be mistaken about which folder is which class.

    Args:
        folders: Names of all folders right below the root.
        root: For messages.

    Raises:
        ArgumentError: If there is only one, or their names are numbers other than their places in sorted order.

    Example:
        >>> check_folder_names(["cat", "dog"], root=Path("pets"))
    """
    names = sorted(folders)
    if len(names) == 1:
        raise ArgumentError(
            f"open_images: all images of {str(root)!r} lie in one folder, {names[0]!r}, and would all be of class 0. "
            "Pass labels='folders' if they are, labels='none' if their classes are not known, or that folder's path."
        )
    wrong = [name for number, name in enumerate(names) if name.isdecimal() and int(name) != number]
    if wrong and all(name.isdecimal() for name in names):
        raise ArgumentError(
            f"open_images: the folders of {str(root)!r} have numbers for names, but folder {wrong[0]!r} would be class "
            f"{names.index(wrong[0])}, its place in sorted order. If the names are the classes, pass "
            r"labels=r'^(\d+)/'; if the order is, as in torchvision's ImageFolder, pass labels='folders'."
        )


def whole_number(text: str, *, where: str) -> int:
    """Read a label that is written as text.

    Args:
        text: Digits.
        where: Where it stands, for messages.

    Returns:
        The class, or -1 where it is not known.

    Raises:
        ArgumentError: If it is no whole number.

    Example:
        >>> whole_number("0042", where="row 1")
        42
    """
    if not re.fullmatch(r"-?\d+", text) or int(text) < UNKNOWN:
        raise ArgumentError(
            f"open_images: {where} gives the label {text!r}, which is no whole number of 0 or more (or -1 where it is "
            "not known). Number the classes as the network does."
        )
    return int(text)


def _not_an_expression(expression: str, what: str) -> str:
    return (
        f"open_images: `labels`={expression!r} {what}. For a folder, labels must be 'folders', 'none', the path of a "
        r"CSV file that exists, or a regular expression with one group, such as r'^(\d+)_' for 0042_x.jpg."
    )
