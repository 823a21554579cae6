"""Pictures of the images whose maps are most and least stable, drawn again with the network at hand."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightning_camrobust.gallery import Gallery, Panel, collect_gallery, picture_noises
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.probe import probe
from lightning_camrobust.report.drawing import draw_gallery, figure_to_pixels, png_bytes
from lightning_camrobust.study.findings import GalleryItem
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource
from lightning_camrobust.study.measured import GALLERY
from lightning_camrobust.study.measuring import LoadedModel, find_layers, load_model
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.outcomes import Integers, Outcomes
from lightning_camrobust.study.statistics.image_means import image_means
from lightning_camrobust.study.storage import written_whole

# More make a picture too wide to be read in a column of the page.
MOST_NOISES = 3


def extreme_images(outcomes: Outcomes, method: str, count: int) -> tuple[Integers, Integers]:
    """Find the images whose maps stay most, and least, while the prediction stays.

    Args:
        outcomes: Of one model.
        method: Label of a CAM method.
        count: How many of each; fewer if there are not twice as many.

    Returns:
        Positions of the most stable images, best first, and of the least stable ones, worst first. Images without a
        pair under photometric noise that kept its class are in neither.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> nobody = np.zeros(4, dtype=np.int64)
        >>> outcomes = Outcomes(
        ...     "net", "layer4", "pets", tuple("abcd"), nobody, ("gradcam",), (Noise("fog", 1),), nobody,
        ...     nobody[:, None], np.ones((4, 1), dtype=bool), np.array([0.5, 0.9, 0.1, 0.7])[:, None, None], np.ones(4),
        ... )
        >>> [each.tolist() for each in extreme_images(outcomes, "gradcam", 1)]
        [[1], [2]]
    """
    kept = outcomes.of_kind("photometric") if any(n.kind == "photometric" for n in outcomes.noises) else outcomes
    column = outcomes.methods.index(method)
    means = image_means(kept.similarity[:, [column]], kept.same, measure="consistency")[:, 0]
    known = np.flatnonzero(~np.isnan(means))
    # A stable sort: equal images keep the order of the data.
    order = known[np.argsort(-means[known], kind="stable")]
    count = min(count, len(order) // 2)
    return order[:count], order[::-1][:count]


def write_gallery(
    folder: str | Path,
    outcomes: Sequence[Outcomes],
    models: Mapping[str, StudyModel],
    images: ImageSource,
    grid: StudyGrid,
    *,
    count: int = 4,
    device: torch.device | str = "cpu",
) -> list[GalleryItem]:
    """Draw the most and the least stable images of each model.

    Args:
        folder: Of the study.
        outcomes: Of every model, measured before.
        models: By name.
        images: The data set.
        grid: What was measured.
        count: Images a picture; with 0 earlier pictures are left out of the report.
        device: Where the networks run.

    Returns:
        What was drawn; the files lie in ``gallery/`` and are listed in ``gallery.json``.
    """
    folder = Path(folder)
    items: list[GalleryItem] = []
    for name in dict.fromkeys(each.model for each in outcomes) if count > 0 else ():
        loaded = load_model(models[name])
        loaded.network.to(device)
        layers = find_layers(loaded, models[name], images[0])
        for number, each in enumerate(outcomes, 1):
            if each.model == name:
                # Two names may give one file name; the number tells them apart.
                stem = f"gallery/{number}-{_slug(each)}"
                items += _draw_model(folder, each, loaded, layers[each.target_layer], images, grid.plan(), count, stem)
    before = _listed(folder)
    with written_whole(folder / GALLERY) as path:
        path.write_text(json.dumps([asdict(item) for item in items], indent=1), encoding="utf-8")
    for file in before - {item.file for item in items}:
        (folder / file).unlink(missing_ok=True)
    return items


def _listed(folder: Path) -> set[str]:
    """Read which pictures an earlier gallery drew; a damaged list names none."""
    try:
        found = json.loads((folder / GALLERY).read_text(encoding="utf-8"))
        return {each["file"] for each in found if re.fullmatch(r"gallery/[\w-]+\.png", each["file"])}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _draw_model(
    folder: Path,
    outcomes: Outcomes,
    loaded: LoadedModel,
    layers: Sequence[nn.Module],
    images: ImageSource,
    plan: ProbePlan,
    count: int,
    stem: str,
) -> Iterator[GalleryItem]:
    method = outcomes.methods[0]
    short = replace(plan, methods={method: plan.methods[method]}, readings={})
    chosen = picture_noises(short)[:MOST_NOISES]
    short = replace(short, noises=tuple(plan.noises[index] for index in chosen))
    for how, positions in zip(("most", "least"), extreme_images(outcomes, method, count), strict=True):
        if not len(positions):
            continue
        title = f"{outcomes.model}, {outcomes.target_layer}: maps that stay {how} while the prediction stays ({method})"
        inputs = loaded.inputs([images[int(position)] for position in positions])
        with observe_only(loaded.network):
            found = probe(
                loaded.network,
                inputs,
                plan=short,
                target_layer=layers,
                space=loaded.space,
                keep_noises=range(len(short.noises)),
            )
        gallery = collect_gallery(found, short, space=loaded.space, count=len(positions))
        file = f"{stem}-{how}.png"
        with written_whole(folder / file) as path:
            path.write_bytes(png_bytes(figure_to_pixels(draw_gallery(gallery, heading=title))))
        yield GalleryItem(title=title, file=file, alt=_in_words(gallery, [outcomes.images[row] for row in positions]))


def _in_words(gallery: Gallery, names: Sequence[str]) -> str:
    """Say what a picture shows, for readers who cannot see it."""
    rows = [
        f"{name}: class {clean.predicted}; {'; '.join(_panel_in_words(each, gallery.measure) for each in noisy)}"
        for name, (clean, *noisy) in zip(names, gallery.rows, strict=True)
    ]
    return f"One row an image: the clean image and its {gallery.method} map, then noisy ones. {'. '.join(rows)}."


def _panel_in_words(panel: Panel, measure: str) -> str:
    similar = "not rankable" if panel.similarity is None else f"{measure} {panel.similarity:.2f}"
    return f"{panel.title}, class {'kept' if panel.same else 'changed'}, {similar}"


def _slug(outcomes: Outcomes) -> str:
    name = f"{outcomes.model}-{outcomes.target_layer}"
    # Disks take names of 255 bytes, and a letter can have four.
    return "".join(sign if sign.isalnum() else "-" for sign in name)[:50]
