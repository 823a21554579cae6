"""The site builds without a warning, has no dead link, loads nothing from outside, and lists every public name."""

import re
import zlib
from pathlib import Path

import pytest
import yaml

import lightning_camrobust
import lightning_camrobust.study
from lightning_camrobust.members import member_names
from tests.docs.blocks import ROOT, pages
from tests.docs.links import broken_links, read_html, read_markdown, read_styles


def _read_html_file(path):
    return read_html(path.read_text(encoding="utf-8"))


def test_site_builds_without_a_warning(built):
    done, _ = built
    said = done.stdout + done.stderr
    # A deprecation would not be counted by --strict.
    assert (done.returncode, [line for line in said.splitlines() if not line.startswith("INFO ")]) == (0, []), said


def test_links_within_the_site_lead_somewhere(site):
    # The server shows 404.html under any address, so its links begin at the root of the site.
    pages_of_the_site = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages_of_the_site) > 40
    assert broken_links(pages_of_the_site, _read_html_file, root=site) == {}


def test_links_between_pages_in_the_repository_lead_somewhere():
    assert broken_links([ROOT / page for page in pages()], read_markdown, root=ROOT) == {}


def test_site_loads_nothing_from_outside(site):
    loaded = {
        path.name: [link.address for link in _read_html_file(path)[0] if link.is_loaded and link.is_outside]
        for path in site.rglob("*.html")
    }
    loaded |= {
        path.name: [link.address for link in read_styles(path.read_text(encoding="utf-8")) if link.is_outside]
        for path in site.rglob("*.css")
    }
    assert {name: addresses for name, addresses in loaded.items() if addresses} == {}


@pytest.mark.parametrize("page", pages())
def test_outside_addresses_are_well_formed(page):
    outside = [link.address for link in read_markdown(ROOT / page)[0] if link.is_outside]
    wrong = [address for address in outside if not re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/\S*)?", address)]
    # Lightning's own address of a board on this machine is no address of the world.
    assert [address for address in wrong if not address.startswith("http://localhost:")] == []


def _inventory(site):
    """Names in Sphinx's inventory format, version 2: four lines of text, then lines of names, compressed."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(content).decode().splitlines()
    return {line.split(" ")[0]: line.split(" ")[3] for line in lines}


@pytest.mark.parametrize("package", [lightning_camrobust, lightning_camrobust.study], ids=lambda each: each.__name__)
def test_every_public_name_is_in_the_reference(site, package):
    names = {f"{package.__name__}.{name}" for name in package.__all__ if not name.startswith("_")}
    assert len(names) > 10
    inventory = _inventory(site)
    assert sorted(names - set(inventory)) == []
    for name in names:
        page, _, anchor = inventory[name].replace("$", name).partition("#")
        assert anchor in _read_html_file(site / page)[1]


@pytest.mark.parametrize("stage", ["cams", "perturb", "compare", "segment", "baseline"])
def test_every_member_is_in_the_reference(site, stage):
    names = {f"lightning_camrobust.{stage}.{name}" for name in member_names(stage)}
    assert sorted(names - set(_inventory(site))) == []


def _nav_pages(entries):
    for entry in entries:
        values = entry.values() if isinstance(entry, dict) else [entry]
        for value in values:
            yield from _nav_pages(value) if isinstance(value, list) else [value]


def test_llms_txt_lists_every_page_of_the_navigation():
    text = (ROOT / "docs/llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", text, re.MULTILINE)
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert set(_nav_pages(config["nav"])) - {"index.md"} == {each for each in listed if each.endswith(".md")}
    assert len(listed) == len(set(listed))


def test_llms_txt_has_the_form_of_its_kind(site):
    lines = (ROOT / "docs/llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert lines[2].startswith("> ")
    assert [line for line in lines if line.startswith("#")] == [line for line in lines if re.match(r"#{1,2} \w", line)]
    # Programs get the Markdown of each page under the address that is written there.
    for address in re.findall(r"\]\(([^)]+)\)", "\n".join(lines)):
        assert (site / address).is_file(), address


def test_reference_for_programs_tells_what_the_site_renders(site):
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((site / "reference").glob("*.md")))
    assert ":::" not in text
    missing = [name for name in lightning_camrobust.__all__ if f"\n## {name}\n\n```python\n{name}" not in text]
    assert missing == ["__version__"]


def test_pages_of_the_study_can_be_reached(site):
    linked = {
        (path.parent / link.address.partition("#")[0]).resolve()
        for path in site.rglob("*.html")
        for link in _read_html_file(path)[0]
        if not link.is_outside
    }
    reports = sorted(Path(site, "study").glob("*.html"))
    assert [path.name for path in reports if path.resolve() not in linked] == []
    assert {path.name for path in (ROOT / "docs/study").glob("*.html")} == {path.name for path in reports}


def test_what_a_style_sheet_loads_is_read():
    text = '@import url("https://a.org/x.css"); @import "b.css"; x { background: url( c.png ); src: url(data:d) }'
    assert [link.address for link in read_styles(text)] == ["https://a.org/x.css", "b.css", "c.png", "data:d"]
    assert [link.is_outside for link in read_styles(text)] == [True, False, False, False]


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#x">b</a><a href="a.html#top"></a><img src="c.png">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#end"></a><a href="../d.html"></a><a href="https://a.org"></a>')
    (tmp_path.parent / "d.html").touch()
    broken = broken_links(sorted(tmp_path.glob("*.html")), _read_html_file, root=tmp_path)
    assert broken == {"a.html": ["b.html#x", "c.png"], "b.html": ["a.html#end", "../d.html"]}
