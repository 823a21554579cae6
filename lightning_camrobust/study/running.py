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
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource
from lightning_camrobust.study.job import SECONDS, StudyJob, sum_seconds
from lightning_camrobust.study.manifest import (
    MANIFEST,
    Manifest,
    begin_session,
    check_same_settings,
    describe_session,
    finish_session,
    new_manifest,
    read_manifest,
    write_manifest,
)
from lightning_camrobust.study.measuring import find_layers, load_model, measure_images, study_noises
from lightning_camrobust.study.model import StudyModel, check_labels, fingerprint, num_classes
from lightning_camrobust.study.prober import ShardProber
from lightning_camrobust.study.progress import StudyProgress
from lightning_camrobust.study.shards import RESULTS, SHARDS, merge_shards
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
        settings = _survey(job, shard_size=shard_size, precision=str(engine.precision))
        earlier = None if overwrite else read_manifest(folder)
        if earlier is not None:
            check_same_settings(earlier["settings"], settings, folder=folder)
        manifest = earlier or new_manifest(settings)
        # In the order of the first session, whatever order the models are given in now.
        job = replace(job, settings=manifest["settings"])
        missing = job.shards() if overwrite else job.missing()
        _rehearse(job, list(dict.fromkeys(shard.model for shard in missing)))
        if overwrite:
            _drop_study(folder)
        session = describe_session(given, device=_device(engine), processes=engine.world_size, chunk_size=chunk_size)
        begin_session(manifest, session, seconds=sum_seconds(folder))
        write_manifest(folder, manifest)
        remove_unfinished(folder / SHARDS)
        if missing or engine.world_size > 1:
            _predict(engine, job, progress=progress)
        _wait_until(lambda: all(shard.path(folder).is_file() for shard in missing))
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


def _survey(job: StudyJob, *, shard_size: int, precision: str) -> Manifest:
    """Build each model once, for its hash and the names of its layers; say all that determines the numbers."""
    described = {}
    for name, model in job.models.items():
        loaded = load_model(model)
        _check_size(name, model, job.images[0].pixels.shape)
        described[name] = {
            "network": type(loaded.network).__qualname__,
            "weights": fingerprint(loaded.network),
            "target_layers": list(find_layers(loaded, model, job.images[0])),
            "mean": list(loaded.space.mean),
            "std": list(loaded.space.std),
        }
    data = {"name": job.images.name, "num_images": len(job.images), "fingerprint": job.images.fingerprint()}
    return {
        "grid": job.grid.describe(),
        "methods": list(job.plan.methods),
        "noises": [[noise.perturbation, noise.severity, noise.kind] for noise in study_noises(job.plan)],
        "readings": list(job.plan.readings),
        "models": described,
        "data": data,
        "shard_size": shard_size,
        "precision": precision,
    }


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
    # Sources that know all labels at once say so; of the others, each shard's labels are checked when it is read.
    labels = [int(label) for label in getattr(job.images, "labels", ())] or [job.images[0].label]
    for name in names:
        loaded = load_model(job.models[name])
        classes = num_classes(loaded.network, loaded.inputs([job.images[0]]))
        check_labels(labels, classes, model=name, data=job.images.name)
        for layers in find_layers(loaded, job.models[name], job.images[0]).values():
            measure_images(loaded, layers, [job.images[0]], plan=short, chunk_size=1)


def _predict(engine: pl.Trainer, job: StudyJob, *, progress: bool) -> None:
    shards, missing = job.shards(), job.missing()
    total, left = (sum(shard.stop - shard.start for shard in each) for each in (shards, missing))
    bar = StudyProgress(total=total, done=total - left) if progress else None
    handler = signal.getsignal(signal.SIGINT)
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
            signal.signal(signal.SIGINT, handler)
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
