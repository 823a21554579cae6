"""The few things asked of a trainer, in one place. Typed loosely, as two packages carry the same trainer."""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from lightning_camrobust.errors import ModelError

_SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")


def gather_rows(trainer: Any, rows: Tensor) -> Tensor:
    """Put the rows of all processes below one another; every process has to call it equally often.

    Args:
        trainer: The trainer.
        rows: ``(n, columns)``, of the same shape on every process.

    Returns:
        ``(processes * n, columns)`` on the CPU, the same on every process.
    """
    if trainer.world_size == 1:
        return rows
    gathered: Tensor = trainer.strategy.all_gather(rows.to(trainer.strategy.root_device))
    return gathered.reshape(-1, rows.shape[1]).cpu()


def pick_loader(loaders: Any, index: int) -> Any:
    """Pick one of the loaders that a trainer holds.

    Args:
        loaders: A single loader, or a list or dict of them.
        index: Which one.

    Returns:
        The loader, or None if there are fewer.

    Example:
        >>> pick_loader({"clean": "first", "shifted": "second"}, 1)
        'second'
    """
    several = list(loaders.values()) if isinstance(loaders, dict) else loaders
    if isinstance(several, (list, tuple)):
        return several[index] if index < len(several) else None
    return several


def is_last_batch(batch_idx: int, dataloader_idx: int, sizes: list[int | float]) -> bool:
    """Tell whether a batch is the last one of its loader.

    Args:
        batch_idx: Number of the batch.
        dataloader_idx: Number of the loader.
        sizes: Batches in each loader, infinity where unknown.

    Returns:
        The answer; never true for a loader of unknown length.

    Example:
        >>> is_last_batch(4, 0, [5])
        True
    """
    return dataloader_idx < len(sizes) and batch_idx + 1 == sizes[dataloader_idx]


def builds_modules_late(pl_module: Any) -> bool:
    """Tell whether a LightningModule overrides ``configure_model``, so that layers may not exist in ``setup``.

    Args:
        pl_module: The module.

    Returns:
        The answer.
    """
    owner = next(kind for kind in type(pl_module).__mro__ if "configure_model" in vars(kind))
    return not owner.__module__.startswith(("lightning.pytorch.", "pytorch_lightning."))


def monitors_of(trainer: Any, part: str) -> list[str]:
    """Name the callbacks that monitor one of our scores and would take an old value for a new one.

    Args:
        trainer: The trainer.
        part: What the monitored key, or one that it is combined from, must contain.

    Returns:
        Their class names.
    """
    combined = {each.combined_key for each in combiners(trainer) if part in each.accuracy or part in each.stability}
    keys = [(each, str(getattr(each, "monitor", None) or "")) for each in trainer.callbacks]
    watching = [each for each, key in keys if part in key or key in combined]
    return [type(each).__name__ for each in watching if not getattr(each, "counts_fresh_values_only", False)]


def combiners(trainer: Any) -> list[Any]:
    """List the callbacks of ours that make one score of several, and put it under a key of their own.

    Args:
        trainer: The trainer.

    Returns:
        Each has ``combined_key``, ``accuracy``, ``stability``, and ``combine(trainer)``.
    """
    return [each for each in trainer.callbacks if getattr(each, "combined_key", None) is not None]


def combine_scores(trainer: Any, keys: Collection[str]) -> None:
    """Let scores be combined before somebody reads them; those who combine are checkpoints, which come last.

    Args:
        trainer: At the end of a validation, on every process.
        keys: What will be read.
    """
    for each in combiners(trainer):
        if each.combined_key in keys:
            each.combine(trainer)


def validates_a_fit(trainer: Any) -> bool:
    """Tell whether a validation is one of a fit, and no sanity check.

    Args:
        trainer: The trainer.

    Returns:
        The answer.
    """
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_dry_run(trainer: Any) -> bool:
    """Tell whether the trainer only tries its code (``fast_dev_run``).

    Args:
        trainer: The trainer.

    Returns:
        The answer.
    """
    return bool(trainer.fast_dev_run)


def refuse_sharded(strategy: Any) -> None:
    """Refuse strategies that spread the parameters of one layer over several processes.

    Args:
        strategy: The trainer's strategy.

    Raises:
        ModelError: If it shards parameters: a forward is then a joint act of all processes, which the probe, in which
            each process explains its own images, is not.

    Example:
        >>> refuse_sharded(object())
    """
    name = next((kind.__name__ for kind in type(strategy).__mro__ if kind.__name__ in _SHARDED), None)
    if name is not None:
        raise ModelError(
            f"CAMRobustnessCallback: {name} spreads parameters over processes, and each process explains images of its "
            "own, which cannot work. Train with DDP or on one device, or measure a saved checkpoint with "
            "trainer.validate on one device."
        )


def logged_step(trainer: Any) -> int:
    """Find the position at which Lightning has just put the scalars of a validation or test run.

    ``trainer.global_step`` is one ahead of it, or several with several optimisers.

    Args:
        trainer: In ``on_validation_end`` or ``on_test_end``.

    Returns:
        The user's own ``step`` if this run logged one, else Lightning's count of batches.

    Example:
        >>> from types import SimpleNamespace
        >>> logged_step(SimpleNamespace(global_step=3))
        3
    """
    try:
        own = [each for each in trainer._results.values() if _is_step(each.meta) and each._computed is not None]
        if not own:
            return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
        # What hooks at the end of the epoch logged wins, the last of them; then the first loader.
        at_end = [each for each in own if each.meta.dataloader_idx is None]
        return int((at_end[-1] if at_end else min(own, key=lambda each: each.meta.dataloader_idx))._computed)
    except (AttributeError, TypeError):
        return int(trainer.global_step)


def _is_step(meta: Any) -> bool:
    """Tell whether Lightning takes a logged value for the step of the run: under no other name, and for loggers."""
    renamed = meta.on_step or (meta.dataloader_idx is not None and meta.add_dataloader_idx)
    return bool(meta.name == "step" and meta.logger and meta.on_epoch and not renamed)
