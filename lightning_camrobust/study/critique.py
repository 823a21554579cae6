"""How much scores that remove pixels owe to the way they remove them, for the models of a study."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_camrobust.explained import explain
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.study.critique_settings import CritiqueSettings, Subject
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource, spread
from lightning_camrobust.study.measured import BASELINES
from lightning_camrobust.study.measuring import LoadedModel, find_layers, load_model
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.region_maps import RegionMaps, region_maps
from lightning_camrobust.study.storage import written_whole
from lightning_camrobust.study.verdict_on_baselines import criticise

__all__ = ["CritiqueSettings", "Subject", "criticise", "draw_regions", "draw_subject", "write_critique"]


def write_critique(
    folder: str | Path,
    models: Mapping[str, StudyModel],
    images: ImageSource,
    grid: StudyGrid,
    settings: CritiqueSettings,
    *,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """Judge the maps of every model and layer, and write ``baselines.json``.

    Args:
        folder: Of the study.
        models: By name.
        images: The data set.
        grid: What the study measures: its methods are judged; fewer than two cannot be ranked, and nothing is written.
        settings: What is varied.
        device: Where the networks run.

    Returns:
        For each model and layer a title, a verdict, tables (title, columns, rows) and notes, as plain data.
    """
    plan = grid.plan()
    found: list[dict[str, Any]] = []
    if settings.num_images and len(plan.methods) > 1:
        chosen = spread(len(images), min(settings.num_images, len(images)))
        batch = [images[position] for position in chosen]
        for name, model in models.items():
            loaded = load_model(model)
            loaded.network.to(device)
            for layer, modules in find_layers(loaded, model, images[0]).items():
                with observe_only(loaded.network):
                    inputs = loaded.inputs(batch)
                    subject = draw_subject(loaded, inputs, modules, plan)
                    regions = draw_regions(loaded, inputs, modules, subject, settings) if settings.rise else None
                    found.append(criticise(subject, settings, title=f"{name}, {layer}", regions=regions))
    with written_whole(Path(folder) / BASELINES) as path:
        path.write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
    return found


def draw_subject(loaded: LoadedModel, inputs: Tensor, layers: Sequence[nn.Module], plan: ProbePlan) -> Subject:
    """Draw the maps of all methods.

    Args:
        loaded: The network.
        inputs: ``(b, c, H, W)``, in the network's units.
        layers: Target layers.
        plan: Its methods are drawn.

    Returns:
        What is judged.
    """
    seen = explain(loaded.network, inputs, plan.methods, layers=layers, fusion=plan.layer_fusion, space=loaded.space)
    pixels = loaded.space.to_pixels(inputs)
    classify = partial(_probabilities, loaded, inputs)
    return Subject(classify, pixels, seen.logits.argmax(dim=1), seen.maps)


def draw_regions(
    loaded: LoadedModel, inputs: Tensor, layers: Sequence[nn.Module], subject: Subject, settings: CritiqueSettings
) -> RegionMaps:
    """Draw RISE's maps with other settings, see :func:`~lightning_camrobust.study.region_maps.region_maps`."""
    return region_maps(
        lambda methods: (
            explain(loaded.network, inputs, methods, layers=layers, classes=subject.classes, space=loaded.space).maps
        ),
        masks=settings.masks,
        seeds=settings.seeds,
        baselines=settings.baselines,
    )


def _probabilities(loaded: LoadedModel, like: Tensor, pixels: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(each, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)
        for each in (loaded.space.mean, loaded.space.std)
    )
    logits: Tensor = loaded.network(((pixels - mean) / std).to(like.dtype))
    return logits.float().softmax(dim=1)
