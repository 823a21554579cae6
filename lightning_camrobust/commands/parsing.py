"""Turn documented dataclasses into arguments of a command."""

import argparse
import pydoc
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from types import ModuleType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import jsonargparse
from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from jsonargparse.typing import register_type

from lightning_camrobust.commands.naming import Named, read_named, write_named
from lightning_camrobust.errors import nearest_names

register_type(Named, serializer=write_named, deserializer=read_named, deserializer_exceptions=(ValueError,))


_NAMED_VALUE = re.compile(r"Named\('([^']*)', \{\}\)")
_NAMED_TYPE = re.compile(r"<class 'Named'>|\bNamed\b")


class HELP_FORMATTER(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):  # noqa: N801
    """Help that keeps the line breaks of examples, and shows names as they are written."""

    def _expand_help(self, action: argparse.Action) -> str:
        shown = _NAMED_VALUE.sub(r"\1", super()._expand_help(action))
        return _NAMED_TYPE.sub("str | {class_path: ...}", shown)


class CommandParser(ArgumentParser):
    """A parser that names a misspelt key, and not all the types that an entry with it does not fit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with a message and the exit code of wrong usage."""
        found = re.search(r"class_path '([\w.]+)':\s+Option '([^']+)' is not accepted", message)
        options = found and pydoc.locate(found[1])
        if found and isinstance(options, type) and is_dataclass(options):
            known = [each.name for each in fields(options)]
            where = re.search(r'key "([^"]+)"', message)
            message = (
                f"`{where[1] if where else options.__name__}`: there is no {found[2]!r}. Nearest: "
                f"{nearest_names(found[2], known, count=1)}. An entry may have {', '.join(known)}."
            )
        super().error(message, ex)


def command_parser(command: ModuleType) -> ArgumentParser:
    """Make the parser of one command.

    Args:
        command: Its module, with ``USAGE``, ``DESCRIPTION`` (which begins with an example) and ``add_arguments``.

    Returns:
        The parser.
    """
    parser = CommandParser(
        usage=f"camrobust {command.USAGE}",
        description=command.DESCRIPTION,
        formatter_class=HELP_FORMATTER,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="Show where in the code an error came from.")
    return parser


def add_options(parser: ArgumentParser, options: type, *, title: str, optional: tuple[str, ...] = ()) -> None:
    """Add one flag for each field of a dataclass, with the help that its docstring gives.

    Args:
        parser: Of the command.
        options: The dataclass. A list becomes a flag that takes several values.
        title: Of the group in the help.
        optional: Fields without a default that may be left out all the same; they are None then.
    """
    group = parser.add_argument_group(title)
    kinds, helps = get_type_hints(options), argument_helps(options)
    for each in fields(options):
        settings: dict[str, Any] = {"help": helps[each.name], **_kind(kinds[each.name])}
        if each.default is MISSING and each.default_factory is MISSING and each.name not in optional:
            settings["required"] = True
        else:
            settings["default"] = _default(each)
        group.add_argument(f"--{each.name}", **settings)


def take_options(parsed: Namespace, options: type) -> Any:
    """Take the fields of a dataclass out of what was parsed.

    Args:
        parsed: All that was said to the command.
        options: The dataclass.

    Returns:
        An instance of it.
    """
    return options(**{each.name: parsed[each.name] for each in fields(options) if each.name in parsed})


def argument_helps(documented: type) -> dict[str, str]:
    """Read what a docstring says of each argument.

    Args:
        documented: A class with a section ``Args``.

    Returns:
        Text by argument.

    Example:
        >>> from lightning_camrobust.commands.options import AnalysisOptions
        >>> argument_helps(AnalysisOptions)["title"]
        'Of the page.'
    """
    import docstring_parser

    parsed = docstring_parser.parse(documented.__doc__ or "", style=docstring_parser.DocstringStyle.GOOGLE)
    return {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}


def _kind(hint: Any) -> dict[str, Any]:
    """Say how a flag of some type is read: a list takes several words, a truth value none."""
    parts = [part for part in get_args(hint) if part is not type(None)] if type(None) in get_args(hint) else [hint]
    if parts == [bool]:
        return {"action": ActionYesNo}
    if len(parts) == 1 and get_origin(parts[0]) is list:
        return {"type": get_args(parts[0])[0], "nargs": "+"}
    return {"type": hint}


def _default(each: "Field[Any]") -> Any:
    if each.default is not MISSING:
        return each.default
    return None if each.default_factory is MISSING else each.default_factory()
