"""Look at a batch through a network: explain it and score the segments of its maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.explained import Explained, explain
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.reading import Reading
from lightning_camrobust.scoring import ScoredMaps, score_maps
from lightning_camrobust.segmented import SegmentedBatch
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class Look:
    """One or more copies of the same b images: what the network said and where it looked.

    Attributes:
        explained: Maps and logits, ``copies * b`` of each, all images of the first copy first.
        scored: The maps' scores, one entry for each way to score segments.
    """

    explained: Explained
    scored: tuple[ScoredMaps, ...]


class Looker:
    """Looks at the images of one batch and their copies, always through the segments of the clean images.

    Args:
        model: The network, in eval mode.
        images: The clean images ``(b, c, H, W)``, in the model's input units.
        plan: What is measured.
        layers: The target layers.
        space: How inputs relate to pixels.
        keys: ``(b, 2)`` int32 from :func:`~lightning_camrobust.randomness.image_keys`.
        operators: Where pooling operators are kept.

    Attributes:
        segments: The clean images cut in the way of the plan's main reading.

    Example:
        >>> import torch
        >>> from lightning_camrobust.plan import make_plan
        >>> from lightning_camrobust.randomness import image_keys
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> images, plan = torch.rand(2, 3, 8, 8), make_plan(segmenter="grid")
        >>> looker = Looker(net, images, plan, [net[0]], space=PixelSpace((0.0,), (1.0,)), keys=image_keys(images))
        >>> looker.look(images, classes=None).scored[0].scores.shape  # (b, copies, methods, s)
        torch.Size([2, 1, 1, 49])
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        plan: ProbePlan,
        layers: Sequence[nn.Module],
        *,
        space: PixelSpace,
        keys: Tensor,
        operators: TensorCache | None = None,
    ) -> None:
        self._model, self._plan, self._layers, self._space = model, plan, layers, space
        # Each way to score segments once, whatever number of similarities look at the scores.
        self._ways: list[tuple[Reading, SegmentedBatch]] = []
        for reading in (plan.reading, *plan.readings.values()):
            if any(reading.same_segments(way) for way, _ in self._ways):
                continue
            known = [segments for way, segments in self._ways if way.segmenter == reading.segmenter]
            new = known or [SegmentedBatch(images, space, reading.segmenter, keys, operators=operators)]
            self._ways.append((reading, new[0]))
        self.segments = self._ways[0][1]

    def look(
        self,
        images: Tensor,
        *,
        classes: Tensor | Callable[[Tensor], Tensor] | None,
        runs: Sequence[int] | None = None,
        disturb: Callable[[Trace], Trace] | None = None,
    ) -> Look:
        """Look at one or more copies of the batch, ``(copies * b, c, H, W)``; see :func:`explain` for the rest."""
        explained = explain(
            self._model,
            images,
            self._plan.methods,
            layers=self._layers,
            fusion=self._plan.layer_fusion,
            classes=classes,
            runs=runs,
            space=self._space,
            disturb=disturb,
        )
        return self.score(explained)

    def look_for(self, look: Look, images: Tensor, classes: Tensor) -> Look:
        """Look again at what did not explain the given classes ``(copies * b,)``; the rest of a look is kept."""
        chosen = (look.explained.classes != classes).nonzero()[:, 0]
        if not len(chosen):
            return look
        again = self.look_at_maps(images[chosen], classes[chosen], runs=look.explained.runs)
        maps = {label: each.index_copy(0, chosen, again[label]) for label, each in look.explained.maps.items()}
        return self.score(replace(look.explained, classes=classes, maps=maps))

    def look_at_maps(self, images: Tensor, classes: Tensor, *, runs: Sequence[int]) -> dict[str, Tensor]:
        """Return the maps of any images ``(n, c, H, W)``, by method, unscored."""
        methods, fusion = self._plan.methods, self._plan.layer_fusion
        how = {"layers": self._layers, "fusion": fusion, "classes": classes, "runs": runs, "space": self._space}
        return explain(self._model, images, methods, **how).maps  # type: ignore[arg-type]

    def score(self, explained: Explained) -> Look:
        """Score maps in all the ways that the plan's readings ask for."""
        maps = list(explained.maps.values())
        return Look(explained, tuple(score_maps(maps, cut, reduction=way.reduction) for way, cut in self._ways))

    def scored(self, look: Look, reading: Reading) -> ScoredMaps:
        """Return the scores that a reading rests on."""
        pairs = zip(self._ways, look.scored, strict=True)
        return next(scored for (way, _), scored in pairs if reading.same_segments(way))
