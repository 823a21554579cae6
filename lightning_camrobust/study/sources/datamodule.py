"""The data set inside a LightningDataModule or a data loader."""

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch.utils.data import DataLoader, IterableDataset

from lightning_camrobust.errors import ArgumentError

Split = Literal["test", "validate", "predict"]
_LOADERS: dict[Split, str] = {"test": "test_dataloader", "validate": "val_dataloader", "predict": "predict_dataloader"}


def is_datamodule(data: object) -> bool:
    """Say whether an object is a LightningDataModule, of the package ``lightning`` or ``pytorch_lightning``.

    Args:
        data: Anything.

    Returns:
        Whether it has a data module's hooks.

    Example:
        >>> is_datamodule([])
        False
    """
    return all(callable(getattr(data, hook, None)) for hook in ("prepare_data", "setup", *_LOADERS.values()))


def dataset_of_datamodule(datamodule: Any, split: str | None) -> Any:
    """Set a data module up and take the data set of one split.

    Args:
        datamodule: The data module; its ``prepare_data`` and ``setup`` are called.
        split: ``"test"``, ``"validate"`` or ``"predict"``; None takes the first of these that has a loader.

    Returns:
        The data set of the split's only loader.

    Raises:
        ArgumentError: If there is no such loader, it is not the only one, or it has no map-style data set.
    """
    if split is not None and split not in get_args(Split):
        raise ArgumentError(f"open_images: `split` must be one of {get_args(Split)} or None, got {split!r}.")
    # Hooks that nobody wrote are the ones Lightning itself defines.
    own = [each for each, hook in _LOADERS.items() if not _is_lightnings(getattr(datamodule, hook))]
    chosen = next((each for each in own if split is None or each == split), None)
    name = type(datamodule).__name__
    if chosen is None:
        wanted = "test, validation or prediction data" if split is None else f"data for split={split!r}"
        have = ", ".join(repr(each) for each in own) or "none"
        raise ArgumentError(
            f"open_images: {name} has no {wanted}; splits with a loader: {have}. Write {_LOADERS['test']}(), or pass a "
            "data set."
        )
    try:
        datamodule.prepare_data()
        datamodule.setup(chosen)
        loaders = getattr(datamodule, _LOADERS[chosen])()
    except Exception as error:
        raise ArgumentError(
            f"open_images: {name} could not be set up for {chosen!r} ({type(error).__name__}: {str(error)[:160]}). Try "
            f"it yourself: datamodule.setup({chosen!r}); or choose another with split=."
        ) from error
    return dataset_of_loader(_only(loaders, f"{name}.{_LOADERS[chosen]}()"))


def dataset_of_loader(loader: Any) -> Any:
    """Take the data set of a data loader; its batch size, sampler and collate function play no part.

    Args:
        loader: A data loader.

    Returns:
        Its data set.

    Raises:
        ArgumentError: If it has none that is map-style.
    """
    dataset = getattr(loader, "dataset", None)
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        what = f"a {type(loader).__name__}" if dataset is None else f"the iterable {type(dataset).__name__}"
        raise ArgumentError(
            f"open_images: a data loader must hold a map-style data set, got {what}, whose images cannot be read again "
            "for each network. Pass a map-style data set, or write the images to a folder."
        )
    return dataset


def _only(loaders: Any, name: str) -> Any:
    if isinstance(loaders, DataLoader) or not isinstance(loaders, (dict, list, tuple)):
        return loaders
    found = list(loaders.values()) if isinstance(loaders, dict) else list(loaders)
    if len(found) != 1:
        raise ArgumentError(
            f"open_images: {name} gives {len(found)} loaders. Study one at a time: pass the data set of one of them."
        )
    return found[0]


def _is_lightnings(hook: Callable[..., Any]) -> bool:
    module = getattr(getattr(hook, "__func__", hook), "__module__", "")
    return module.partition(".")[0] in {"lightning", "pytorch_lightning"}
