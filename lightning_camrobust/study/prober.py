"""The step that Lightning's Trainer runs: one batch is one shard, measured and written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_camrobust.errors import CAMRobustnessError, ModelError
from lightning_camrobust.study.image import ImageSource, StudyImage
from lightning_camrobust.study.job import StudyJob, note_seconds
from lightning_camrobust.study.manifest import read_manifest
from lightning_camrobust.study.measuring import LoadedModel, find_layers, load_model, measure_images, study_noises
from lightning_camrobust.study.model import check_labels, fingerprint, num_classes
from lightning_camrobust.study.progress import StudyProgress
from lightning_camrobust.study.rows import make_rows, place_columns
from lightning_camrobust.study.shards import Shard, write_shard

# What a shell reports for a program that was ended by SIGTERM.
_TERMINATED = 143


class ShardImages:
    """The images of one shard. Not a tuple or a dataclass, as Lightning would convert and move what is in those.

    Attributes:
        shard: Which one; None for a process that has nothing to do.
        images: In order; none if one of them cannot be read.
        error: Why it cannot. Raised by a process that only reads, it would lose its words.
    """

    def __init__(
        self, shard: Shard | None, images: Sequence[StudyImage], error: CAMRobustnessError | None = None
    ) -> None:
        self.shard = shard
        self.images = images
        self.error = error


class ShardReader(Dataset[ShardImages]):
    """Reads the images of whole shards.

    Args:
        source: Of the images.
        shards: What this process measures; None where it has nothing to do.
    """

    def __init__(self, source: ImageSource, shards: Sequence[Shard | None]) -> None:
        self._source, self._shards = source, shards

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._shards)

    def __getitem__(self, position: int) -> ShardImages:
        """Read one shard."""
        shard = self._shards[position]
        indices = range(shard.start, shard.stop) if shard else ()
        try:
            return ShardImages(shard, [self._source[index] for index in indices])
        except CAMRobustnessError as error:
            return ShardImages(shard, [], error)


@dataclass(frozen=True)
class _CurrentModel:
    name: str
    loaded: LoadedModel
    layers: dict[str, list[nn.Module]]
    num_classes: int


class ShardProber(pl.LightningModule):
    """Measures shards under :meth:`Trainer.predict`, and writes each as soon as it is done.

    Args:
        job: The study; settings may be empty in all processes but the first.
        progress: Shown by the first process, if there is one.
    """

    def __init__(self, job: StudyJob, progress: StudyProgress | None = None) -> None:
        super().__init__()
        self._job, self._progress = job, progress
        self._mine: list[Shard | None] = []
        self._current: _CurrentModel | None = None

    def setup(self, stage: str) -> None:
        """Choose what this process measures; Lightning lets nobody begin before all have chosen."""
        if not self._job.settings:
            # The first process wrote them down before it let the others begin.
            self._job = replace(self._job, settings=(read_manifest(self._job.folder) or {})["settings"])
        missing, world = self._job.missing(), self.trainer.world_size
        mine: list[Shard | None] = list(missing[self.trainer.global_rank :: world])
        # A loader of length 0 would leave a process behind; all have one batch, and equally many.
        self._mine = mine + [None] * (max(1, -(-len(missing) // world)) - len(mine))

    def predict_dataloader(self) -> "DataLoader[ShardImages]":
        """Return a loader, one item of which is one shard."""
        reader = ShardReader(self._job.images, self._mine)
        # With a generator of its own, since loaders draw a seed from the global stream otherwise.
        generator = torch.Generator()
        return DataLoader(reader, batch_size=None, num_workers=self._job.num_workers, generator=generator)

    def on_predict_start(self) -> None:
        """Show the bar."""
        if not self.trainer.is_global_zero:
            self._progress = None
        if self._progress is not None:
            if self.trainer.world_size > 1:
                self._progress.narrow(sum(shard.stop - shard.start for shard in self._mine if shard))
            self._progress.start()

    def predict_step(self, batch: ShardImages, batch_idx: int) -> int:
        """Measure and write one shard.

        Args:
            batch: Its images.
            batch_idx: Not used.

        Returns:
            How many images were measured.

        Raises:
            ArgumentError: If an image cannot be read.
            SystemExit: After SIGTERM, which Lightning heeds in training only.
        """
        if batch.error is not None:
            raise batch.error
        if batch.shard is not None:
            self._measure(batch.shard, batch.images)
        if self.trainer.received_sigterm:
            raise SystemExit(_TERMINATED)
        return len(batch.images)

    def teardown(self, stage: str) -> None:
        """Let the network go, also after an error."""
        self._current = None
        if self._progress is not None:
            self._progress.stop()

    def _measure(self, shard: Shard, images: Sequence[StudyImage]) -> None:
        start, job = time.perf_counter(), self._job
        model = self._load(shard.model, images[0])
        labels = [image.label for image in images]
        check_labels(labels, model.num_classes, model=shard.model, data=job.images.name)
        if self._progress is not None:
            self._progress.show(f"{shard.model}, {shard.target_layer}")
        values = measure_images(
            model.loaded,
            model.layers[shard.target_layer],
            images,
            plan=job.plan,
            chunk_size=job.chunk_size,
            on_images=self._tell,
        )
        place = place_columns(
            shard.model,
            shard.target_layer,
            range(shard.start, shard.stop),
            study_noises(job.plan),
            list(job.plan.methods),
        )
        write_shard(job.folder, shard, make_rows(place, values, job.schema))
        note_seconds(job.folder, shard, time.perf_counter() - start)

    def _tell(self, images: int) -> None:
        if self._progress is not None:
            self._progress.advance(images)

    def _load(self, name: str, image: StudyImage) -> _CurrentModel:
        """Build a model. It is no submodule of this one, and replaces the one before: one is in memory at a time."""
        if self._current is None or self._current.name != name:
            self._current = None
            model = self._job.models[name]
            loaded = load_model(model)
            check_same_network(name, loaded.network, self._job.settings["models"][name]["weights"])
            network = self.trainer.precision_plugin.convert_module(loaded.network).to(self.device)
            loaded = replace(loaded, network=network)
            layers = find_layers(loaded, model, image)
            self._current = _CurrentModel(name, loaded, layers, num_classes(network, loaded.inputs([image])))
        return self._current


def check_same_network(name: str, network: nn.Module, weights: str) -> None:
    """Make sure that a model came out as it did before.

    Args:
        name: Of the model.
        network: As it was built now.
        weights: Its fingerprint from before.

    Raises:
        ModelError: If its weights are others.
    """
    if fingerprint(network) != weights:
        raise ModelError(
            f"run_study: model {name!r} has other weights each time it is built, so results could not be traced back "
            "to one network. Pass `weights` to StudyModel, or the network itself, or seed the function that builds it."
        )
