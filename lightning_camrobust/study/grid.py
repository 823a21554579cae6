"""The grid of a study: what is measured on every model and image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_camrobust.fusion import LayerFusion
from lightning_camrobust.plan import ProbePlan, Target, main_target_rule, make_plan
from lightning_camrobust.reading import Reading, Reduction, make_reading
from lightning_camrobust.severity import Column
from lightning_camrobust.study.description import describe_member, describe_setting
from lightning_camrobust.study.sweep import describe_reading, resolve_readings
from lightning_camrobust.types import CAMMethod, MapSimilarity, Perturbation, Segmenter, Similarity

# The six of the paper.
PAPER_METHODS = ("gradcam", "gradcam_plusplus", "xgradcam", "hirescam", "eigencam", "ablationcam")
DEFAULT_PERTURBATIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "fog",
    "contrast",
    "jpeg",
)


@dataclass(frozen=True)
class StudyGrid:
    """What is measured: every CAM method under every perturbation at every severity.

    Attributes:
        methods: CAM methods, names or instances; by default the paper's six.
        perturbations: Names or instances.
        severities: Which of 1..5.
        similarity: The one that the scores rest on, name or instance.
        segmenter: How images are cut, name or instance.
        reduction: What stands for a segment: ``"mean"``, ``"sum"`` or ``"max"`` of the map inside it.
        target: Which class is explained: ``"predicted"`` on each image, ``"original"`` for the one predicted on the
            clean image, a class, or a function of the logits.
        readings: Further ways to read the same maps: ``"sensitivity"`` for all those under which the conclusion is
            tested, ``"none"``, or readings by label.
        severity_column: ``"imagenet"`` or ``"cifar"`` overrides the choice of severity values by image size.
        align_geometric: Whether clean maps are moved along where a geometric perturbation moves the object.
        layer_fusion: How the maps of several layers become one, if a target layer is a list.
        seed: Of the noise.

    Raises:
        ArgumentError: If a name is unknown, a severity is out of range or a list is empty.

    Example:
        >>> grid = StudyGrid(methods="gradcam", perturbations=["fog", "jpeg"], severities=(1, 5), readings="none")
        >>> len(grid.plan().cells)
        4
    """

    methods: Sequence[str | CAMMethod] | str | CAMMethod = PAPER_METHODS
    perturbations: Sequence[str | Perturbation] | str | Perturbation = DEFAULT_PERTURBATIONS
    severities: Sequence[int] | int = (1, 3, 5)
    similarity: str | Similarity | MapSimilarity = "rbo"
    segmenter: str | Segmenter = "quickshift"
    reduction: Reduction = "mean"
    target: Target = "predicted"
    readings: str | Mapping[str, Reading] = "sensitivity"
    severity_column: Column = "auto"
    align_geometric: bool = False
    layer_fusion: LayerFusion = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        self.plan()

    def plan(self) -> ProbePlan:
        """Resolve names and check settings, see :func:`~lightning_camrobust.plan.make_plan`."""
        rule = main_target_rule(self.target)
        main = make_reading(self.similarity, self.segmenter, reduction=self.reduction, target=rule)
        readings = resolve_readings(self.readings, main)
        if self.target not in (None, "predicted") and not isinstance(self.readings, Mapping):
            # Where the class is given, it is no question whose it is.
            for other in ("target=original", "target=predicted"):
                readings.pop(other, None)
        return make_plan(
            self.methods,
            self.perturbations,
            severities=self.severities,
            segmenter=self.segmenter,
            similarity=self.similarity,
            reduction=self.reduction,
            readings=readings,
            severity_column=self.severity_column,
            seed=self.seed,
            target=self.target,
            layer_fusion=self.layer_fusion,
            align_geometric=self.align_geometric,
        )

    def describe(self) -> dict[str, Any]:
        """Write all that determines the numbers as plain data, for a manifest."""
        plan = self.plan()
        perturbations = {noise.label: describe_member(noise.perturbation) for noise in plan.noises}
        return {
            "methods": {label: describe_member(method) for label, method in plan.methods.items()},
            "perturbations": perturbations,
            "severities": sorted({noise.severity for noise in plan.noises}),
            "reading": describe_reading(plan.reading),
            "readings": {label: describe_reading(reading) for label, reading in plan.readings.items()},
            # None is another word for "predicted".
            "target": "predicted" if plan.target is None else describe_setting(plan.target),
            "severity_column": self.severity_column,
            "align_geometric": self.align_geometric,
            "layer_fusion": self.layer_fusion,
            "seed": self.seed,
        }
