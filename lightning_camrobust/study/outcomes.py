"""What was measured on every image, as arrays: what all statistics start from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["photometric", "geometric", "attack", "gradient"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Noise:
    """One perturbation at one severity.

    Attributes:
        perturbation: Its label.
        severity: 1..5.
        kind: ``"photometric"`` (the object stays where it is), ``"geometric"`` (it moves), ``"attack"`` (made with the
            network's own gradients) or ``"gradient"`` (not the image is disturbed but what the CAM method sees).
    """

    perturbation: str
    severity: int
    kind: Kind = "photometric"


@dataclass(frozen=True)
class Outcomes:
    """What happened to the maps of one model, drawn on one target layer.

    Attributes:
        model: Its name in the study.
        target_layer: Dotted name.
        data: Name of the data set.
        images: Name of each image, such as its file name.
        labels: True class ``(images,)``; -1 where it is not known.
        methods: Labels of the CAM methods.
        noises: Every perturbation at every severity.
        clean_classes: Predicted on the clean image, ``(images,)``.
        noisy_classes: Predicted on its copies, ``(images, noises)``.
        same: Whether the prediction survived, ``(images, noises)``; of noises with a reference image of their own (LVAT
            with a codec), whether it is that of the reference, which need not be the one in ``clean_classes``.
        similarity: Of the clean and the noisy map, ``(images, methods, noises)``; NaN where a map cannot be ranked.
        chance: What two uniformly random rankings score on average on each image, ``(images,)``; NaN where that is not
            known.
        readings: The same under other settings (RBO's p, ties, segmenter, ...), by label, each shaped like
            ``similarity``.
        conditions: Under which they were measured, see :func:`~lightning_camrobust.study.conditions.study_conditions`;
            two models are compared only where these agree. One that is not there is not known, and not checked.
    """

    model: str
    target_layer: str
    data: str
    images: tuple[str, ...]
    labels: Integers
    methods: tuple[str, ...]
    noises: tuple[Noise, ...]
    clean_classes: Integers
    noisy_classes: Integers
    same: Bools
    similarity: Floats
    chance: Floats
    readings: dict[str, Floats] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, kind: Kind) -> "Outcomes":
        """Return the noises of one kind only."""
        return self.of_noises([noise.kind == kind for noise in self.noises])

    def of_noises(self, chosen: "list[bool] | Bools") -> "Outcomes":
        """Return some noises only, chosen by a mask ``(noises,)``."""
        mask = np.asarray(chosen, dtype=bool)
        return replace(
            self,
            noises=tuple(noise for noise, keep in zip(self.noises, mask, strict=True) if keep),
            noisy_classes=self.noisy_classes[:, mask],
            same=self.same[:, mask],
            similarity=self.similarity[:, :, mask],
            readings={label: values[:, :, mask] for label, values in self.readings.items()},
        )

    def of_images(self, chosen: "Integers | Bools") -> "Outcomes":
        """Return some images only, chosen by a mask or by indices (which may repeat)."""
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            labels=self.labels[rows],
            clean_classes=self.clean_classes[rows],
            noisy_classes=self.noisy_classes[rows],
            same=self.same[rows],
            similarity=self.similarity[rows],
            chance=self.chance[rows],
            readings={label: values[rows] for label, values in self.readings.items()},
        )
