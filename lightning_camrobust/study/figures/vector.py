"""Make an SVG by matplotlib small, themable and readable by screen readers."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
GEOMETRY = ("d", "x", "y", "width", "height", "points", "transform")
INHERITED = {"fill": "none", "stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": "sans-serif"}


def slim_svg(source: str, *, prefix: str, title: str, variables: Mapping[str, str]) -> str:
    """Rewrite an SVG.

    Args:
        source: As matplotlib wrote it, with text kept as text.
        prefix: What ids start with; unique on the page.
        title: First line is the title, the rest is the description.
        variables: CSS variable, such as ``"--ink"``, by hex colour; colours are left as they are if it is empty. With
            variables the element also fits itself to the width of its column.

    Returns:
        The ``<svg>`` element, places rounded to a tenth of a point.
    """
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    _rename(root, prefix)
    defined = {inner for element in root.iter(f"{SVG}defs") for inner in element.iter()}
    for element in root.iter():
        _round(element, digits=2 if element in defined else 1)
        _restyle(element)
    _unwrap(root)
    _hoist(root)
    _label(root, prefix, title)
    root.attrib.update(INHERITED)
    if variables:
        for element in root.iter():
            if LINK in element.attrib:
                element.set("href", element.attrib.pop(LINK))
        used = _theme(root, variables)
        # Points become CSS pixels: never larger than drawn, smaller where the column is.
        size = f"width:100%;max-width:{float(root.attrib.pop('width')[:-2]) * 4 / 3:.0f}px;height:auto"
        root.set("style", ";".join([size, *used]))
        del root.attrib["height"]
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", LINK[1:-5])
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>") + "\n"


def _rename(root: ElementTree.Element, prefix: str) -> None:
    everything = [value for element in root.iter() for name, value in element.attrib.items() if name != "id"]
    wanted = dict.fromkeys(re.findall(r"(?:url\(#|^#)([\w.-]+)", "\n".join(everything), flags=re.MULTILINE))
    names = {name: f"{prefix}{index}" for index, name in enumerate(wanted)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.set(name, re.sub(r"(url\(#|^#)([\w.-]+)", lambda found: found[1] + names[found[2]], value))
        if own in names:
            element.set("id", names[own])


def _round(element: ElementTree.Element, *, digits: int) -> None:
    element.tail = None
    if element.tag != f"{SVG}text":
        element.text = None
    for name in GEOMETRY:
        if name in element.attrib and element.tag != f"{SVG}svg":
            text = re.sub(
                r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), digits) + 0.0:g}", element.attrib[name]
            )
            text = re.sub(r"\s*([MLCQz])\s*", r"\1", text).strip()
            # Upright lines: one number says where they end.
            element.set(name, re.sub(r"M([-.\d]+) ([-.\d]+)L\1 ", r"M\1 \2V", text))
    if element.tag == f"{SVG}text" and element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _restyle(element: ElementTree.Element) -> None:
    rules = dict(rule.split(": ", 1) for rule in element.attrib.pop("style", "").split("; ") if rule)
    if "font" in rules:
        # Before matplotlib 3.11 the font is written in one rule: [weight] size family.
        found = re.match(r"(?:(\d+) )?([\d.]+px) ", rules.pop("font"))
        rules |= {"font-size": found[2]} | ({"font-weight": found[1]} if found[1] else {}) if found else {}
    for name in ("font-family", "stroke-linejoin", "stroke-dashoffset"):
        rules.pop(name, None)
    if rules.get("fill") == "none" and len(rules) > 1:
        del rules["fill"]
    if rules:
        element.set("style", ";".join(f"{name}:{value}" for name, value in rules.items()))


def _theme(root: ElementTree.Element, variables: Mapping[str, str]) -> list[str]:
    """Replace colours by short local variables, and return what those are."""
    short: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        colour = found[0]
        if colour not in variables:
            return colour
        return f"var({short.setdefault(colour, f'--c{len(short)}')})"

    for element in root.iter():
        if "style" in element.attrib:
            element.set("style", re.sub(r"#[0-9a-f]{6}", name, element.attrib["style"]))
    return [f"{local}:var({variables[colour]},{colour})" for colour, local in short.items()]


def _unwrap(root: ElementTree.Element) -> None:
    for child in list(root):
        _unwrap(child)
        position = list(root).index(child)
        invisible = child.tag == f"{SVG}path" and child.get("style") == "fill:none"
        if invisible or (child.tag in (f"{SVG}g", f"{SVG}defs") and len(child) == 0):
            root.remove(child)
        elif child.tag == f"{SVG}g" and not child.attrib:
            root.remove(child)
            for offset, grandchild in enumerate(list(child)):
                root.insert(position + offset, grandchild)


def _hoist(root: ElementTree.Element) -> None:
    """Say once what neighbours have in common."""
    children = list(root)
    for child in children:
        if child.tag != f"{SVG}defs":
            _hoist(child)
    start = 0
    while start < len(children):
        style, tag = children[start].get("style"), children[start].tag
        stop = start + 1
        while stop < len(children) and children[stop].get("style") == style and children[stop].tag == tag:
            stop += 1
        if stop - start > 1 and style and tag != f"{SVG}g":
            group = ElementTree.Element(f"{SVG}g", {"style": style})
            root.insert(list(root).index(children[start]), group)
            for child in children[start:stop]:
                del child.attrib["style"]
                root.remove(child)
                group.append(child)
        start = stop


def _label(root: ElementTree.Element, prefix: str, title: str) -> None:
    first, _, rest = title.partition("\n")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}title {prefix}desc" if rest else f"{prefix}title")
    for position, (name, text) in enumerate([("title", first), ("desc", rest)]):
        if text:
            element = ElementTree.Element(f"{SVG}{name}", {"id": f"{prefix}{name}"})
            element.text = text
            root.insert(position, element)
