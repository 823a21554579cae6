"""What pages say is what the code has: members, arguments, messages."""

import ast
import functools
import inspect
import re

import pytest

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.commands.parsing import argument_helps
from lightning_camrobust.members import member_names
from tests.docs.blocks import ROOT

_PAGES = {"cams": "cam-methods", "perturb": "perturbations", "compare": "similarities", "baseline": "perturbations"}


@pytest.mark.parametrize(("stage", "page"), _PAGES.items())
def test_every_member_is_named_on_its_page(stage, page):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    missing = [name for name in member_names(stage) if f"`{name}`" not in text]
    assert missing == [], f"give {missing} a row or a mention in docs/{page}.md, each name in backticks"


def test_every_argument_of_the_callback_is_explained():
    arguments = list(inspect.signature(CAMRobustnessCallback).parameters)
    explained = argument_helps(CAMRobustnessCallback)
    # Attributes follow the arguments.
    assert list(explained)[: len(arguments)] == arguments
    assert [name for name, text in explained.items() if len(text.split()) < 3] == []


def _written(node):
    """Text of a string as it is written; what is filled in becomes the mark that headings have for it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(each.value if isinstance(each, ast.Constant) else "..." for each in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@functools.lru_cache(maxsize=1)
def _texts_of_the_package():
    files = (ROOT / "lightning_camrobust").rglob("*.py")
    return {text for path in files for text in said_in(path.read_text(encoding="utf-8"))}


def said_in(source):
    """Strings of a source that it may say to somebody; a docstring says nothing."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    return {_written(node) for node in nodes if node not in docstrings} - {""}


def quoted_errors(page):
    """Headings that quote the fixed words of a message."""
    return re.findall(r"^### `+ ?(.+?) ?`+$", page, re.MULTILINE)


def is_said(words, texts):
    """Whether words occur in a text of the source, with anything where they have three dots."""
    pattern = re.compile(".*".join(re.escape(part) for part in words.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_every_quoted_error_occurs_in_the_source():
    quoted = quoted_errors((ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"))
    assert len(quoted) >= 25
    texts = _texts_of_the_package()
    assert [words for words in quoted if not is_said(words, texts)] == []


def test_an_error_that_nobody_raises_is_found():
    texts = _texts_of_the_package()
    page = "### `no ... is called`\n### `no ... was called upon`\n### A symptom\n"
    assert [is_said(words, texts) for words in quoted_errors(page)] == [True, False]


def test_a_docstring_is_no_error():
    source = 'def f(x):\n    """no such thing is raised"""\n    raise ValueError(f"no {x} is")\n'
    assert said_in(source) == {"no ... is", "no ", " is"}
