"""Write the report of a study: one HTML file that holds all it shows, tables as CSV, figures as PNG and SVG."""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_camrobust._version import __version__
from lightning_camrobust.study.figures.style import DARK, LIGHT
from lightning_camrobust.study.findings import Findings
from lightning_camrobust.study.page import sentences, texts
from lightning_camrobust.study.page.illustrations import Illustration, draw_illustrations, save_illustrations
from lightning_camrobust.study.page.pictures import Picture, embed_pictures
from lightning_camrobust.study.page.sections import Drawing, make_sections, model_name
from lightning_camrobust.study.page.tables import make_tables
from lightning_camrobust.study.page.writing import LISTING, PAGE, move_into_place, staging_folder, write_files
from lightning_camrobust.study.verdict import describe_model

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def write_report(findings: Findings, folder: "str | Path", *, pictures: bool = True) -> Path:
    """Write a study's findings for readers.

    Everything is written aside first and put in place when it is whole. If that fails, an earlier report stays as it
    was. Files of an earlier report that are not part of the new one are removed; other files are left alone.

    Args:
        findings: Of a study.
        folder: Of the study; pictures of the gallery are read from it. Made if it is missing.
        pictures: Whether the page holds the pictures of the gallery. Leave them out of a page that is made public if
            the images may not be.

    Returns:
        Path of ``report.html``; beside it are ``tables/*.csv`` and ``figures/*.png`` and ``*.svg``.

    Raises:
        ReportWriteError: If something cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(Findings("A study", verdict=(), models=()), folder).name
        'report.html'
    """
    target = Path(folder)
    with staging_folder(target) as staged:
        write_files(staged, {f"tables/{table.name}.csv": table.as_csv() for table in make_tables(findings)})
        illustrations = draw_illustrations(findings)
        save_illustrations(illustrations, staged / "figures")
        files = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
        shown = embed_pictures(findings.gallery, target) if pictures else ()
        write_files(staged, {PAGE: render_page(findings, illustrations, shown, files=files)})
        move_into_place(staged, target)
    return target / PAGE


def render_page(
    findings: Findings,
    illustrations: "tuple[Illustration, ...]" = (),
    pictures: tuple[Picture, ...] = (),
    *,
    files: "list[str] | None" = None,
) -> str:
    """Write the page.

    Args:
        findings: Of a study.
        illustrations: Figures.
        pictures: Of the gallery.
        files: What lies beside the page, relative to it.

    Returns:
        HTML.
    """
    from markupsafe import Markup

    # Trusted as markup: the figures come from our own writer, which escapes the text in them, and the rest are ours.
    drawings = [
        Drawing(each.group, each.place, each.caption, Markup(each.svg), Markup(each.narrow_svg))
        for each in illustrations
    ]
    script = _read("page.js")
    environment = _environment()
    # Figures obey the same colours as the page.
    colours = {"light_colours": LIGHT.variables(), "dark_colours": DARK.variables()}
    css = environment.get_template("page.css.jinja").render(colours)
    return environment.get_template("page.html.jinja").render(
        findings=findings,
        facts=_facts(findings),
        verdict=_verdict(findings),
        lines=[(model_name(model, findings.models), sentences.model_line(model)) for model in findings.models],
        sections=make_sections(findings, drawings, pictures),
        files=files or [],
        listing=LISTING,
        version=__version__,
        css=Markup(css),
        script=Markup(script),
        script_hash=Markup("sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
    )


def _verdict(findings: Findings) -> list[str]:
    """Leave out what the cards below the verdict say of each model, where there are several."""
    on_cards = {sentence for model in findings.models for sentence in describe_model(model)}
    rest = [sentence for sentence in findings.verdict if sentence not in on_cards]
    return rest if len(findings.models) > 1 and rest else list(findings.verdict)


def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": texts.number,
        "interval": texts.interval,
        "p": texts.p_value,
        "share": texts.share,
        "percent": lambda value: f"{100 * value:g}%",
        "count": texts.count,
        "counted": texts.counted,
        "duration": texts.duration,
        "degrees": lambda value: texts.number(value, 0 if float(value).is_integer() else 1),
        "breakable": _breakable,
        "anything": texts.anything,
        "undefined_reason": sentences.undefined_reason,
        "pair_words": sentences.pair_words,
        "told_apart": lambda pairs: sum(sentences.pair_words(pair) == "differ" for pair in pairs),
    }
    return environment


def _breakable(label: str) -> "Markup":
    """Let a long label go on in the next line behind an underscore, on narrow screens."""
    from markupsafe import Markup, escape

    return Markup("_<wbr>").join(escape(part) for part in label.split("_"))


def _read(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _facts(findings: Findings) -> list[str]:
    rows = [row for model in findings.models for row in model.scores]
    if not rows:
        return []
    images = [model.num_images for model in findings.models]
    return [
        texts.counted(len({model.model for model in findings.models}), "model"),
        texts.counted(len({row.method for row in rows}), "CAM method"),
        texts.counted(len({row.perturbation for row in rows if row.perturbation}), "perturbation"),
        f"{'up to ' if len(set(images)) > 1 else ''}{texts.counted(max(images), 'image')}",
        f"{texts.count(findings.resamples)} bootstrap resamples",
    ]
