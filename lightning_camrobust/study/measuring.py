"""Measure some images with one network: what a study does again and again."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError, CAMRobustnessError, ModelError
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import layer_name, resolve_target_layers
from lightning_camrobust.logits import as_logits
from lightning_camrobust.perturbation import needs_network
from lightning_camrobust.pixels import PixelSpace, make_pixel_space
from lightning_camrobust.plan import Noise as PlannedNoise
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.probe import ProbeResult, probe
from lightning_camrobust.study.image import StudyImage, collate
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.outcomes import Floats, Kind, Noise
from lightning_camrobust.study.rows import ImageValues


@dataclass(frozen=True)
class LoadedModel:
    """A network, ready to be measured.

    Attributes:
        network: From inputs to logits.
        space: How inputs relate to pixels.
    """

    network: nn.Module
    space: PixelSpace

    def inputs(self, images: Sequence[StudyImage]) -> Tensor:
        """Turn images into a batch ``(b, c, H, W)`` in the network's own units, dtype and on its device."""
        own = next((each for each in self.network.parameters() if each.is_floating_point()), torch.zeros(()))
        pixels = collate(images).pixels.to(own.device)
        _check_channels(self.space, pixels.shape[1])
        mean, std = (
            torch.tensor(each, dtype=pixels.dtype, device=own.device).view(1, -1, 1, 1)
            for each in (self.space.mean, self.space.std)
        )
        inputs = ((pixels - mean) / std).to(own.dtype)
        check_images(inputs)
        return inputs


def _check_channels(space: PixelSpace, channels: int) -> None:
    """Refuse a normalisation that would make other channels than the images have."""
    if len(space.mean) not in (1, channels):
        raise ArgumentError(
            f"StudyModel: `mean` and `std` hold {len(space.mean)} values, but the images have {channels} "
            f"channel{'s' * (channels > 1)}. Give one value, or one a channel; or read the images with "
            "channels=3 or channels=1, as the network takes them."
        )


def load_model(model: StudyModel) -> LoadedModel:
    """Build a network from what the user said.

    Args:
        model: What to build.

    Returns:
        The network, on the CPU.
    """
    return LoadedModel(model.build(), make_pixel_space(model.mean, model.std) or PixelSpace((0.0,), (1.0,)))


