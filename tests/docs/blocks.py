"""Read fenced code out of Markdown, with the hidden setup that stands before a block.

A block that needs names of the reader's own project gets them from an HTML comment right before it, which no page
shows:

    <!-- setup:
    from tests.docs.reader import images, model
    -->
"""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[^\s`{]*)(?P<rest>.*)$")
_SETUP = re.compile(r"<!--\s*setup:(?P<code>.*)-->", re.DOTALL)


class Block(NamedTuple):
    page: str
    line: int  # of the first line inside the fence, from 1
    language: str
    code: str
    setup: str
    setup_line: int

    def __str__(self):
        return f"{self.page}:{self.line}"


def pages():
    """Every Markdown page that a reader may follow: the site's, and those at the root and in examples."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def read_blocks(page, text=None):
    """All fenced blocks of a page, in order."""
    lines = ((ROOT / page).read_text(encoding="utf-8") if text is None else text).split("\n")
    blocks, at = [], 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        start = at
        while at < len(lines) and not _closes(lines[at], opening["ticks"]):
            at += 1
        if at == len(lines):
            raise ValueError(f"{page}:{start}: the fence is never closed")
        code = textwrap.dedent("\n".join(lines[start:at]))
        blocks.append(Block(page, start + 1, opening["language"], code, *_setup_before(lines, start - 1)))
        at += 1
    return blocks


def _closes(line, ticks):
    bare = line.strip()
    return len(bare) >= len(ticks) and set(bare) == {ticks[0]}


def _setup_before(lines, fence):
    before = "\n".join(lines[:fence]).rstrip()
    found = _SETUP.fullmatch(before, max(before.rfind("<!--"), 0))
    if found is None:
        return "", 0
    # What stands on the line of the comment's opening is one statement of its own.
    head, _, rest = found["code"].partition("\n")
    return f"{head.strip()}\n{textwrap.dedent(rest)}", before[: found.start("code")].count("\n") + 1
