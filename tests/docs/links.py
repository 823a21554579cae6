"""Read links and targets out of HTML and Markdown. ``python -m tests.docs.links`` lists all outside addresses."""

import re
import sys
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown import Markdown

from tests.docs.blocks import ROOT, pages

# What a browser loads without being asked; a link that a reader may click is none of these.
_LOADED = {("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"), ("source", "src"), ("link", "href")}
_LINKS = _LOADED | {("a", "href")}
_IN_STYLE = re.compile(r"""(?:\burl\(\s*["']?|@import\s+["'])([^"')\s]+)""")


class Link(NamedTuple):
    address: str
    is_loaded: bool

    @property
    def is_outside(self):
        # A picture inside the page itself (data:) is not fetched from anywhere.
        return bool(urlsplit(self.address).scheme) and not self.address.startswith("data:")


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.targets = [], set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in _LINKS and value:
                self.links.append(Link(value, (tag, name) in _LOADED))
            elif name == "id" or (tag, name) == ("a", "name"):
                self.targets.add(value)
            elif name == "style" and value:
                self.links += [Link(each, True) for each in _IN_STYLE.findall(value)]


def read_html(text):
    """Links and targets of a page."""
    reader = _Reader()
    reader.feed(text)
    return reader.links, reader.targets


def read_styles(text):
    """What a style sheet loads."""
    return [Link(each, True) for each in _IN_STYLE.findall(text)]


def read_markdown(path):
    """Links and targets of a page as it is shown beside the code; headings get the anchors that GitHub gives them."""
    reader = Markdown(
        extensions=["toc", "tables", "attr_list", "md_in_html", "pymdownx.superfences"],
        extension_configs={"toc": {"slugify": _github_slug}},
    )
    return read_html(reader.convert(path.read_text(encoding="utf-8")))


def broken_links(places, read, *, root):
    """Links that lead to no file or to no anchor, as ``{place: [address]}``."""
    known = {place: read(place) for place in places}
    broken = {}
    for place, (links, _) in known.items():
        for link in links:
            if not link.is_outside and not link.address.startswith("data:") and not _leads(link, place, known, root):
                broken.setdefault(place.relative_to(root).as_posix(), []).append(link.address)
    return broken


def _leads(link, place, known, root):
    parts = urlsplit(link.address)
    target = (place.parent / unquote(parts.path)).resolve() if parts.path else place
    if not target.exists() or not target.is_relative_to(root):
        return False
    if not parts.fragment or parts.fragment.startswith("__"):
        return True  # what begins with two underscores belongs to the theme's own scripts
    return target in known and unquote(parts.fragment) in known[target][1]


def _github_slug(text, separator):
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def _list_outside():
    found = {}
    for page in pages():
        for link in read_markdown(ROOT / page)[0]:
            if link.is_outside:
                found.setdefault(link.address, set()).add(page)
    for address, where in sorted(found.items()):
        print(f"{address}\t{', '.join(sorted(where))}")


if __name__ == "__main__":
    sys.exit(_list_outside())
