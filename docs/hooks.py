"""What the site writes by itself: lists read from the package's folders, and each page's Markdown beside its HTML.

A page asks for a list by a comment: ``<!-- members: cams -->`` is every file of that folder with its documentation,
``<!-- names: lightning_camrobust.study -->`` every public name of that package in one table, ``<!-- pages: how-to -->``
every page of that folder, and ``<!-- examples: *.py -->`` every such script with its code.
"""

import ast
import re
from pathlib import Path
from typing import Any

from plain_reference import expand_directives  # MkDocs lets a hook see its own folder

ROOT = Path(__file__).resolve().parents[1]
_LIST = re.compile(r"^<!-- (members|names|pages|examples): (\S+) -->$", re.MULTILINE)
_SETUP = re.compile(r"^<!--\s*setup:.*?-->\n+", re.MULTILINE | re.DOTALL)
_MEMBER = """\
::: {path}
    options: {{heading: "{name}", toc_label: "{name}", heading_level: 2, show_symbol_type_heading: false}}
"""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put lists where a page asks for them, and leave out what tests run in front of a block.

    Args:
        markdown: Of the page.

    Returns:
        The same with lists, without setup.
    """
    lists = {"members": list_members, "names": list_names, "pages": list_pages, "examples": list_examples}
    return _LIST.sub(lambda found: lists[found[1]](found[2]), _SETUP.sub("", markdown))


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Write the Markdown of a page beside it, for readers that are programs; llms.txt leads to these files.

    Args:
        output: The page as HTML.
        page: As MkDocs knows it.
        config: Of the site.

    Returns:
        The page as it came.
    """
    copy = Path(config.site_dir, page.file.src_uri)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(expand_directives(page.markdown), encoding="utf-8")
    return output


def list_members(stage: str) -> str:
    """Document every member of a folder: first one line each, then all that is known.

    Args:
        stage: The folder, such as ``"cams"``.

    Returns:
        Markdown.
    """
    files = sorted(ROOT.glob(f"lightning_camrobust/{stage}/[!_]*.py"))
    paths = {file.stem: f"lightning_camrobust.{stage}.{file.stem}" for file in files}
    lines = [f"- [`{file.stem}`][{paths[file.stem]}]: {_member_class(file)}" for file in files]
    return "\n".join([*lines, "", *(_MEMBER.format(name=name, path=path) for name, path in paths.items())])


def list_names(package: str) -> str:
    """List the public names of a package with their first sentence.

    Args:
        package: Dotted name; its ``__init__.pyi`` is the list.

    Returns:
        Markdown.
    """
    folder = ROOT.joinpath(*package.split("."))
    stub = ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8"))
    rows = ["| name | what it is |", "|---|---|"]
    for line in stub.body:
        if isinstance(line, ast.ImportFrom) and line.module != "_version":
            name, file = line.names[0].name, folder.joinpath(*str(line.module).split(".")).with_suffix(".py")
            said = _first_sentence(_definitions(file)[name])
            rows.append(f"| [`{name}`][{package}.{name}] | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def list_pages(folder: str) -> str:
    """List the pages of a folder by their title and first sentence.

    Args:
        folder: Below docs.

    Returns:
        Markdown, for a page in that folder.
    """
    lines = []
    for file in sorted(ROOT.glob(f"docs/{folder}/*.md")):
        if file.stem == "index":
            continue
        title, _, text = file.read_text(encoding="utf-8").partition("\n")
        sentence = re.split(r"(?<=[.:])\s|\n\n", text.strip())[0]
        lines.append(f"- [{title.lstrip('# ')}]({file.name}): {sentence}")
    return "\n".join(lines)


def list_examples(pattern: str) -> str:
    """Show scripts and settings: what each does, and its code folded away.

    Args:
        pattern: Of file names in examples.

    Returns:
        Markdown.
    """
    shown = []
    for file in sorted(ROOT.glob(f"examples/{pattern}")):
        name, language = file.relative_to(ROOT / "examples").as_posix(), file.suffix.lstrip(".").replace("py", "python")
        told = _first_sentence(ast.parse(file.read_text(encoding="utf-8"))) if language == "python" else ""
        code = f'    ```{language}\n    --8<-- "examples/{name}"\n    ```\n'
        shown.append(f'## {name}\n\n{told}\n\n??? example "examples/{name}"\n\n{code}')
    return "\n".join(shown)


def _member_class(file: Path) -> str:
    """Say what the class that a member's bare name stands for says of itself, else what the file does."""
    tree, own = ast.parse(file.read_text(encoding="utf-8")), _definitions(file)
    for line in tree.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "EXAMPLES":
            first = line.value.elts[0] if isinstance(line.value, ast.Tuple) else None
            name = first.func.id if isinstance(first, ast.Call) and isinstance(first.func, ast.Name) else ""
            return _first_sentence(own.get(name, tree))
    return _first_sentence(tree)


def _definitions(file: Path) -> dict[str, Any]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {each.name: each for each in tree.body if isinstance(each, ast.ClassDef | ast.FunctionDef)}


def _first_sentence(node: Any) -> str:
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
