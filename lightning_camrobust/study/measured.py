"""The models of one finished study or of several, under names that tell them apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Outcomes
from lightning_camrobust.study.results import load_manifest, load_outcomes

# What a study may hold beside its results: lists of pictures, and of verdicts on scores that remove pixels.
GALLERY = "gallery.json"
BASELINES = "baselines.json"


@dataclass(frozen=True)
class MeasuredModel:
    """One model on one target layer.

    Attributes:
        outcomes: What was measured; ``outcomes.model`` is the name in the report.
        folder: Of the study.
        seconds: What measuring took; NaN if that is not known.
    """

    outcomes: Outcomes
    folder: Path
    seconds: float


def load_measured(folders: str | Path | Sequence[str | Path]) -> list[MeasuredModel]:
    """Load finished studies.

    Args:
        folders: One or several.

    Returns:
        Every model and target layer. A name that another folder has as well, for whatever network, gets its folder's
        name in front, such as ``"monday/resnet"``.

    Raises:
        ArgumentError: If there is no folder, one is given twice, or a study is unfinished or unreadable.
    """
    given = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
    if not given:
        raise ArgumentError("Report: `folders` must hold at least one finished study, got none.")
    for folder, count in Counter(folder.resolve() for folder in given).items():
        if count > 1:
            raise ArgumentError(f"Report: the folder {folder} is named {count} times. Name each study once.")
    found = [_load(folder) for folder in given]
    folders_of = Counter(name for models in found for name in {each.outcomes.model for each in models})
    return [
        each if folders_of[each.outcomes.model] == 1 else _with_folder(each, given)
        for models in found
        for each in models
    ]


def _load(folder: Path) -> list[MeasuredModel]:
    seconds: dict[str, Any] = load_manifest(folder).get("seconds", {})
    return [
        MeasuredModel(each, folder, float(seconds.get(each.model, {}).get(each.target_layer, float("nan"))))
        for each in load_outcomes(folder)
    ]


def _with_folder(measured: MeasuredModel, folders: Sequence[Path]) -> MeasuredModel:
    names = Counter(folder.resolve().name for folder in folders)
    own = measured.folder.resolve()
    label = own.name if names[own.name] == 1 else str(own)
    return replace(measured, outcomes=replace(measured.outcomes, model=f"{label}/{measured.outcomes.model}"))