def first_logits(loaded: LoadedModel, image: StudyImage) -> list[float]:
    """Compute a few logits, by which a network is recognised when a study goes on.

    Args:
        loaded: The network; it is left as it is.
        image: Any, the same each time.

    Returns:
        16 logits, evenly spaced, or all if there are fewer.
    """
    with observe_only(loaded.network), torch.no_grad():
        torch.manual_seed(0)  # for what is random in it; the stream is put back behind the block
        logits = as_logits(loaded.network(loaded.inputs([image])), batch_size=1)[0]
    return [float(each) for each in logits[:: max(1, len(logits) // 16)][:16]]


def find_layers(loaded: LoadedModel, model: StudyModel, image: StudyImage) -> dict[str, list[nn.Module]]:
    """Find the target layers of a model.

    Args:
        loaded: The network.
        model: What the user said about it.
        image: Any; the layer that is taken by default is found with it.

    Returns:
        By name; one entry may hold several modules, the maps of which are fused.

    Raises:
        ArgumentError: If there is no such layer, or one is named twice.
    """
    found: dict[str, list[nn.Module]] = {}
    with observe_only(loaded.network):
        inputs = loaded.inputs([image])
        for choice in model.target_layers:
            layers = resolve_target_layers(loaded.network, choice, inputs)
            name = ", ".join(layer_name(loaded.network, layer) for layer in layers)
            if name in found:
                raise ArgumentError(f"StudyModel: `target_layers` names the layer {name!r} twice. Name each one once.")
            found[name] = layers
    return found


def measure_images(
    loaded: LoadedModel,
    layers: Sequence[nn.Module],
    images: Sequence[StudyImage],
    *,
    plan: ProbePlan,
    chunk_size: int,
    on_images: Callable[[int], None] = lambda count: None,
) -> ImageValues:
    """Measure some images, a few at a time.

    Args:
        loaded: The network; it is left as it is.
        layers: The target layer, or several that are fused.
        images: In order.
        plan: What to measure.
        chunk_size: Images that go through the network at once.
        on_images: Told how many images were measured just now.

    Returns:
        The values, on the CPU.

    Raises:
        ArgumentError: If so many images do not fit into the memory of the device.
        ModelError: If the network cannot be explained.
    """
    found = []
    with observe_only(loaded.network):
        for start in range(0, len(images), chunk_size):
            chunk = images[start : start + chunk_size]
            try:
                inputs = loaded.inputs(chunk)
                found.append(
                    probe(
                        loaded.network,
                        inputs,
                        plan=plan,
                        target_layer=layers,
                        space=loaded.space,
                        operators=TensorCache(0),
                    )
                )
            except torch.cuda.OutOfMemoryError as error:
                raise ArgumentError(
                    f"run_study: the device's memory does not hold {len(chunk)} images at once. Run the same again "
                    f"with a smaller `chunk_size`, such as {max(1, chunk_size // 2)}; what is measured stays."
                ) from error
            except CAMRobustnessError:
                raise
            except Exception as error:
                raise _explained(error, plan, chunk) from error
            on_images(len(chunk))
    return _as_values(found, images, plan)


def _explained(error: Exception, plan: ProbePlan, images: Sequence[StudyImage]) -> Exception:
    """Say which member raised an error, and on which images; an error of nobody's stays as it is."""
    owners = _owners(plan)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # A member's frame holds its object, or is that of its own code; called in a wrong way, it has no frame.
    near = [frame.f_locals.get("self") for frame in frames] + [frame.f_code for frame in frames]
    near += list(frames[-1].f_locals.values()) if isinstance(error, TypeError) else []
    owner = next((owners[id(each)] for each in reversed(near) if id(each) in owners), None)
    if owner is None:
        return error
    names = repr(images[0].name) + (f" to {images[-1].name!r}" if len(images) > 1 else "")
    return ArgumentError(
        f"run_study: {owner} raised {type(error).__name__}: {str(error)[:300]}. It happened on "
        f"{'images' if len(images) > 1 else 'image'} {names}. Try it on them alone, and mend it or leave it out."
    )


def _owners(plan: ProbePlan) -> dict[int, str]:
    """Name the members of a plan, by the identity of their object or their code."""
    members: list[tuple[object, str]] = []
    for noise in plan.noises:
        members += [(each, f"the perturbation {noise.label!r}") for each in (noise, noise.perturbation)]
    members += [(method, f"the CAM method {label!r}") for label, method in plan.methods.items()]
    for reading in (plan.reading, *plan.readings.values()):
        members += [(reading.segmenter, "the segmenter"), (reading.similarity, "the similarity")]
    return {id(each): words for member, words in members for each in (member, getattr(member, "__code__", member))}


def _as_values(found: Sequence[ProbeResult], images: Sequence[StudyImage], plan: ProbePlan) -> ImageValues:
    shape = (len(images), len(plan.noises), len(plan.methods))

    def gathered(part: Callable[[ProbeResult], Tensor]) -> np.ndarray[Any, Any]:
        return torch.cat([part(each).detach().cpu() for each in found]).numpy()

    similarity = gathered(lambda each: each.comparison.similarity).astype(np.float64)
    rankable = gathered(lambda each: each.comparison.rankable)
    same = gathered(lambda each: each.comparison.same_class).reshape(shape)
    if (same != same[:, :, :1]).any():  # it has nothing to do with the method that explains it
        raise ModelError("run_study: one image was classified in two ways at once; please report this.")
    return ImageValues(
        images=[image.name for image in images],
        labels=np.array([image.label for image in images], dtype=np.int64),
        clean_classes=gathered(lambda each: each.clean_classes).astype(np.int64),
        noisy_classes=gathered(lambda each: each.noisy_classes).astype(np.int64),
        same=same[:, :, 0],
        chance=chance_levels(plan, gathered(lambda each: each.segment_counts)),
        similarity=np.where(rankable, similarity, np.nan).reshape(shape),
        readings={
            label: gathered(partial(_reading, label)).astype(np.float64).reshape(shape) for label in plan.readings
        },
    )


def _reading(label: str, result: ProbeResult) -> Tensor:
    return result.similarities[label]


def chance_levels(plan: ProbePlan, segments: np.ndarray[Any, Any]) -> Floats:
    """Say what two uniformly random rankings of its segments score on average on each image.

    Maps that have nothing to do with each other are not quite that: they are smooth and segments differ in size, so
    they score somewhat more. In a simulation (white 8 x 8 maps, quickshift) it was 0.071 against 0.054 at p 0.2 and
    0.244 against 0.242 at p 0.9.

    Args:
        plan: Says the similarity and what stands for a segment.
        segments: How many segments each image has, m, ``(b,)``.

    Returns:
        ``(b,)`` float64: ``(1 - p^m) / (m (1 - p))`` for rank-biased overlap of the means of segments; NaN for other
        similarities, where there is no segment, and for sums and maxima, whose rankings follow the sizes of segments
        and agree by more than random ones.

    Source:
        Own derivation: two random tops of depth d share d/m of their members on average.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> from lightning_camrobust.compare.rbo import RankBiasedOverlap
        >>> chance_levels(make_plan(similarity=RankBiasedOverlap(p=0.5)), np.array([1, 2, 0]))
        array([1.  , 0.75,  nan])
    """
    similarity = plan.reading.similarity
    if not isinstance(similarity, RankBiasedOverlap) or plan.reading.reduction != "mean":
        return np.full(len(segments), np.nan)
    known = np.where(segments > 0, segments.astype(np.float64), np.nan)
    return np.asarray((1 - similarity.p**known) / (known * (1 - similarity.p)))


def study_noises(plan: ProbePlan) -> tuple[Noise, ...]:
    """List perturbation, severity and kind of a plan's noises.

    Args:
        plan: Any.

    Returns:
        In the same order.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> [noise.kind for noise in study_noises(make_plan(perturbations=["fog", "fgsm"], severities=1))]
        ['photometric', 'attack']
    """
    return tuple(Noise(noise.label, noise.severity, _kind(noise)) for noise in plan.noises)


def _kind(noise: PlannedNoise) -> Kind:
    if noise.disturbs_trace:
        return "gradient"
    if needs_network(noise.perturbation):
        return "attack"
    return "geometric" if noise.geometric else "photometric"
