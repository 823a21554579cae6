"""Every command of every page names programs, targets, sub-commands, options, extras and scripts that exist."""

import re
import shlex

import pytest

from lightning_camrobust.cli import main
from lightning_camrobust.commands import COMMANDS
from lightning_camrobust.commands.parsing import command_parser
from tests.docs.blocks import ROOT, pages, read_blocks

_ASSIGNMENT = re.compile(r"\w+=")
# Of the shell, and of other projects: what follows them is theirs to check.
_OTHERS = {"cd", "export", "git", "hydra", "mkdir", "mkdocs", "mlflow", "mypy", "pre-commit", "pytest", "ruff"}
_OTHERS |= {"source", "tensorboard", "torchrun", "twine", "wandb"}
# A script of the reader's own.
_READERS = {"train.py"}
_MODULES = {"lightning_camrobust", "benchmarks", "benchmarks.zoo", "build", "http.server", "pip", "pytest", "venv"}


def split_commands(code):
    """Commands of a block as lists of words, without comments, assignments in front and what joins commands."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        commands.append([])
        for word in lexer:
            if set(word) <= set(";&|"):
                commands.append([])
            elif commands[-1] or not _ASSIGNMENT.match(word):
                commands[-1].append(word)
    return [words for words in commands if words]


def complaint(words):
    """What is wrong with a command, None if nothing is."""
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    checks = {"make": _make, "camrobust": _camrobust, "python": _python, "python3": _python, "pip": _pip}
    if program in checks:
        return checks[program](rest)
    return None if program in _OTHERS else f"{program}: no such program is known to this test"


def _make(words):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = [word for word in words if not _ASSIGNMENT.match(word) and word not in targets]
    return f"make: no target {unknown}" if unknown else None


def _camrobust(words):
    if not words or words[0].startswith("-"):
        return None if set(words) <= {"--help", "--version"} else f"camrobust: {words}"
    if words[0] not in COMMANDS:
        return f"camrobust: no command {words[0]}"
    known = command_parser(COMMANDS[words[0]])._option_string_actions
    unknown = [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in known]
    return f"camrobust {words[0]}: no option {unknown}" if unknown else None


def _python(words):
    if words[0] == "-m":
        module, words = words[1], words[1:]
        if module in ("lightning_camrobust", "pip"):
            return _camrobust(words[1:]) if module == "lightning_camrobust" else _pip(words[1:])
        return None if module in _MODULES or (ROOT / module.replace(".", "/")).exists() else f"python -m {module}"
    script = ROOT / words[0]
    if not script.is_file():
        return None if words[0] in _READERS or words[0] == "-c" else f"python: no script {words[0]}"
    source = script.read_text(encoding="utf-8")
    # A script with a parser of another kind, such as LightningCLI's, has options that its text does not show.
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    unknown = [option for option in options if f'"{option}"' not in source]
    return f"{words[0]}: no option {unknown}" if unknown and "add_argument" in source else None


def _pip(words):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE))
    found = [each for word in words for each in re.findall(r"(?:camrobust|^\.)\[([^\]]+)\]", word)]
    asked = {extra for each in found for extra in each.split(",")}
    return f"pip: no extra {asked - extras}" if asked - extras else None


def _commands(page):
    return [words for block in read_blocks(page) if block.language == "sh" for words in split_commands(block.code)]


@pytest.mark.parametrize("page", [page for page in pages() if _commands(page)])
def test_commands_of_a_page_exist(page):
    assert [(words, complaint(words)) for words in _commands(page) if complaint(words)] == []


def _harmless():
    asked = {tuple(words) for page in pages() for words in _commands(page) if words[0] == "camrobust"}
    return sorted(words for words in asked if words[-1] in ("--help", "--version"))


@pytest.mark.parametrize("words", _harmless(), ids=" ".join)
def test_commands_that_only_tell_run(words, capsys):
    assert main(words[1:]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        "make demos",
        "camrobust stdy",
        "camrobust study --confg x.yaml",
        "python examples/missing.py",
        "python examples/demo.py --epoch 1",
        "pip install 'lightning-camrobust[nothing]'",
        "lightning_camrobust study",
    ],
)
def test_wrong_commands_are_found(wrong):
    assert complaint(split_commands(f"A=1 {wrong}  # comment\n")[0])


def test_commands_are_split_at_lines_and_joints():
    code = "make demo  # one; two\nA=1 python x.py \\\n  --a 'b c' && cd d\n"
    assert split_commands(code) == [["make", "demo"], ["python", "x.py", "--a", "b c"], ["cd", "d"]]
