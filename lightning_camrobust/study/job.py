"""One study: its folder, what it measures, and what is left to do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.severity import resolved_level
from lightning_camrobust.study.description import describe_setting
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import ImageSource
from lightning_camrobust.study.manifest import digest_of
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.rows import row_schema
from lightning_camrobust.study.shards import Shard, cut_into_shards, missing_shards
from lightning_camrobust.study.storage import explain_storage

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS = "seconds.jsonl"


@dataclass(frozen=True)
class StudyJob:
    """What all processes of a study know.

    Attributes:
        folder: Where results go.
        models: Networks by name.
        images: The data set.
        grid: What to measure.
        settings: All that determines the numbers, as in the manifest.
        chunk_size: Images that go through a network at once.
        num_workers: Processes that read images.
    """

    folder: Path
    models: Mapping[str, StudyModel]
    images: ImageSource
    grid: StudyGrid
    settings: Mapping[str, Any]
    chunk_size: int
    num_workers: int

    @cached_property
    def plan(self) -> ProbePlan:
        """The grid, resolved."""
        return self.grid.plan()

    @property
    def schema(self) -> "pa.Schema":
        """Of the rows; it carries the digest of the settings."""
        return row_schema(list(self.plan.readings), digest=digest_of(self.settings))

    def facts(self, parameters: Mapping[str, int]) -> dict[str, Any]:
        """Say what readers want to know of a study, and what follows from its settings.

        Args:
            parameters: How many each network has, by name.

        Returns:
            Plain data, no part of what the digest is made from.
        """
        pixels = self.images[0].pixels
        levels: dict[str, dict[str, Any]] = {}
        for noise in self.plan.noises:
            value = resolved_level(noise.perturbation, noise.severity, images=pixels[None])
            levels.setdefault(noise.label, {})[str(noise.severity)] = describe_setting(value)
        known = {label: found for label, found in levels.items() if None not in found.values()}
        about = self.settings["models"]
        networks = {name: {"class": about[name]["network"], "parameters": count} for name, count in parameters.items()}
        return {"image_size": list(pixels.shape), "levels": known, "networks": networks}

    def shards(self) -> list[Shard]:
        """List all shards, in the order of the rows."""
        layers = {name: about["target_layers"] for name, about in self.settings["models"].items()}
        return cut_into_shards(layers, num_images=len(self.images), shard_size=self.settings["shard_size"])

    def missing(self) -> list[Shard]:
        """List the shards that have to be measured."""
        return missing_shards(self.folder, self.shards(), schema=self.schema, cells=len(self.plan.cells))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the plan at home: members need not be made for travelling."""
        return {name: value for name, value in vars(self).items() if name != "plan"}


def note_seconds(folder: Path, shard: Shard, seconds: float) -> None:
    """Write down how long a shard took.

    Args:
        folder: Of the study.
        shard: Which one.
        seconds: Wall time.
    """
    line = json.dumps([shard.model, shard.target_layer, shard.number, round(seconds, 3)])
    # One short line, written at once: processes do not mix theirs. It begins anew, as a kill may cut one short.
    with explain_storage(folder), (folder / SECONDS).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}")


def sum_seconds(folder: Path) -> dict[str, dict[str, float]]:
    """Add up how long each model and target layer took, over all sessions and processes.

    Args:
        folder: Of the study.

    Returns:
        Seconds by model and layer.
    """
    sums: dict[str, dict[str, float]] = {}
    path = folder / SECONDS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            model, layer, _, seconds = json.loads(line)
        except ValueError:
            continue  # empty, or a killed run did not finish it
        layers = sums.setdefault(model, {})
        layers[layer] = round(layers.get(layer, 0.0) + seconds, 3)
    return sums
