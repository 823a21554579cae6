"""Measure a grid on models and images through Lightning's Trainer, in steps that survive being killed."""

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.description import describe_structure
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource, KnowsLabels
from lightning_camrobust.study.job import SECONDS, StudyJob, sum_seconds
from lightning_camrobust.study.manifest import (
    MANIFEST,
    Manifest,
    begin_session,
    check_same_answers,
    check_same_settings,
    describe_session,
    finish_session,
    new_manifest,
    read_manifest,
    write_manifest,
)
from lightning_camrobust.study.measuring import (
    find_layers,
    first_logits,
    load_model,
    measure_images,
    study_noises,
)
from lightning_camrobust.study.model import StudyModel, check_labels, fingerprint, num_classes
from lightning_camrobust.study.prober import ShardProber, check_same_network
from lightning_camrobust.study.progress import StudyProgress
from lightning_camrobust.study.shards import RESULTS, SHARDS, is_merged, merge_shards
from lightning_camrobust.study.storage import check_writable, locked, remove_unfinished

_TRAINER_ARGUMENTS = ("accelerator", "devices", "strategy", "precision", "num_nodes")


def run_study(
    folder: str | Path,
    models: Mapping[str, StudyModel],
    images: ImageSource,
    grid: StudyGrid,
    *,
    shard_size: int = 32,
    chunk_size: int = 16,
    trainer: Mapping[str, object] | None = None,
    num_workers: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Measure every cell of a grid on every image; run it again to go on where it was stopped or killed.

    Args:
        folder: Where results go; made if it is not there.
        models: Networks by name.
        images: The data set.
        grid: What to measure.
        shard_size: Images between two points from which a killed run can go on.
        chunk_size: Images that go through a network at once; numbers do not depend on it, up to the last bits of the
            network's own arithmetic.
        trainer: Arguments of Lightning's Trainer: ``accelerator``, ``devices``, ``strategy``, ``precision``,
            ``num_nodes``. By default one device, the fastest there is. Results of several processes equal those of one
            to the last bit if each process has as many threads.
        num_workers: Processes that read images.
        overwrite: Whether to drop an earlier study in this folder, as soon as the new one is sure to begin. Its report,
            tables and figures stay until they are made anew.
        progress: Whether to show a bar with the remaining time.

    Returns:
        The folder: ``manifest.json``, ``results.parquet``, ``shards/``.

    Raises:
        ArgumentError: If an argument is unusable, or the folder holds another study.
        ModelError: If a network cannot be explained.
        StudyFolderError: If the folder cannot be written to; what was measured before stays.
        KeyboardInterrupt: If the user stops it; what was measured stays.
    """
    folder = Path(folder)
    _check_arguments(models, images, shard_size=shard_size, chunk_size=chunk_size, num_workers=num_workers)
    given = {"devices": 1, **(trainer or {})}
    engine = _make_trainer(given)
    job = StudyJob(folder, models, images, grid, {}, chunk_size, num_workers)
    if not engine.is_global_zero:
        return _take_part(engine, job)
    check_writable(folder)
    with locked(folder):
        settings, logits, parameters = _survey(job, shard_size=shard_size, precision=str(engine.precision))
        earlier = None if overwrite else read_manifest(folder)
        if earlier is not None and _holds_results(folder):
            check_same_settings(earlier["settings"], settings, folder=folder)
            check_same_answers(earlier.get("logits", {}), logits, folder=folder)
            manifest = earlier
        else:  # what failed before it measured anything is no study
            manifest = {**new_manifest(settings), "logits": logits}
        # In the order of the first session, whatever order the models are given in now.
        job = replace(job, settings=manifest["settings"])
        # For readers only; a study that was begun before this was written down goes on all the same.
        manifest["facts"] = job.facts(parameters)
        missing = job.shards() if overwrite else job.missing()
        _rehearse(job, list(dict.fromkeys(shard.model for shard in missing)))
        if overwrite:
            _drop_study(folder)
        session = describe_session(given, device=_device(engine), processes=engine.world_size, chunk_size=chunk_size)
        begin_session(manifest, session, seconds=sum_seconds(folder))
        write_manifest(folder, manifest)
        remove_unfinished(folder / SHARDS)
        for name in (MANIFEST, RESULTS):
            remove_unfinished(folder, of=name)
        if missing or engine.world_size > 1:
            _predict(engine, job, progress=progress)
        _wait_until(lambda: all(shard.path(folder).is_file() for shard in missing))
        if missing or not is_merged(folder, digest=manifest["digest"]):
            merge_shards(folder, job.shards(), schema=job.schema)
        finish_session(manifest, seconds=sum_seconds(folder))
        write_manifest(folder, manifest)
    return folder


def _take_part(engine: pl.Trainer, job: StudyJob) -> Path:
    """Be one of several processes: the first one prepares the folder, and puts results together at the end."""
    with _quiet():
        engine.predict(ShardProber(job), return_predictions=False)
    # Whoever returns may read the results. No barrier of torch: those give up after some minutes.
    _wait_until(lambda: (read_manifest(job.folder) or {"sessions": [{}]})["sessions"][-1].get("finished") is not None)
    return job.folder


def _check_arguments(
    models: Mapping[str, StudyModel], images: ImageSource, *, shard_size: int, chunk_size: int, num_workers: int
) -> None:
    if not models:
        raise ArgumentError("run_study: `models` must hold at least one model, got none.")
    for name in models:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ArgumentError(
                f"run_study: `models` must have names that can be read in a table, got {name!r}. Give each network a "
                "word, such as 'resnet18'."
            )
    if not len(images):
        raise ArgumentError("run_study: `images` must hold at least one image, got none.")
    for name, size, least in (
        ("shard_size", shard_size, 1),
        ("chunk_size", chunk_size, 1),
        ("num_workers", num_workers, 0),
    ):
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ArgumentError(f"run_study: `{name}` must be a whole number of at least {least}, got {size!r}.")


def _make_trainer(given: Mapping[str, Any]) -> pl.Trainer:
    unknown = [name for name in given if name not in _TRAINER_ARGUMENTS]
    if unknown:
        raise ArgumentError(
            f"run_study: `trainer` may hold {', '.join(_TRAINER_ARGUMENTS)}; got {unknown[0]!r}. The study sets the "
            "other arguments itself."
        )
    try:
        return _trainer(given)
    except Exception as error:
        wrong = [f"{name}={value!r}" for name, value in given.items() if _is_refused(name, value)]
        asked = ", ".join(wrong or [f"{name}={value!r}" for name, value in given.items()])
        raise ArgumentError(
            f"run_study: Lightning's Trainer does not accept {asked} here. It says: {str(error)[:400]}"
        ) from error


def _trainer(given: Mapping[str, Any]) -> pl.Trainer:
    with _quiet():
        return pl.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            use_distributed_sampler=False,
            **given,
        )


def _is_refused(name: str, value: object) -> bool:
    """Say whether Lightning refuses an argument of the Trainer that is given alone."""
    try:
        _trainer({name: value})
    except Exception:
        return True
    return False


def _survey(
    job: StudyJob, *, shard_size: int, precision: str
) -> tuple[Manifest, dict[str, list[float]], dict[str, int]]:
    """Build each model once; return all that determines the numbers, some logits of each, and its parameters' count."""
    described, logits, parameters = {}, {}, {}
    for name, model in job.models.items():
        loaded = load_model(model)
        _check_size(name, model, job.images[0].pixels.shape)
        # First of all, as it has the words for images that the network does not take.
        num_classes(loaded.network, loaded.inputs([job.images[0]]))
        logits[name] = first_logits(loaded, job.images[0])
        parameters[name] = sum(each.numel() for each in loaded.network.parameters())
        described[name] = {
            "network": type(loaded.network).__qualname__,
            "classifier": model.classifier,
            "structure": describe_structure(loaded.network),
            "weights": fingerprint(loaded.network),
            "target_layers": list(find_layers(loaded, model, job.images[0])),
            "mean": list(loaded.space.mean),
            "std": list(loaded.space.std),
        }
    data = {"name": job.images.name, "num_images": len(job.images), "fingerprint": job.images.fingerprint()}
    settings = {
        "grid": job.grid.describe(),
        "methods": list(job.plan.methods),
        "noises": [[noise.perturbation, noise.severity, noise.kind] for noise in study_noises(job.plan)],
        "readings": list(job.plan.readings),
        "models": described,
        "data": data,
        "shard_size": shard_size,
        "precision": precision,
    }
    return settings, logits, parameters


def _check_size(name: str, model: StudyModel, shape: Sequence[int]) -> None:
    if model.size is not None and tuple(shape[-2:]) != (model.size, model.size):
        raise ArgumentError(
            f"run_study: model {name!r} takes images of {model.size} x {model.size} (its `size`), but the data set has "
            f"{shape[-2]} x {shape[-1]}. Open the images with open_images(..., size={model.size}), or leave `size` out."
        )


def _rehearse(job: StudyJob, names: Sequence[str]) -> None:
    """Measure one image by all models, so that what cannot work fails before the long part."""
    first = {noise.label: noise for noise in reversed(job.plan.noises)}
    short = replace(job.plan, noises=tuple(first.values()))
    # Of sources that do not know all labels at once, each shard's labels are checked when it is read.
    labels = job.images.known_labels() if isinstance(job.images, KnowsLabels) else [job.images[0].label]
    for name in names:
        loaded = load_model(job.models[name])
        check_same_network(name, loaded.network, job.settings["models"][name]["weights"])
        classes = num_classes(loaded.network, loaded.inputs([job.images[0]]))
        check_labels(labels, classes, model=name, data=job.images.name)
        for layers in find_layers(loaded, job.models[name], job.images[0]).values():
            measure_images(loaded, layers, [job.images[0]], plan=short, chunk_size=1)


def _predict(engine: pl.Trainer, job: StudyJob, *, progress: bool) -> None:
    shards, missing = job.shards(), job.missing()
    total, left = (sum(shard.stop - shard.start for shard in each) for each in (shards, missing))
    bar = StudyProgress(total=total, done=total - left) if progress else None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _quiet():
            engine.predict(ShardProber(job, bar), return_predictions=False)
    except SystemExit as error:
        # Lightning makes this of a KeyboardInterrupt.
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise _stopped(job, len(shards)) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            # Older releases of Lightning leave theirs behind when they are interrupted.
            for number, handler in handlers.items():
                if handler is not None:  # not set from Python
                    signal.signal(number, handler)
    if engine.interrupted:  # older releases of Lightning return as if all were done
        raise _stopped(job, len(shards))


def _stopped(job: StudyJob, total: int) -> KeyboardInterrupt:
    done = total - len(job.missing())
    return KeyboardInterrupt(
        f"The study in {job.folder} was stopped; {done} of {total} shards are measured. Run the same command again: it "
        "goes on from there."
    )


def _wait_until(done: Callable[[], bool]) -> None:
    """Wait for other processes, as long as the one that started this one lives."""
    parent = os.getppid()
    while not done():
        if os.getppid() != parent:
            raise SystemExit("run_study: the process that started this one is gone.")
        time.sleep(0.2)


def _holds_results(folder: Path) -> bool:
    return (folder / RESULTS).exists() or any((folder / SHARDS).glob("*/*/[0-9]*.parquet"))


def _drop_study(folder: Path) -> None:
    """Remove what an earlier study left, and nothing that only looks like it."""
    (folder / RESULTS).unlink(missing_ok=True)
    for path in (folder / SHARDS).glob("*/*/[0-9]*.parquet"):
        path.unlink()
    for name in (SECONDS, MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _device(engine: pl.Trainer) -> str:
    root = engine.strategy.root_device
    return torch.cuda.get_device_name(root) if root.type == "cuda" else str(root)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks on hardware and loaders to itself: they are about training."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for remark in (".*does not have many workers.*", ".*available but not used.*", ".*`isinstance.treespec.*"):
                warnings.filterwarnings("ignore", message=remark)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
