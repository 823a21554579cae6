"""What one run has to show: made once, for however many loggers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_camrobust.report.card import write_card
from lightning_camrobust.report.drawing import draw_severity_curves, figure_to_pixels
from lightning_camrobust.report.layout import HEADLINE
from lightning_camrobust.report.portrait import draw_portrait

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
        name: Of the callback, as in its keys.
        step: Where Lightning put this run's scalars.
        settings: What was set, in the reader's words.
        measure: What maps were compared by.
        gallery: What pictures need; None draws none.
        compared: Log keys of the scores by which runs are to be compared; empty where nobody asked.

    Example:
        >>> report = {"stage": "val", "epoch": 3, "per_image": {"kept": [0.5, None], "changed": [None, 0.25]}}
        >>> found = Publication(report, name="cam", step=119)
        >>> found.stem, found.pictures, found.similarities["kept"].tolist()
        ('epoch=3-step=119', {}, [0.5])
    """

    report: dict[str, Any]
    name: str
    step: int
    settings: Mapping[str, str] | None = None
    measure: str = "RBO"
    gallery: "Gallery | None" = None
    compared: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """First part of every key and path, such as ``cam_robustness``."""
        return f"{self.name}_robustness"

    @property
    def stem(self) -> str:
        """What files of this run begin with."""
        stage = "" if self.report["stage"] == "val" else f"{self.report['stage']}-"
        return f"{stage}epoch={self.report['epoch']}-step={self.step}"

    @cached_property
    def pictures(self) -> dict[str, Pixels]:
        """Pictures by name, ``(height, width, 3)`` each."""
        if self.gallery is None:
            return {}
        heading = f"Epoch {self.report['epoch']}, all {self.report['num_images']} images: "
        heading += ", ".join(f"{key.replace('_', ' ')} {_number(self.report[key])}" for key in HEADLINE)
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
        return write_card(self.settings or {}, name=self.name, measure=self.measure)

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
