"""The reference as plain Markdown: signatures and docstrings, for readers that are programs."""

import functools
import re
from pathlib import Path
from typing import Any

import griffe

_DIRECTIVE = re.compile(r"^::: ([\w.]+)\n((?:    .*\n?)*)", re.MULTILINE)
_MEMBERS = re.compile(r"members: \[([^\]]+)\]")


def expand_directives(markdown: str) -> str:
    """Put signature and docstring in place of each directive that the site renders.

    Args:
        markdown: Of a page, with lines ``::: package.name``.

    Returns:
        The same without directives.
    """
    return _DIRECTIVE.sub(lambda found: _tell(_find(found[1]), _MEMBERS.search(found[2])), markdown)


def _tell(known: Any, chosen: "re.Match[str] | None" = None) -> str:
    told = _signature(known) + _docstring(known)
    if not known.is_module:
        return told
    names = chosen[1].split(", ") if chosen else [name for name in known.members if not name.startswith("_")]
    own = [known.members[name] for name in names]
    return told + "".join(_tell(each) for each in own if not each.is_alias and (each.is_class or each.is_function))


def _signature(known: Any) -> str:
    if known.is_module:
        return f"## {known.path}\n\n"
    # A class is called as its own, its parent's or its dataclass' __init__ says; exceptions have none of these.
    built = known.all_members.get("__init__") if known.is_class else known
    signature = built.signature(name=known.name).replace("self, ", "") if built else known.name
    return f"## {known.name}\n\n```python\n{signature}\n```\n\n"


def _docstring(known: Any) -> str:
    return f"{known.docstring.value}\n\n" if known.docstring else ""


def _find(path: str) -> Any:
    found = _package()[path.partition(".")[2]]
    return found.final_target if found.is_alias else found


@functools.lru_cache(maxsize=1)
def _package() -> Any:
    here = Path(__file__).resolve()
    extensions = griffe.load_extensions(str(here.with_name("docstrings.py")))
    return griffe.load("lightning_camrobust", search_paths=[here.parents[1]], extensions=extensions)
