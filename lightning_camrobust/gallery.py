"""Keep what a picture of a few images needs, on the host."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_camrobust.members import member_family
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.pooling import rankable_maps
from lightning_camrobust.probe import ProbeResult, View

# More columns than this are too small to read in TensorBoard.
MAX_NOISES = 4


@dataclass(frozen=True)
class Panel:
    """One copy of an image, and where the network looks.

    Attributes:
        pixels: ``(c, H, W)`` in [0, 1].
        heat: Map ``(h, w)``.
        top_segment: ``(H, W)`` bool, the segment ranked first; nowhere true if the map cannot be ranked.
        predicted: Class.
        title: What is shown: "clean", or perturbation and severity.
        same: Whether the prediction is that of the clean copy.
        similarity: To the clean map; None for the clean copy itself or a map that cannot be ranked.
    """

    pixels: Tensor
    heat: Tensor
    top_segment: Tensor
    predicted: int
    title: str
    same: bool = True
    similarity: float | None = None


@dataclass(frozen=True)
class Gallery:
    """Some images, each with its clean panel first and the noisy ones after it.

    Attributes:
        rows: Panels by image.
        method: The CAM method shown.
        measure: What the similarities are, as captions name it.
        num_perturbations: How many were measured, shown or not; None if that is not to be said.
    """

    rows: list[list[Panel]]
    method: str
    measure: str = "RBO"
    num_perturbations: int | None = None

    def followed_by(self, other: "Gallery") -> "Gallery":
        """Put the images of another gallery of the same plan below these.

        Args:
            other: Of later images.

        Returns:
            A gallery of both.
        """
        return dataclasses.replace(self, rows=[*self.rows, *other.rows])


def picture_noises(plan: ProbePlan) -> list[int]:
    """Choose the noises to show: each perturbation at the middle one of its severities.

    Args:
        plan: What is measured.

    Returns:
        Indices into ``plan.noises``, four at most.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> picture_noises(make_plan(perturbations=("gaussian_noise", "shot_noise"), severities=(1, 3, 5)))
        [1, 4]
    """
    by_label: dict[str, list[int]] = {}
    for index, noise in enumerate(plan.noises):
        by_label.setdefault(noise.label, []).append(index)
    return [indices[len(indices) // 2] for indices in by_label.values()][:MAX_NOISES]


def collect_gallery(result: ProbeResult, plan: ProbePlan, *, space: PixelSpace, count: int) -> Gallery:
    """Copy the first images of a probe to the host.

    Args:
        result: A probe with the views of :func:`picture_noises`.
        plan: What was measured.
        space: How inputs relate to pixels.
        count: How many images.

    Returns:
        The gallery, of the plan's first method.
    """
    count = min(count, len(result.segments))
    labels = result.segments.labels(range(count))
    rows = [[_panel(result.clean, labels, index, "clean", space)] for index in range(count)]
    for noise_index, view in result.noisy.items():
        noise = plan.noises[noise_index]
        cell = noise_index * len(plan.methods)
        for index, row in enumerate(rows):
            similarity = float(result.comparison.similarity[index, cell])
            known = None if similarity != similarity else similarity
            same = bool(result.comparison.same_class[index, cell])
            panel = _panel(view, labels, index, f"{noise.label} {noise.severity}", space)
            row.append(dataclasses.replace(panel, same=same, similarity=known))
    num_perturbations = len({noise.label for noise in plan.noises})
    return Gallery(rows, next(iter(plan.methods)), measure_name(plan), num_perturbations)


def measure_name(plan: ProbePlan) -> str:
    """Name the similarity of a plan for readers.

    Args:
        plan: What is measured.

    Returns:
        One or two words.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> measure_name(make_plan()), measure_name(make_plan(similarity="rbo_corrected"))
        ('RBO', 'RBO corrected')
    """
    return member_family(plan.reading.similarity).replace("rbo", "RBO").replace("_", " ")


def _panel(view: View, labels: Tensor, index: int, title: str, space: PixelSpace) -> Panel:
    # A flat or broken map has no first segment: the largest score would be any.
    present = torch.bincount(labels[index].flatten().clamp_min(0))[None].to(view.maps.device) > 0
    rankable = rankable_maps(view.maps[index : index + 1], present)[0]
    first = (labels[index] == view.scores[index].argmax()) & rankable
    return Panel(
        pixels=space.to_pixels(view.images[index : index + 1])[0].float().cpu(),
        heat=view.maps[index].detach().float().cpu(),
        top_segment=first.cpu(),
        predicted=int(view.classes[index]),
        title=title,
    )
