"""Severity 1..5, in the columns that the benchmark papers published for large and for small images."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, SupportsIndex, TypeVar

from torch import Tensor

from lightning_camrobust.errors import ArgumentError

Column = Literal["auto", "imagenet", "cifar"]
Level = TypeVar("Level")
# Shorter side, in pixels, up to which an image counts as small. ImageNet-C's values destroy a 32-pixel image.
SMALL_IMAGE = 64


@dataclass(frozen=True)
class SeverityTable(Generic[Level]):
    """One parameter value, or one tuple of them, for each severity, for large and for small images.

    Attributes:
        imagenet: Values of ImageNet-C, severity 1 first.
        cifar: Values of CIFAR-C, severity 1 first.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261) and its released generation scripts.

    Example:
        >>> table = SeverityTable(imagenet=(1.0, 2.0, 3.0, 4.0, 5.0), cifar=(0.1, 0.2, 0.3, 0.4, 0.5))
        >>> import torch
        >>> table.value(2, images=torch.zeros(1, 3, 32, 32))
        0.2
    """

    imagenet: tuple[Level, Level, Level, Level, Level]
    cifar: tuple[Level, Level, Level, Level, Level]

    def __post_init__(self) -> None:
        for values in (self.imagenet, self.cifar):
            # Not only tuples: a configuration may hold lists of its own kind, as Hydra's does.
            if not isinstance(values, Sequence) or len(values) != 5:
                raise ArgumentError(f"`levels` must hold five values, for severity 1 to 5, got {values!r}.")

    def value(self, severity: int, *, images: Tensor, column: Column = "auto") -> Level:
        """Look a value up.

        Args:
            severity: 1..5.
            images: ``(b, c, H, W)``; their size chooses the column when it is ``"auto"``.
            column: Which column to read.

        Returns:
            The parameter value.

        Raises:
            ArgumentError: If severity or column is unknown.
        """
        check_severity(severity)
        if column not in ("auto", "imagenet", "cifar"):
            raise ArgumentError(f"`column` must be 'auto', 'imagenet' or 'cifar', got {column!r}.")
        if column == "auto":
            column = "cifar" if min(images.shape[-2:]) <= SMALL_IMAGE else "imagenet"
        return (self.cifar if column == "cifar" else self.imagenet)[severity - 1]


def resolved_level(perturbation: Any, severity: int, *, images: Tensor) -> Any:
    """Say which value a perturbation takes for a severity: a standard deviation, a size of an attack, a quality...

    Args:
        perturbation: A ready-made member; its own ``levels`` count, or else the table of its file.
        severity: 1..5.
        images: ``(b, c, H, W)``; their size chooses the column.

    Returns:
        A number, or a tuple of them; None for a perturbation that has no such table.

    Example:
        >>> import torch
        >>> from lightning_camrobust.members import resolve_member
        >>> resolved_level(resolve_member("perturb", "gaussian_noise"), 3, images=torch.zeros(1, 3, 32, 32))
        0.08
    """
    levels = getattr(perturbation, "levels", None)
    if levels is None:
        file = sys.modules.get(type(perturbation).__module__)
        levels = getattr(file, "_TABLE", getattr(file, "_LEVELS", None))
    if isinstance(levels, Mapping):
        levels = levels.get(getattr(perturbation, "norm", None))
    if isinstance(levels, SeverityTable):
        return levels.value(severity, images=images, column=getattr(perturbation, "column", "auto"))
    return levels[check_severity(severity) - 1] if isinstance(levels, Sequence) and len(levels) == 5 else None


def check_severity(severity: int) -> int:
    """Check a severity.

    Args:
        severity: What was given.

    Returns:
        It, if it is 1, 2, 3, 4 or 5.

    Raises:
        ArgumentError: Otherwise.

    Example:
        >>> check_severity(3)
        3
    """
    if isinstance(severity, bool) or not isinstance(severity, SupportsIndex) or not 1 <= severity <= 5:
        raise ArgumentError(
            f"`severity` must be a whole number from 1 (weak) to 5 (strong), got {severity!r}. "
            "For other strengths pass a perturbation with its own `levels`."
        )
    return int(severity)
