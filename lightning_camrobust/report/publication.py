"""What one run has to show: made once, for however many loggers."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.report.card import describe_settings, write_card
from lightning_camrobust.report.curves import draw_severity_curves
from lightning_camrobust.report.drawing import figure_to_pixels
from lightning_camrobust.report.layout import HEADLINE
from lightning_camrobust.report.portrait import draw_portrait
from lightning_camrobust.summary import breakdown_prefix

if TYPE_CHECKING:
    from lightning_camrobust.gallery import Gallery

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[np.float64]]
_BINS = 20


@dataclass(frozen=True)
class Publication:
    """What one validation or test run has to show. Nothing is drawn before somebody asks.

    Attributes:
        report: As in ``callback.report``.
        plan: What was measured.
        name: Of the callback, as in its keys.
        step: Where Lightning put this run's scalars.
        in_fit: Whether the run is one of a fit. Outside of one nobody knows which epoch the weights are of.
        space: How inputs relate to pixels.
        gallery: What pictures need; None draws none.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> report = {"stage": "val", "epoch": 3, "per_image": {"kept": [0.5, None], "changed": [None, 0.25]}}
        >>> found = Publication(report, make_plan(), name="cam", step=119)
        >>> found.stem, found.pictures, found.similarities["kept"].tolist()
        ('epoch=3-step=119', {}, [0.5])
    """

    report: dict[str, Any]
    plan: ProbePlan
    name: str
    step: int
    in_fit: bool = True
    space: PixelSpace | None = None
    gallery: "Gallery | None" = None

    @property
    def folder(self) -> str:
        """First part of every key and path, such as ``cam_robustness`` or, in a test, ``test_cam_robustness``."""
        return f"{breakdown_prefix(self.report['stage'])}{self.name}_robustness"

    @property
    def stem(self) -> str:
        """What files of this run begin with, if no other run has taken it."""
        return f"epoch={self.report['epoch']}-step={self.step}" if self.in_fit else f"step={self.step}"

    @cached_property
    def pictures(self) -> dict[str, Pixels]:
        """Pictures by name, ``(height, width, 3)`` each."""
        if self.gallery is None:
            return {}
        stage = "Test" if self.report["stage"] == "test" else "Validation"
        when = f"Epoch {self.report['epoch']}" if self.in_fit else stage
        scores = ", ".join(f"{key.replace('_', ' ')} {_number(self.report[key])}" for key in HEADLINE)
        heading = f"{when}, all {self.report['num_images']} images: {scores}"
        return {
            "severity": figure_to_pixels(draw_severity_curves(self.report)),
            "images": figure_to_pixels(draw_portrait(self.gallery, heading=heading)),
        }

    @cached_property
    def similarities(self) -> dict[str, Values]:
        """Similarity of each image's maps, over ``kept`` and over ``changed`` predictions, where there are any."""
        rows = self.report["per_image"].items()
        return {
            name: np.array([each for each in values if each is not None], dtype=np.float64) for name, values in rows
        }

    @property
    def edges(self) -> Values:
        """Edges of the histograms' bins, the same for both: twenty bins over [0, 1], or over all values if wider."""
        every = np.concatenate([*self.similarities.values(), [0.0, 1.0]])
        return np.linspace(every.min(), every.max(), _BINS + 1)

    @cached_property
    def card(self) -> str:
        """The explanation, in markdown."""
        settings = describe_settings(self.plan, self.report, space=self.space)
        return write_card(settings, self.plan, name=self.name, stage=self.report["stage"])

    @cached_property
    def table(self) -> str:
        """The similarities as CSV text, one line an image, empty where there is no such pair."""
        rows = zip(*self.report["per_image"].values(), strict=True)
        lines = [
            f"{index},{','.join('' if each is None else repr(each) for each in row)}" for index, row in enumerate(rows)
        ]
        return "\n".join([f"image,{','.join(self.report['per_image'])}", *lines]) + "\n"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
