"""Find what writes to a logger. There is no registry: a file in this folder that names a logger's class is the entry.

Such a file has ``LOGGER``, the name of the class, and ``publish(logger, publication)``, called after each run, which
writes numbers before pictures: a picture that fails costs no number. It may have ``introduce(logger, publication)``,
called before a logger's first publication and again when settings changed, ``arrange(logger, layout)``, called when a
fit begins, and ``compare(logger, keys)``, called once with the scores by which runs are to be compared. All of them run
on the first process only.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any


@cache
def destinations() -> dict[str, ModuleType]:
    """List the files that write to a logger.

    Returns:
        Modules by the name of the logger's class.

    Example:
        >>> sorted(destinations())
        ['CSVLogger', 'MLFlowLogger', 'TensorBoardLogger', 'WandbLogger']
    """
    package = importlib.import_module(__package__)
    names = [each.name for each in pkgutil.iter_modules(package.__path__) if f"{__package__}.{each.name}" != __name__]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in sorted(names)]
    return {module.LOGGER: module for module in modules if hasattr(module, "LOGGER")}


def destination_of(logger: Any) -> ModuleType | None:
    """Find the file that writes to a logger, by the names of its classes: two packages carry the same loggers.

    Args:
        logger: Any logger.

    Returns:
        The module, or None: that logger gets scalars only.

    Example:
        >>> destination_of(object()) is None
        True
    """
    names = [kind.__name__ for kind in type(logger).__mro__]
    return next((destinations()[name] for name in names if name in destinations()), None)


def any_destination(loggers: Iterable[Any]) -> bool:
    """Tell whether any of the loggers takes more than scalars.

    Args:
        loggers: Of a trainer.

    Returns:
        The answer.

    Example:
        >>> any_destination([])
        False
    """
    return any(destination_of(each) is not None for each in loggers)
