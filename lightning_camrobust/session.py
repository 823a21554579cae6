"""One validation run: images are taken as they come, probed in chunks, and summed up at the end."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_camrobust.batches import find_classifier
from lightning_camrobust.budget import TimeBudget
from lightning_camrobust.cache import TensorCache
from lightning_camrobust.gallery import Gallery, collect_gallery, picture_noises
from lightning_camrobust.heldout import Chunk, HeldOutImages
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import LayerChoice, count_runs, layer_by_name, layer_name, resolve_target_layers
from lightning_camrobust.pixels import PixelSpace, measure_range, pixel_space_from_ranges
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.probe import probe
from lightning_camrobust.rows import Spent, pack_rows, unpack_rows
from lightning_camrobust.summary import Report, make_report
from lightning_camrobust.trace import trace

# From the rows (n, columns) of this process to those of all processes; called by every process or by none.
Gather = Callable[[Tensor], Tensor]


class ProbeSession:
    """What one validation run gathers. Plain torch: it knows no trainer.

    Args:
        plan: What to measure.
        owner: The user's module; it is left as it was.
        images: Where the images of this process wait.
        classifier: The network within the module, see :func:`~lightning_camrobust.batches.find_classifier`.
        target_layer: Module, dotted name in ``owner``, a list of such, or None; found with the first chunk.
        space: How inputs relate to pixels; None recognises it from all images of the run.
        gallery_size: How many images to keep for a picture.
        forward_context: Context to run the network in, for autocast.
        operators: Where pooling operators are kept from run to run.
        rank: Of this process.
        shared: Whether other processes take part, so that what concerns all can only be settled at the end.

    Attributes:
        space: The pixel space, once known.
        gallery: What a picture needs, if ``gallery_size`` is above 0.
        num_found: How many images were probed, by all processes together; known at the end.
        map_size: Rows and columns of cells in a map of the first method, once this process has drawn one.
        agreed: The budget with the times of the slowest process, if there is one; known at the end.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> session = ProbeSession(make_plan(segmenter="grid"), net, HeldOutImages(num_samples=6, chunk_size=4))
        >>> for batch in torch.rand(3, 3, 3, 8, 8):
        ...     session.take(batch)
        >>> session.finish()["num_images"]
        6
    """

    def __init__(
        self,
        plan: ProbePlan,
        owner: nn.Module,
        images: HeldOutImages,
        *,
        classifier: str | Callable[[Any, Tensor], Any] | None = None,
        target_layer: LayerChoice = None,
        space: PixelSpace | None = None,
        gallery_size: int = 0,
        forward_context: Callable[[], AbstractContextManager[None]] = nullcontext,
        operators: TensorCache | None = None,
        rank: int = 0,
        shared: bool = False,
    ) -> None:
        self.plan = plan
        self.space = space
        self.gallery: Gallery | None = None
        self.num_found = 0
        self.map_size: torch.Size | None = None
        self.agreed: TimeBudget | None = None
        self._owner = owner
        self._model = find_classifier(owner, classifier)
        self._target_layer = target_layer
        self._layers: list[nn.Module] = []
        self._runs: list[int] = []
        self._images = images
        self._gallery_size = gallery_size
        self._forward_context = forward_context
        self._rank, self._shared = rank, shared
        self._operators = operators
        self._copies: int | None = None
        self._rows: list[Tensor] = []
        self._seconds = 0.0
        self._segmenting = 0.0
        self._told_of_memory = False

    @property
    def full(self) -> bool:
        """Whether no further image is wanted."""
        return self._images.full

    def take(self, images: Tensor, *, last: bool = False) -> None:
        """Take what is still wanted of a batch, and probe the chunks that became full.

        Args:
            images: ``(b, c, H, W)`` float, in the model's input units.
            last: Whether no batch will follow, so that a chunk need not wait to be filled.

        Raises:
            ArgumentError: If the images are unusable.
            ModelError: If the network cannot be explained.
        """
        with torch.inference_mode(False):
            if images.numel():
                check_images(images)
                self._images.add(images)
            complete = last or self.full
            if not self._images.settled or (self.space is None and (self._shared or not complete)):
                return
            self._probe_waiting(whole_only=not complete)

    def rehearse(self, images: Tensor) -> None:
        """Try layer and output on one image, so that a wrong one fails early; nothing is kept."""
        if not images.numel():
            return
        with torch.inference_mode(False), observe_only(self._owner), self._forward_context():
            first = images[:1].detach().clone()
            check_images(first)
            if self.space is not None:
                self.space.to_pixels(first)
            for layer in self._find_layers(first):
                trace(self._model, first, target_layer=layer)

    def finish(self, gather: Gather = lambda rows: rows, *, budget: TimeBudget | None = None) -> Report | None:
        """Probe what is left and sum up over all processes.

        Args:
            gather: From this process's rows to those of all.
            budget: What a run may cost; the report then rests on the first images that a run can afford.

        Returns:
            The report, or None if no image came to any process.
        """
        with torch.inference_mode(False):
            self._settle(gather)
            self._probe_waiting(whole_only=True)
            self._probe_waiting(whole_only=False)
            capacity = self._images.capacity if self._shared else None
            spent = Spent(self._seconds, self._segmenting, budget.training_seconds if budget else 0.0)
            rows = gather(pack_rows(self._rows, self.plan, spent=spent, capacity=capacity))
            comparison, spent = unpack_rows(rows, self.plan)
        self.num_found = len(comparison.similarity)
        if not self.num_found:
            return None
        if budget is not None:
            # The times of the slowest process, so that all of them choose alike.
            self.agreed = TimeBudget(budget.max_share, spent.training, spent.repeated)
            comparison = comparison.first(self.agreed.affordable(images=self.num_found))
        name = ", ".join(layer_name(self._owner, layer) for layer in self._layers)
        report = make_report(comparison, self.plan.cells, geometric=self.plan.geometric)
        return {**report, "target_layer": name, "seconds": spent.probing}

    def _settle(self, gather: Gather) -> None:
        """Agree with the other processes on what could not be known from this one's images alone."""
        if self.space is not None and self._images.settled:
            return
        ranges = gather(measure_range(self._images.waiting))
        if not self._images.settled:
            self._images.settle(ranges[:, 0].long().tolist(), self._rank)
        if self.space is None:
            self.space = pixel_space_from_ranges(ranges)

    def _probe_waiting(self, *, whole_only: bool) -> None:
        if self.space is None and self._images.waiting:
            self.space = pixel_space_from_ranges(measure_range(self._images.waiting))
        for chunk in self._images.chunks(whole_only=whole_only):
            start = time.perf_counter()
            self._probe(chunk)
            self._seconds += time.perf_counter() - start

    def _probe(self, chunk: Chunk) -> None:
        try:
            return self._probe_at_once(chunk)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or not (self._copies_can_shrink(chunk) or len(chunk.images) > 1):
                raise
        # Only here, behind the `except`: the error holds on to all that the failed attempt had allocated.
        if chunk.images.is_cuda:
            torch.cuda.empty_cache()
        if self._copies_can_shrink(chunk):
            self._copies = 1
            return self._probe(chunk)
        return self._probe_halves(chunk)

    def _copies_can_shrink(self, chunk: Chunk) -> bool:
        return self._copies is None and chunk.images.is_cuda

    def _probe_halves(self, chunk: Chunk) -> None:
        half = (len(chunk.images) + 1) // 2
        self._images.chunk_size = min(half, self._images.chunk_size)
        if not self._told_of_memory:
            self._told_of_memory = True
            warnings.warn(
                f"CAM robustness: out of memory with {len(chunk.images)} images at once; going on with {half} or "
                f"fewer. Pass CAMRobustnessCallback(chunk_size={half}) to begin there.",
                UserWarning,
                stacklevel=2,
            )
        for part in (slice(None, half), slice(half, None)):
            self._probe(Chunk(chunk.images[part], chunk.positions[part]))

    def _probe_at_once(self, chunk: Chunk) -> None:
        assert self.space is not None
        with observe_only(self._owner), self._forward_context():
            layers = self._find_layers(chunk.images)
            missing = self._gallery_size - (0 if self.gallery is None else len(self.gallery.rows))
            keep = picture_noises(self.plan) if missing > 0 else ()
            found = probe(
                self._model,
                chunk.images,
                plan=self.plan,
                target_layer=layers,
                space=self.space,
                operators=self._operators,
                runs=self._runs,
                copies=self._copies,
                keep_noises=keep,
            )
            if missing > 0:
                further = collect_gallery(found, self.plan, space=self.space, count=missing)
                self.gallery = further if self.gallery is None else self.gallery.followed_by(further)
            self.map_size = found.clean.maps.shape[1:]
            self._segmenting += found.segments.seconds
            self._rows.append(found.comparison.as_rows(chunk.positions))

    def _find_layers(self, images: Tensor) -> list[nn.Module]:
        if not self._layers:
            # Names are relative to the user's own module, whatever part of it is the classifier.
            named = self._target_layer
            chosen: LayerChoice = named
            if isinstance(named, str):
                chosen = layer_by_name(self._owner, named)
            elif isinstance(named, Sequence):
                chosen = [layer_by_name(self._owner, each) if isinstance(each, str) else each for each in named]
            self._layers = resolve_target_layers(self._model, chosen, images)
            self._runs = [count_runs(self._model, layer, images) for layer in self._layers]
        return self._layers


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
