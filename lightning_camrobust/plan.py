"""What is measured on every image: CAM methods, perturbations, severities, segments, similarity."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, SupportsIndex

from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.explain import resolve_methods
from lightning_camrobust.fusion import LayerFusion, check_layer_fusion
from lightning_camrobust.members import label_members, member_family, resolve_member
from lightning_camrobust.reading import Reading, Reduction, TargetRule, make_reading
from lightning_camrobust.severity import Column, check_severity
from lightning_camrobust.types import CAMMethod, MapSimilarity, Perturbation, Segmenter, Similarity

# Which class is explained: None or "predicted" for each image's own prediction, "original" for that of the clean image
# on all its copies, a class, or a function of the logits.
Target = int | Literal["predicted", "original"] | Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Noise:
    """One perturbation at one severity.

    Attributes:
        label: Name of the perturbation in reports.
        family: Part of the key of its random numbers; the same for one perturbation with other settings.
        perturbation: The member.
        severity: 1..5.
    """

    label: str
    family: str
    perturbation: Perturbation
    severity: int

    @property
    def geometric(self) -> bool:
        """Whether the object moves, so that a map that follows it is right."""
        return bool(getattr(self.perturbation, "geometric", False))

    @property
    def disturbs_trace(self) -> bool:
        """Whether it is the gradient that is disturbed, and not the image."""
        return hasattr(self.perturbation, "disturb_trace")

    @property
    def has_reference(self) -> bool:
        """Whether its images are to be compared with others than the clean ones."""
        return hasattr(self.perturbation, "reference")


@dataclass(frozen=True)
class ProbePlan:
    """What is measured on every image. Made by :func:`make_plan`.

    Attributes:
        methods: CAM methods by label.
        noises: Every perturbation at every severity.
        reading: How maps are read: segments, similarity.
        seed: Of the noise.
        target: Which class is explained: None for the predicted one, ``"original"`` for the one predicted on the clean
            image, a class, or a function of the logits.
        multilabel: Whether each logit decides for itself, at 0, and not the largest one for all.
        readings: Further ways to read the same maps, by label.
        layer_fusion: How the maps of several target layers become one.
        align_geometric: Whether clean maps are moved along with what a geometric perturbation did to the image.
    """

    methods: dict[str, CAMMethod]
    noises: tuple[Noise, ...]
    reading: Reading
    seed: int
    target: Target = None
    multilabel: bool = False
    readings: dict[str, Reading] = field(default_factory=dict)
    layer_fusion: LayerFusion = "mean"
    align_geometric: bool = False

    @property
    def geometric(self) -> frozenset[str]:
        """Labels of the perturbations that move the object."""
        return frozenset(noise.label for noise in self.noises if noise.geometric)

    @property
    def cells(self) -> list[tuple[str, str, int]]:
        """Method, perturbation and severity of every cell, in the order of a :class:`ProbeResult`."""
        return [(method, noise.label, noise.severity) for noise in self.noises for method in self.methods]


def make_plan(
    methods: Sequence[str | CAMMethod] | str | CAMMethod = ("gradcam",),
    perturbations: Sequence[str | Perturbation] | str | Perturbation = ("gaussian_noise",),
    *,
    severities: Sequence[int] | int = (1, 3, 5),
    segmenter: str | Segmenter = "quickshift",
    similarity: str | Similarity | MapSimilarity = "rbo",
    similarities: Sequence[str | Similarity | MapSimilarity] = (),
    reduction: Reduction = "mean",
    readings: Mapping[str, Reading] | None = None,
    severity_column: Column = "auto",
    seed: int = 0,
    target: Target = None,
    multilabel: bool = False,
    layer_fusion: LayerFusion = "mean",
    align_geometric: bool = False,
) -> ProbePlan:
    """Resolve names and check settings.

    Args:
        methods: CAM methods, names or instances.
        perturbations: Perturbations, names or instances.
        severities: Which of 1..5.
        segmenter: Name or instance.
        similarity: Name or instance.
        similarities: Further ones, measured on the side, names or instances.
        reduction: What stands for a segment: ``"mean"``, ``"sum"`` or ``"max"``.
        readings: Further ways to read the same maps, by label.
        severity_column: ``"imagenet"`` or ``"cifar"`` overrides the choice by image size, for perturbations by name.
        seed: Of the noise.
        target: Which class is explained: None (or ``"predicted"``) for the predicted one, ``"original"`` for the one
            predicted on the clean image, a class, or a function from logits ``(b, k)`` to classes ``(b,)``.
        multilabel: Whether each logit decides for itself, at 0. A prediction then counts as changed if the decision on
            the explained class changed; by default that is the clean image's top class.
        layer_fusion: How the maps of several target layers become one, ``"mean"`` or ``"max"``.
        align_geometric: Whether clean maps are moved along with what a geometric perturbation did to the image.

    Returns:
        The plan.

    Raises:
        ArgumentError: If a name is unknown, a severity is out of range, a list is empty, or a reading explains another
            class than the plan has maps of.

    Example:
        >>> make_plan(severities=3).cells
        [('gradcam', 'gaussian_noise', 3)]
    """
    if severity_column not in ("auto", "imagenet", "cifar"):
        raise ArgumentError(f"`severity_column` must be 'auto', 'imagenet' or 'cifar', got {severity_column!r}.")
    target = _check_target(target)
    cams = resolve_methods(methods)
    given = [perturbations] if isinstance(perturbations, str) or callable(perturbations) else list(perturbations)
    levels = list(severities) if isinstance(severities, Iterable) else [severities]
    if not given or not levels:
        empty = "severities" if given else "perturbations"
        raise ArgumentError(f"`{empty}` must hold at least one entry, got none.")
    members = [resolve_member("perturb", each) for each in given]
    labels = label_members(members)
    main = make_reading(similarity, segmenter, reduction=reduction, target=main_target_rule(target))
    _check_readings(readings or {}, target)
    further = [resolve_member("compare", each) for each in similarities]
    labelled = zip(label_members(further), further, strict=True)
    others = {label: dataclasses.replace(main, similarity=each) for label, each in labelled}
    if severity_column != "auto":
        members = [
            dataclasses.replace(member, column=severity_column) if named and hasattr(member, "column") else member
            for named, member in ((isinstance(name, str), member) for name, member in zip(given, members, strict=True))
        ]
    noises = tuple(
        Noise(label, member_family(member), member, check_severity(severity))
        for label, member in zip(labels, members, strict=True)
        for severity in dict.fromkeys(levels)
    )
    for noise in noises:
        if align_geometric and noise.geometric and not hasattr(noise.perturbation, "flow"):
            raise ArgumentError(
                f"`align_geometric`: perturbation {noise.label!r} is geometric but has no method `flow` that says how "
                "it moves the object. Give it one, or measure it without `align_geometric`."
            )
    return ProbePlan(
        methods=dict(zip(label_members(cams), cams, strict=True)),
        noises=noises,
        reading=main,
        seed=seed,
        target=target,
        multilabel=multilabel,
        readings={**others, **(readings or {})},
        layer_fusion=check_layer_fusion(layer_fusion),
        align_geometric=align_geometric,
    )


def main_target_rule(target: Target) -> TargetRule:
    """Say which rule of a :class:`~lightning_camrobust.reading.Reading` a plan's own target is.

    Args:
        target: Of the plan.

    Returns:
        ``"original"`` for ``"original"``; else ``"predicted"``, which stands for whatever the plan explains.

    Example:
        >>> main_target_rule("original"), main_target_rule(3)
        ('original', 'predicted')
    """
    return "original" if isinstance(target, str) and target == "original" else "predicted"


def _check_readings(readings: Mapping[str, Reading], target: Target) -> None:
    """Refuse a reading of maps that are not there: those of the predicted class, where the clean one is explained."""
    wrong = [label for label, reading in readings.items() if reading.target == "predicted"]
    if wrong and main_target_rule(target) == "original":
        raise ArgumentError(
            f"`readings[{wrong[0]!r}]` explains the class predicted on the noisy image (target='predicted'), but "
            "`target` is 'original'. Make it a reading with target='original'; or leave `target` out, as 'predicted' "
            "and 'original' readings can then stand side by side."
        )


def _check_target(target: Target) -> Target:
    if isinstance(target, SupportsIndex):
        return int(target)
    if target in (None, "predicted"):
        return None
    if target != "original" and not callable(target):
        raise ArgumentError(
            "`target` must be None (the predicted class), 'original' (that of the clean image), a class number, or a "
            f"function of the logits; got {target!r}."
        )
    return target
