"""One validation run: images are taken as they come, probed in chunks, and summed up at the end."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from lightning_camrobust.explain import check_images
from lightning_camrobust.gallery import Gallery, collect_gallery, picture_noises
from lightning_camrobust.heldout import HeldOutImages
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import layer_name, resolve_target_layer
from lightning_camrobust.pixels import PixelSpace, recognise_pixel_space
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.probe import probe
from lightning_camrobust.summary import Report, make_report
from lightning_camrobust.types import Comparison


class ProbeSession:
    """What one validation run gathers. Plain torch: it knows no trainer.

    Args:
        plan: What to measure.
        target_layer: Module, dotted name or None; found with the first chunk.
        space: How inputs relate to pixels; None recognises it with the first chunk.
        num_samples: How many images to take.
        chunk_size: How many go through the network at once.
        gallery_size: How many images to keep for a picture.
        forward_context: Context to run the network in, for autocast.

    Attributes:
        layer: The explained module, once known.
        space: The pixel space, once known.
        gallery: What a picture needs, if ``gallery_size`` is above 0.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> session = ProbeSession(make_plan(segmenter="grid"), num_samples=6, chunk_size=4)
        >>> for batch in torch.rand(3, 3, 3, 8, 8):
        ...     session.take(net, batch)
        >>> session.finish(net)["num_images"]
        6
    """

    def __init__(
        self,
        plan: ProbePlan,
        *,
        target_layer: nn.Module | str | None = None,
        space: PixelSpace | None = None,
        num_samples: int = 32,
        chunk_size: int = 32,
        gallery_size: int = 0,
        forward_context: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.plan = plan
        self.layer: nn.Module | None = None
        self.space = space
        self.gallery: Gallery | None = None
        self._target_layer = target_layer
        self._images = HeldOutImages(num_samples, chunk_size)
        self._gallery_size = gallery_size
        self._forward_context = forward_context
        self._comparisons: list[Comparison] = []
        self._seconds = 0.0

    @property
    def full(self) -> bool:
        """Whether no further image is wanted."""
        return self._images.full

    def take(self, model: nn.Module, images: Tensor) -> None:
        """Take what is still wanted of a batch, and probe the chunks that became full.

        Args:
            model: The network; it is left as it was.
            images: ``(b, c, H, W)`` float, in the model's input units.

        Raises:
            ArgumentError: If the images are unusable.
            ModelError: If the network cannot be explained.
        """
        with torch.inference_mode(False):
            check_images(images)
            for chunk in self._images.add(images):
                self._probe(model, chunk)

    def flush(self, model: nn.Module) -> None:
        """Probe what is left, a chunk that did not become full."""
        with torch.inference_mode(False):
            for chunk in self._images.rest():
                self._probe(model, chunk)

    def finish(self, model: nn.Module) -> Report | None:
        """Probe what is left and sum up; None if no image came."""
        self.flush(model)
        if not self._comparisons:
            return None
        start = time.perf_counter()
        report = make_report(self._comparisons, self.plan.cells)
        layer = "" if self.layer is None else layer_name(model, self.layer)
        return {**report, "target_layer": layer, "seconds": self._seconds + time.perf_counter() - start}

    def _probe(self, model: nn.Module, images: Tensor) -> None:
        start = time.perf_counter()
        with observe_only(model), self._forward_context():
            if self.layer is None:
                self.layer = resolve_target_layer(model, self._target_layer, images)
            if self.space is None:
                self.space = recognise_pixel_space(images)
            shown = self._gallery_size > 0 and self.gallery is None
            keep = picture_noises(self.plan) if shown else ()
            found = probe(model, images, plan=self.plan, target_layer=self.layer, space=self.space, keep_noises=keep)
            if shown:
                self.gallery = collect_gallery(found, self.plan, count=self._gallery_size)
            self._comparisons.append(_on_host(found.comparison))
        self._seconds += time.perf_counter() - start


def _on_host(comparison: Comparison) -> Comparison:
    return Comparison(comparison.similarity.cpu(), comparison.same_class.cpu(), comparison.rankable.cpu())
