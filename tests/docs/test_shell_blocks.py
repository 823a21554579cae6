"""Commands on pages: those of ours are read by the very parser that would run them, with their types and choices.

Nothing is measured or installed. Of programs of others only the name is known here, of `pip` the extras.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from lightning_camrobust.cli import main
from lightning_camrobust.commands import COMMANDS
from lightning_camrobust.commands.parsing import command_parser
from lightning_camrobust.members import resolve_member
from tests.docs.blocks import ROOT, pages, read_blocks
from tests.docs.scripts import read_script

_ASSIGNMENT = re.compile(r"\w+=")
# Of the shell, and of other projects: what follows them is theirs to check.
_OTHERS = {"cd", "export", "git", "hydra", "mkdir", "mkdocs", "mlflow", "mypy", "pre-commit", "pytest", "ruff"}
_OTHERS |= {"source", "tensorboard", "torchrun", "twine", "wandb"}
_MODULES = {"build", "http.server", "pytest", "venv"}
_STAGES = {"methods": "cams", "perturbations": "perturb", "perturbation": "perturb", "segmenter": "segment",
           "similarity": "compare"}  # fmt: skip
# Words that stand for several members.
_SEVERAL = {"fast", "all"}


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
    """What is wrong with a command, None if nothing is; files of the reader's own lie in the current folder."""
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
    parser = command_parser(COMMANDS[words[0]])
    parser.exit_on_error = False
    try:
        parsed = parser.parse_args(words[1:])
        for field, stage in _STAGES.items():
            for each in _listed(parsed.get(field)):
                resolve_member(stage, each.path)
    except Exception as error:
        return f"camrobust {words[0]}: {error}"
    return None


def _listed(value):
    return [each for each in (value if isinstance(value, list) else [value]) if each and each.path not in _SEVERAL]


def _python(words):
    if words[0] == "-c":
        return None
    if words[0] != "-m":
        return read_script(words[0], words[1:])
    if words[1] in ("lightning_camrobust", "pip"):
        return (_camrobust if words[1] == "lightning_camrobust" else _pip)(words[2:])
    if words[1] in _MODULES:
        return None
    module = Path(words[1].replace(".", "/"))
    script = module / "__main__.py" if (ROOT / module).is_dir() else module.with_suffix(".py")
    return read_script(str(script), words[2:])


def _pip(words):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE))
    found = [each for word in words for each in re.findall(r"(?:camrobust|^\.)\[([^\]]+)\]", word)]
    asked = {extra for each in found for extra in each.split(",")}
    return f"pip: no extra {asked - extras}" if asked - extras else None


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder where a reader stands: the examples, and a settings file of his own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("examples", "benchmarks", "tests"):
        Path(name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "examples/study.yaml", "study.yaml")


def _blocks(page):
    return [block for block in read_blocks(page) if block.language == "sh"]


@pytest.mark.parametrize("page", [page for page in pages() if _blocks(page)])
def test_commands_of_a_page_are_accepted(page, own_folder):
    for block in _blocks(page):
        exec(compile("\n" * (block.setup_line - 1) + block.setup, block.page, "exec"), {})
        complaints = [(words, complaint(words)) for words in split_commands(block.code)]
        assert [(words, said) for words, said in complaints if said] == [], str(block)


def _harmless():
    commands = [words for page in pages() for block in _blocks(page) for words in split_commands(block.code)]
    asked = {tuple(words) for words in commands if words[0] == "camrobust"}
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
        "camrobust study --config missing.yaml",
        "camrobust show --image cat.jpg --network a.b --output x.png --size large",
        "camrobust show --image cat.jpg --network a.b --output x.png --perturbation fogg",
        "python examples/missing.py",
        "python examples/demo.py --epoks 1",
        "python examples/regularise_cifar10.py --data a.npz --weights a.pt --part training",
        "python examples/hydra_config/main.py callback.num_sample=32",
        "python examples/cli_yaml/main.py fit --trainer.most_epochs 3",
        "python -m tests.mutation --output a.jsonl --agan",
        "pip install 'lightning-camrobust[nothing]'",
        "lightning_camrobust study",
    ],
)
def test_wrong_commands_are_found(wrong, own_folder):
    assert complaint(split_commands(f"A=1 {wrong}  # comment\n")[0])


def test_commands_are_split_at_lines_and_joints():
    code = "make demo  # one; two\nA=1 python x.py \\\n  --a 'b c' && cd d\n"
    assert split_commands(code) == [["make", "demo"], ["python", "x.py", "--a", "b c"], ["cd", "d"]]


def test_nothing_of_the_command_line_is_left_behind(own_folder):
    before = list(sys.argv)
    assert complaint(split_commands("python examples/demo.py --epochs 1")[0]) is None
    assert sys.argv == before
