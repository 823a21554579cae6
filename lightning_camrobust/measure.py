"""Measure a network offline, on images at hand: every method, disturbance and similarity from the same passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.fusion import LayerFusion
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import LayerChoice, layer_name, resolve_target_layers
from lightning_camrobust.pixels import make_pixel_space, recognise_pixel_space
from lightning_camrobust.plan import Target, make_plan
from lightning_camrobust.probe import probe
from lightning_camrobust.reading import Reading, Reduction
from lightning_camrobust.severity import Column
from lightning_camrobust.summary import Report, make_report, pooled_rows
from lightning_camrobust.types import CAMMethod, Comparison, MapSimilarity, Perturbation, Segmenter, Similarity


@dataclass(frozen=True)
class Measurement:
    """What was measured on each image.

    Attributes:
        cells: Method, perturbation and severity, in the order of the second axis below.
        geometric: Perturbations that move the object, so that a map that follows it is right.
        comparison: Fields ``(images, cells)``.
        similarities: Further similarities and readings by label, ``(images, cells)`` float64; NaN where undefined.
        target_layer: Name of the layer, or names.
    """

    cells: list[tuple[str, str, int]]
    geometric: frozenset[str]
    comparison: Comparison
    similarities: dict[str, Tensor]
    target_layer: str

    def report(self) -> Report:
        """Sum up as the callback does, see :func:`~lightning_camrobust.summary.make_report`."""
        report = make_report(self.comparison, self.cells, geometric=self.geometric)
        return {**report, "target_layer": self.target_layer}

    def table(self, similarity: str | None = None) -> list[dict[str, Any]]:
        """Pool severities: one row a method and perturbation, with scores and the counts they rest on.

        Args:
            similarity: Label of a further similarity; None takes the main one.

        Returns:
            Plain rows: ``method``, ``perturbation``, ``geometric``, ``robustness``, ``consistency``,
            ``responsiveness`` (None where undefined), ``flip_rate``, ``same_count``, ``changed_count``,
            ``degenerate_count``, ``low_support``.

        Raises:
            UnknownNameError: If that similarity was not measured.
        """
        comparison = self.comparison
        if similarity is not None:
            values = self._similarity(similarity)
            # Undefined as well where a map cannot be ranked, whatever the main similarity says.
            comparison = Comparison(values, comparison.same_class, ~values.isnan())
        rows = pooled_rows(comparison, [(method, noise) for method, noise, _ in self.cells])
        return [
            {"method": method, "perturbation": noise, "geometric": noise in self.geometric, **row}
            for (method, noise), row in rows.items()
        ]

    def sensitivity(self, method: str, *, how: Literal["max", "mean"] = "max") -> Tensor:
        """Compute Max- or Average-Sensitivity of each image over all disturbances, from the same passes.

        Args:
            method: Label of a CAM method.
            how: Worst or mean copy.

        Returns:
            ``(images,)`` float64: relative change ``|e - e'| / |e|`` of the map; NaN if a copy cannot be compared.

        Raises:
            UnknownNameError: If ``"relative_l2"`` was not among the similarities, or there is no such method.

        Source:
            Yeh et al. 2019 (arXiv 1901.09392), with the disturbances that were asked for in place of a ball.
        """
        chosen = [index for index, cell in enumerate(self.cells) if cell[0] == method]
        if not chosen:
            known = {cell[0] for cell in self.cells}
            raise UnknownNameError(
                f"Measurement: no method is called {method!r}. Nearest: {nearest_names(method, known)}."
            )
        if how not in ("max", "mean"):
            raise ArgumentError(f"Measurement.sensitivity: `how` must be 'max' or 'mean', got {how!r}.")
        change = 1 - self._similarity("relative_l2")[:, chosen]
        return change.amax(dim=1) if how == "max" else change.mean(dim=1)

    def _similarity(self, label: str) -> Tensor:
        if label not in self.similarities:
            raise UnknownNameError(
                f"Measurement: similarity {label!r} was not measured; there are "
                f"{nearest_names(label, self.similarities)}. Pass measure_stability(similarities=[{label!r}])."
            )
        return self.similarities[label]


def measure_stability(
    model: nn.Module,
    images: Tensor,
    methods: Sequence[str | CAMMethod] | str | CAMMethod = ("gradcam",),
    perturbations: Sequence[str | Perturbation] | str | Perturbation = ("gaussian_noise",),
    *,
    severities: Sequence[int] | int = (1, 3, 5),
    similarity: str | Similarity | MapSimilarity = "rbo",
    similarities: Sequence[str | Similarity | MapSimilarity] = (),
    reduction: Reduction = "mean",
    readings: Mapping[str, Reading] | None = None,
    target_layer: LayerChoice = None,
    layer_fusion: LayerFusion = "mean",
    segmenter: str | Segmenter = "quickshift",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    severity_column: Column = "auto",
    align_geometric: bool = False,
    target: Target = None,
    multilabel: bool = False,
    seed: int = 0,
    chunk_size: int = 16,
) -> Measurement:
    """Measure how stable a network's explanations are; the network is left as it was found.

    Args:
        model: A classifier mapping ``(b, c, H, W)`` to logits ``(b, k)``.
        images: ``(b, c, H, W)`` float, in the model's input units, on the model's device.
        methods: CAM methods, names or instances.
        perturbations: Names or instances.
        severities: Which of 1..5.
        similarity: The one that the scores rest on.
        similarities: Further ones, measured in the same passes, such as ``["spearman", "relative_l2"]``.
        reduction: What stands for a segment: ``"mean"``, ``"sum"`` or ``"max"`` of the enlarged map inside it.
        readings: Further ways to read the same maps, by label: other segments, reductions, target rules.
        target_layer: A module, its dotted name, a list of such, or None for the last one whose cells feed the
            prediction.
        layer_fusion: How the maps of several layers become one, ``"mean"`` or ``"max"``.
        segmenter: How images are cut.
        mean: What Normalize subtracted, in pixel units [0, 1]; None recognises the range of the images.
        std: What Normalize divided by.
        severity_column: ``"imagenet"`` or ``"cifar"`` overrides the choice of severity values by image size.
        align_geometric: Whether clean maps are moved along where a geometric perturbation moves the object.
        target: Which class is explained: None for the predicted one, ``"original"`` for the one predicted on the clean
            image, a class, or a function of the logits.
        multilabel: Whether each logit decides for itself, at 0.
        seed: Of the noise.
        chunk_size: How many images go through the network at once. Numbers do not depend on it, up to the last bits of
            the network's own arithmetic; attacks of many steps can make more of those.

    Returns:
        The measurement, on the CPU.

    Raises:
        ArgumentError: If an argument is unusable.
        ModelError: If the network cannot be explained.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> images = torch.rand(4, 3, 8, 8)
        >>> found = measure_stability(net, images, "gradcam", ["fog", "fgsm"], similarities=["kendall"])
        >>> [(row["perturbation"], row["geometric"]) for row in found.table("kendall")]
        [('fog', False), ('fgsm', False)]
    """
    check_images(images)
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ArgumentError(
            f"measure_stability: `chunk_size` must be a whole number of at least 1, got {chunk_size!r}. "
            "It is how many images go through the network at once."
        )
    plan = make_plan(
        methods,
        perturbations,
        severities=severities,
        segmenter=segmenter,
        similarity=similarity,
        similarities=similarities,
        reduction=reduction,
        readings=readings,
        severity_column=severity_column,
        seed=seed,
        target=target,
        multilabel=multilabel,
        layer_fusion=layer_fusion,
        align_geometric=align_geometric,
    )
    space = make_pixel_space(mean, std) or recognise_pixel_space(images)
    with torch.inference_mode(False), observe_only(model):
        inputs = images.detach().clone()
        layers = resolve_target_layers(model, target_layer, inputs)
        found = [
            probe(model, chunk, plan=plan, target_layer=layers, space=space, operators=TensorCache(0))
            for chunk in torch.split(inputs, chunk_size)
        ]
    return Measurement(
        cells=plan.cells,
        geometric=plan.geometric,
        comparison=Comparison(
            similarity=torch.cat([each.comparison.similarity for each in found]).cpu(),
            same_class=torch.cat([each.comparison.same_class for each in found]).cpu(),
            rankable=torch.cat([each.comparison.rankable for each in found]).cpu(),
        ),
        similarities={label: torch.cat([each.similarities[label] for each in found]).cpu() for label in plan.readings},
        target_layer=", ".join(layer_name(model, layer) for layer in layers),
    )
