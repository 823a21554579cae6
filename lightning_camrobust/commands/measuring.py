"""What the commands that measure have in common: models, images and grid from options, and the run itself."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Newer releases take action="config" instead; older ones do not.
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from lightning_camrobust._version import __version__
from lightning_camrobust.commands.naming import Named, build, find_object, resolve_named
from lightning_camrobust.commands.options import (
    BaselineOptions,
    GridOptions,
    ImageOptions,
    ModelOptions,
    RunOptions,
    TrainerOptions,
    given,
)
from lightning_camrobust.commands.parsing import add_options, take_options
from lightning_camrobust.errors import ArgumentError

if TYPE_CHECKING:
    from lightning_camrobust.study.critique import CritiqueSettings
    from lightning_camrobust.study.grid import StudyGrid
    from lightning_camrobust.study.image import ImageSource
    from lightning_camrobust.study.model import StudyModel

# Strategies that start their processes by running the command line again.
_RERUN = ("ddp", "fsdp", "deepspeed")
_FORKED = ("spawn", "fork", "notebook")


class WrongUsage(ArgumentError):
    """The command line itself is incomplete or contradicts itself."""

    wrong_usage = True


def add_measuring(parser: ArgumentParser) -> None:
    """Add the flags that say what is measured, and how.

    Args:
        parser: Of the command.
    """
    told = "YAML file with any of these options; flags after it win."
    parser.add_argument("--config", action=ActionConfigFile, help=told)
    add_options(parser, RunOptions, title="what goes in and out")
    parser.add_class_arguments(ImageOptions, "image_options", help="how images are read")
    add_options(parser, ModelOptions, title="one network by flags; several go into `models`", optional=("network",))
    parser.add_argument("--name", type=str, default="model", help="Name of that network, in tables.")
    add_options(parser, GridOptions, title="what is measured")
    parser.add_class_arguments(BaselineOptions, "critique", help="the critique of scores that remove pixels")
    parser.add_class_arguments(TrainerOptions, "trainer", help="Lightning's Trainer, which runs the networks")


def measure(options: Namespace) -> Path | None:
    """Measure what the options ask for.

    Args:
        options: All that was said to the command.

    Returns:
        The folder with the results; None in processes that only helped.

    Raises:
        ArgumentError: If something is missing or cannot be used.
    """
    run = take_options(options, RunOptions)
    if run.output is None or run.data is None:
        missing = "--output FOLDER" if run.output is None else "--data FOLDER_OR_FILE"
        raise WrongUsage(f"{missing} is missing. Give it as a flag, or as a line of the file behind --config.")
    _check_rerun(options.trainer)
    # In this order, so that a misspelt name fails before anything large is opened.
    grid, critique, models = make_grid(options), make_critique(options.critique), make_models(options)
    images = open_data(run.data, _sized(options.image_options, models))
    from lightning_camrobust.study.running import run_study
    from lightning_camrobust.study.source import check_readable

    if run.overwrite or not _is_finished(Path(run.output)):
        check_readable(images)
    folder = run_study(
        run.output,
        models,
        images,
        grid,
        shard_size=run.shard_size,
        chunk_size=run.chunk_size,
        trainer=vars(options.trainer),
        num_workers=run.num_workers,
        overwrite=run.overwrite,
        progress=run.progress,
    )
    if not _is_first_process():
        return None
    from lightning_camrobust.study.critique import write_critique
    from lightning_camrobust.study.gallery import write_gallery
    from lightning_camrobust.study.measured import BASELINES, GALLERY
    from lightning_camrobust.study.results import load_outcomes

    device = _device(options.trainer.accelerator)

    def draw() -> None:
        write_gallery(folder, load_outcomes(folder), models, images, grid, count=run.gallery, device=device)

    def judge() -> None:
        write_critique(folder, models, images, grid, critique, device=device)

    _make_once(folder, GALLERY, draw, asked={"count": run.gallery})
    _make_once(folder, BASELINES, judge, asked=asdict(critique))
    return folder


def _is_finished(folder: Path) -> bool:
    """Say whether a folder holds all results of the study that its manifest describes."""
    from lightning_camrobust.study.manifest import read_manifest
    from lightning_camrobust.study.shards import is_merged

    manifest = read_manifest(folder)
    return manifest is not None and is_merged(folder, digest=manifest["digest"])


def _make_once(folder: Path, file: str, make: Callable[[], None], *, asked: dict[str, Any]) -> None:
    """Make a file about a study, unless the manifest says that the same was made of this very study before."""
    from lightning_camrobust.study.manifest import read_manifest, write_manifest

    asked = json.loads(json.dumps({**asked, "version": __version__}))
    manifest = read_manifest(folder)
    made = manifest.get("made", {}) if manifest else {}
    if file in made and made[file] == {"asked": asked, "sha256": _hash_with_pictures(folder, file)}:
        return
    make()
    if manifest is not None:
        made[file] = {"asked": asked, "sha256": _hash_with_pictures(folder, file)}
        write_manifest(folder, {**manifest, "made": made})


def _hash_with_pictures(folder: Path, file: str) -> str | None:
    """Hash a list, None if it or a picture in it is not there."""
    try:
        content = (folder / file).read_bytes()
        pictures = [folder / each["file"] for each in json.loads(content) if "file" in each]
    except (OSError, ValueError):
        return None
    return hashlib.sha256(content).hexdigest() if all(each.is_file() for each in pictures) else None


def make_grid(options: Namespace) -> "StudyGrid":
    """Make the grid of a study.

    Args:
        options: All that was said to the command.

    Returns:
        The grid.

    Raises:
        ArgumentError: If a name is unknown or a list is empty.
    """
    from lightning_camrobust.study.grid import StudyGrid

    settings = given(take_options(options, GridOptions))
    for key, stage in (("methods", "cams"), ("perturbations", "perturb")):
        if key in settings:
            settings[key] = [resolve_named(stage, each, role=f"`{key}`") for each in settings[key]]
    for key, stage in (("similarity", "compare"), ("segmenter", "segment")):
        settings[key] = resolve_named(stage, settings[key], role=f"`{key}`")
    return StudyGrid(**settings)


def make_critique(options: Any) -> "CritiqueSettings":
    """Make the settings of the critique.

    Args:
        options: What was said of it.

    Returns:
        The settings.

    Raises:
        ArgumentError: If a baseline is unknown, or there are too few.
    """
    from lightning_camrobust.members import resolve_member
    from lightning_camrobust.study.critique import CritiqueSettings

    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given(options).items()
    }
    for name in settings.get("baselines", ()):
        resolve_member("baseline", name)
    return CritiqueSettings(**settings)


def make_models(options: Namespace) -> "dict[str, StudyModel]":
    """Make the models of a study, without building any network yet.

    Args:
        options: All that was said to the command.

    Returns:
        By name.

    Raises:
        ArgumentError: If there is none, or a network's class cannot be imported.
    """
    run, alone = take_options(options, RunOptions), take_options(options, ModelOptions)
    if bool(run.models) is (alone.network is not None):
        wrong = "both name" if run.models else "neither names"
        raise WrongUsage(
            f"--network and `models` {wrong} a network. Describe one by flags (--network package.module.Class "
            "--weights FILE), or several in YAML under `models` (camrobust study --help shows how)."
        )
    named = run.models or {options.name: alone}
    return {name: make_model(each, name=name) for name, each in named.items()}


def make_model(model: ModelOptions, *, name: str) -> "StudyModel":
    """Make one model.

    Args:
        model: What was said of it.
        name: Its name in the study.

    Returns:
        The model; its network is built when it is needed.

    Raises:
        ArgumentError: If its class cannot be imported, or the weights are not there.
    """
    from lightning_camrobust.study.model import StudyModel

    role = f"model {name!r}, `network`"
    find_object(model.network.path, role=role)
    if model.weights is not None and not Path(model.weights).is_file():
        raise ArgumentError(
            f"model {name!r}, `weights`: there is no file {model.weights!r} (looked for in {os.getcwd()}). Give the "
            "path of a state_dict or checkpoint, or leave it out to take the network as it is built."
        )
    settings = {key: value for key, value in given(model).items() if key != "network"}
    return StudyModel(partial(build, model.network, role=role), **settings)


def open_data(data: Named, image_options: Any) -> "ImageSource":
    """Open the images.

    Args:
        data: A path, or the import path of a data set or LightningDataModule.
        image_options: How they are read.

    Returns:
        The images.

    Raises:
        ArgumentError: If they cannot be opened.
    """
    from lightning_camrobust.study.source import open_images

    settings = given(image_options)
    if isinstance(settings.get("size"), list):
        settings["size"] = tuple(settings["size"])
    return open_images(build(data, role="`data`") if data.is_object else data.path, **settings)


def _sized(image_options: ImageOptions, models: "Mapping[str, StudyModel]") -> ImageOptions:
    """Take the networks' size for the images, where nothing else was said; all networks see the same images."""
    sizes = {name: model.size for name, model in models.items() if model.size is not None}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ArgumentError(
            f"`models`: one study shows all networks the same images, but their sizes differ ({shown}). Measure them "
            "in studies of their own, and put these on one page: camrobust report FOLDER FOLDER --output FOLDER."
        )
    size = next(iter(sizes.values()), None)
    if image_options.size is None:
        return replace(image_options, size=size)
    cut = image_options.size[-1] if isinstance(image_options.size, list) else image_options.size
    if size is not None and cut != size:
        raise ArgumentError(
            f"`image_options.size` makes images of {cut} pixels, but the networks take {size} (`size`). Make them "
            "equal, or leave one of them out."
        )
    return image_options


def _check_rerun(trainer: Any) -> None:
    """Refuse a strategy that runs the command line again where that would run something else."""
    strategy = str(trainer.strategy)
    several = strategy == "auto" and trainer.devices not in (1, "1", [0], "auto")
    if not several and (not strategy.startswith(_RERUN) or any(word in strategy for word in _FORKED)):
        return
    module = getattr(sys.modules["__main__"], "__spec__", None)
    is_script = module is None and Path(sys.argv[0]).name == "camrobust" and Path(sys.argv[0]).is_file()
    if not is_script and getattr(module, "name", "").partition(".")[0] != __package__.partition(".")[0]:
        raise ArgumentError(
            f"trainer.strategy={strategy!r} starts each process by running the command line again, and this one cannot "
            "be run again. Take --trainer.strategy ddp_spawn, or start it as: python -m lightning_camrobust ..."
        )


def _device(accelerator: str) -> str:
    """Say where pictures and the critique are made: on the GPU if the study was measured there."""
    import torch

    return "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"


def _is_first_process() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
