"""The parts of the console command, one file a subcommand; all that is heavy is loaded when a command runs."""

from lightning_camrobust.commands import compare, report, show, study

COMMANDS = {"study": study, "report": report, "compare": compare, "show": show}
