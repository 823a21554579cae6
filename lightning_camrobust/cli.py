"""The console command ``camrobust``."""

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_camrobust.errors import CAMRobustnessError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_DESCRIPTION = """\
Measure how stable class activation maps are under noise.

  camrobust study --network torchvision.models.resnet18 --weights resnet18.pt --size 224 \\
      --mean '[0.485, 0.456, 0.406]' --std '[0.229, 0.224, 0.225]' \\
      --data photos --output results

measures the images in the folder photos, writes results/report.html, and prints what it found. The same
command again goes on where it was interrupted. Each command explains itself: camrobust study --help"""
_DONE, _REFUSED, _WRONG_USAGE, _INTERRUPTED = 0, 1, 2, 130


def main(args: Sequence[str] | None = None) -> int:
    """Run the console command.

    Args:
        args: What stands behind ``camrobust``; None takes it from the command line.

    Returns:
        The exit code: 0 fine, 1 refused or failed with a message, 2 wrong usage, 130 interrupted.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        camrobust ...
        0
    """
    given = sys.argv[1:] if args is None else list(args)
    debug = "--debug" in given
    try:
        return _run(given)
    except SystemExit as stop:
        # The trainer turns an interruption into an exit of its own.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _tell_interrupted(stop.__context__)
        return stop.code if isinstance(stop.code, int) else _DONE if stop.code is None else _tell(stop)
    except KeyboardInterrupt as interruption:
        return _tell_interrupted(interruption)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _tell_error(error, given)


def make_parser() -> "ArgumentParser":
    """Make the parser of the whole command line.

    Returns:
        A parser with one subcommand a command.

    Raises:
        CAMRobustnessError: If jsonargparse is not installed.

    Example:
        >>> make_parser().prog
        'camrobust'
    """
    try:
        import jsonargparse  # noqa: F401
    except ImportError as error:
        raise CAMRobustnessError(
            "camrobust: the command line needs jsonargparse. Run: pip install 'lightning-camrobust[study]'."
        ) from error

    from lightning_camrobust._version import __version__
    from lightning_camrobust.commands import COMMANDS
    from lightning_camrobust.commands.parsing import HELP_FORMATTER, CommandParser, command_parser

    parser = CommandParser(
        prog="camrobust",
        description=_DESCRIPTION,
        formatter_class=HELP_FORMATTER,
        allow_abbrev=False,
        version=__version__,
        usage="camrobust [-h] [--version] COMMAND ...",
    )
    commands = parser.add_subcommands(title="commands", metavar="COMMAND", dest="command", prog="camrobust")
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, command_parser(command), help=command.SUMMARY)
    return parser


def _run(args: list[str]) -> int:
    parser = make_parser()
    if not args:
        parser.print_help()
        return _WRONG_USAGE
    parsed: Namespace = parser.parse_args(args)
    from lightning_camrobust.commands import COMMANDS

    # Releases before 4.49 know the longer name only.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    COMMANDS[parsed.command].run(instantiate(parsed)[parsed.command])
    return _DONE


def _first_cause(error: BaseException) -> BaseException:
    """Find the message nearest to what went wrong: that of a class that cannot be built, not of its network."""
    while isinstance(error.__cause__, CAMRobustnessError):
        error = error.__cause__
    return error


def _with_flags(error: BaseException, args: Sequence[str]) -> str:
    """Add a line with the flags behind the arguments that the library's message names in Python's words."""
    try:
        from lightning_camrobust.commands.options import flags_of
    except ImportError:  # jsonargparse is missing, which is what the error says
        return str(error)
    flags = flags_of(str(error), command=args[0] if args else "")
    return f"{error}\nOn the command line: {', '.join(flags)}." if flags else str(error)


def _tell_error(error: Exception, args: list[str]) -> int:
    if isinstance(error, CAMRobustnessError):
        told = _with_flags(_first_cause(error), args)
        return _tell(told, code=_WRONG_USAGE if getattr(error, "wrong_usage", False) else _REFUSED)
    if isinstance(error, OSError):
        return _tell(_describe_os_error(error))
    said = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
    return _tell(
        f"{said}. This is probably a defect of lightning_camrobust, or of a network or class that was named; --debug "
        "shows where. What was measured before is kept."
    )


def _tell(error: object, *, code: int = _REFUSED) -> int:
    print(f"camrobust: {error}", file=sys.stderr)
    return code


def _tell_interrupted(interruption: BaseException) -> int:
    kept = "What was measured so far is kept; the same command again goes on from there."
    print(f"\ncamrobust: interrupted. {interruption if str(interruption) else kept}", file=sys.stderr)
    return _INTERRUPTED


def _describe_os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    advice = "Make room, or choose another folder by --output, and run the same command again: it goes on from there."
    return f"{error.strerror or error}{where}. What was measured before is kept. {advice}"
