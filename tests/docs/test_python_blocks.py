"""Every Python block of every page runs: those of a page in one namespace, from top to bottom, in an empty folder."""

import re
import sys
import types

import pytest

from tests.docs.blocks import pages, read_blocks

# A page whose blocks are not run, and why.
NOT_RUN = {
    "CONTRIBUTING.md": "its blocks are whole files, which tests/packaging puts into a copied tree and tests there",
}
LANGUAGES = {"python", "sh", "yaml", "json", "text", "toml", "bibtex", "html", "diff"}


def _run(page, blocks):
    module = types.ModuleType(f"page_{abs(hash(page))}")
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    try:
        for block in blocks:
            for line, code in ((block.setup_line, block.setup), (block.line, block.code)):
                # Blank lines in front, so that a traceback names the line of the page.
                padded = "\n" * (line - 1) + code
                exec(compile(padded, page, "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]


def _python_pages():
    return [page for page in pages() if any(block.language == "python" for block in read_blocks(page))]


@pytest.mark.parametrize("page", _python_pages())
def test_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    if page in NOT_RUN:
        pytest.skip(NOT_RUN[page])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [page])  # a script on a page may read its arguments, which its setup gives
    _run(page, [block for block in read_blocks(page) if block.language == "python"])


@pytest.mark.parametrize("page", pages())
def test_blocks_show_nothing_that_only_the_tests_have(page):
    """Who installed the package has no `tests` to import from; what stands in for his own is hidden setup."""
    shown = [block for block in read_blocks(page) if block.language == "python"]
    assert [str(block) for block in shown if re.search(r"^\s*(from|import) tests\b", block.code, re.MULTILINE)] == []


@pytest.mark.parametrize("page", pages())
def test_code_is_not_passed_off_as_text(page):
    code = re.compile(r"^(from \w|import \w|python |pip |make |camrobust |\w+:$)", re.MULTILINE)
    texts = [block for block in read_blocks(page) if block.language == "text"]
    assert [str(block) for block in texts if code.search(block.code)] == []


def test_pages_that_are_not_run_exist():
    assert set(NOT_RUN) <= set(pages())


@pytest.mark.parametrize("page", pages())
def test_every_block_says_its_language(page):
    found = {str(block): block.language for block in read_blocks(page)}
    assert {where: language for where, language in found.items() if language not in LANGUAGES} == {}


def test_setup_is_read_from_the_comment_right_before_a_block():
    text = "<!-- no setup -->\n\n<!-- setup:\na = 1\n-->\n\n```python\nb = a\n```\n\n<!-- other -->\n```sh\nls\n```\n"
    first, second = read_blocks("x.md", text)
    assert (first.setup.strip(), first.code, first.line) == ("a = 1", "b = a", 8)
    assert second.setup == ""


def test_a_broken_block_is_told_by_its_line():
    blocks = read_blocks("README.md", "\n\n```python\nx = 1\nx.missing\n```\n")
    with pytest.raises(AttributeError) as caught:
        _run("README.md", blocks)
    assert caught.traceback[-1].lineno + 1 == 5
