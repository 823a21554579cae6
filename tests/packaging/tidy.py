"""Say which files are not tidy: ``python -m tests.packaging.tidy FILE ...``. The last hook before a commit."""

import re
import sys
from pathlib import Path

# Git keeps a large file for ever.
MOST_BYTES = 1_000_000
_CONFLICT = re.compile(rb"^(<{7} |>{7} |={7}$)", re.MULTILINE)
_TRAILING = re.compile(rb"[ \t]+$", re.MULTILINE)
_MAY_END_IN_SPACES = {".md"}


def complaints(path):
    """What is untidy about a file, in words."""
    content = Path(path).read_bytes()
    if len(content) > MOST_BYTES:
        yield f"is larger than {MOST_BYTES} bytes"
    if b"\0" in content[:8000]:
        return
    if _CONFLICT.search(content):
        yield "has conflict marks"
    if b"\r\n" in content:
        yield "has Windows line ends"
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        yield "does not end with one newline"
    if Path(path).suffix not in _MAY_END_IN_SPACES and _TRAILING.search(content):
        yield "has spaces at the end of a line"


if __name__ == "__main__":
    found = [f"{path}: {each}" for path in sys.argv[1:] for each in complaints(path)]
    sys.exit("\n".join(found) or None)
