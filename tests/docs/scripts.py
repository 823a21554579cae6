"""Run a script up to where its arguments are read, which tells whether a command on a page would be accepted."""

import argparse
import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

from lightning.pytorch.cli import LightningCLI


class _Read(Exception):
    """The arguments were read."""


def read_script(script, words):
    """Say what is wrong with ``python SCRIPT WORDS``, None if nothing is; nothing behind the parser runs."""
    if not Path(script).is_file():
        return f"python: no script {script}"
    if "@hydra.main" in Path(script).read_text(encoding="utf-8"):
        return _read_by_hydra(Path(script), words)
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", [script, *words]))
        stack.enter_context(mock.patch.object(sys, "path", [str(Path(script).parent.absolute()), *sys.path]))
        for owner, name in ((argparse.ArgumentParser, "parse_args"), (LightningCLI, "parse_arguments")):
            stack.enter_context(mock.patch.object(owner, name, _up_to(getattr(owner, name))))
        stack.enter_context(contextlib.redirect_stderr(said))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            runpy.run_path(script, run_name="__main__")
        except _Read:
            return None
        except SystemExit as stop:
            # Printing a help or a configuration ends well.
            return f"{script}: {said.getvalue()}" if stop.code else None
    return f"{script}: reads no arguments"


def _up_to(parse):
    def read(*arguments, **named):
        parse(*arguments, **named)
        raise _Read

    return read


def _read_by_hydra(script, words):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    try:
        with initialize_config_dir(str(script.parent.resolve()), version_base=None):
            instantiate(compose("config", overrides=words).callback)
    except Exception as error:
        return f"{script}: {error}"
    return None
