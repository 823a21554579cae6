"""Tell the loggers of a trainer: scalars to all of them, and the rest to those whose destination is known."""

import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lightning_camrobust import messages
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.report.destinations import any_destination, destination_of
from lightning_camrobust.report.layout import Layout, arrange_charts
from lightning_camrobust.report.naming import group_separator, regrouped
from lightning_camrobust.report.publication import Publication
from lightning_camrobust.session import ProbeSession
from lightning_camrobust.summary import Report, headline_keys, scores_to_log
from lightning_camrobust.trainers import logged_step

# Attribute of a logger: what it has got that it needs only once, by whichever callback, as a notebook makes a new one
# for each fit.
_WRITTEN = "_cam_robustness_written"


class Publisher:
    """What one callback tells the loggers. It writes on the first process only, and never at the cost of the training.

    Args:
        plan: What is measured.
        name: Of the callback, as in its keys.
        arrange: Whether TensorBoard's tabs are arranged.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> publisher = Publisher(make_plan(), name="cam", arrange=True)
        >>> [list(charts) for charts in publisher.layout.values()][1]
        ['gaussian_noise']
    """

    def __init__(self, plan: ProbePlan, *, name: str, arrange: bool) -> None:
        self.plan = plan
        self.name = name
        self.arranges = arrange
        self._unlogged: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def layout(self) -> Layout:
        """The charts of this callback's scores."""
        return arrange_charts(self.plan.cells, name=self.name)

    def shows_pictures(self, trainer: Any) -> bool:
        """Tell whether this process has a logger that takes pictures."""
        return bool(trainer.is_global_zero) and any_destination(trainer.loggers)

    def begin(self, trainer: Any) -> None:
        """Arrange charts before a fit, once for each logger that can.

        That is as early as can be: of several layouts of a run TensorBoard shows the last, so the user's own wins.

        Args:
            trainer: In ``setup``.
        """
        peers = _arranging(trainer)
        if not trainer.is_global_zero or peers[:1] != [self]:
            return
        # One run has one layout, so the first callback of several writes it for all.
        layout = {category: charts for peer in peers for category, charts in peer.layout.items()}
        for logger in trainer.loggers:
            arrange = getattr(destination_of(logger), "arrange", None)
            if arrange is not None:
                self._try(logger, _write_once, repr(layout), arrange, layout)

    def log(self, pl_module: Any, report: Report, *, prog_bar: bool) -> dict[str, float]:
        """Log scores by Lightning, for monitors and for every logger; on every process.

        Args:
            pl_module: The user's module.
            report: Of the run.
            prog_bar: Whether the robustness is shown in the progress bar.

        Returns:
            The very numbers that were logged, by their keys.
        """
        headline = f"{report['stage']}_{self.name}_robustness"
        scores = scores_to_log(report, stage=report["stage"], name=self.name)
        if headline not in scores:
            warnings.warn(messages.nothing_scored(headline), UserWarning, stacklevel=2)
        # MPS has no float64; everywhere else a logged score is the very number of the report.
        dtype = torch.float32 if pl_module.device.type == "mps" else torch.float64
        # A logger that separates groups by another sign gets the cells later, under keys of its own.
        separators = {self._try(logger, group_separator) for logger in pl_module.trainer.loggers}
        regroup = not separators <= {"/", None}
        self._unlogged = {key: value for key, value in scores.items() if regroup and "/" in key}
        numbers = {key: torch.tensor(value, dtype=dtype) for key, value in scores.items()}
        for key, number in numbers.items():
            options: dict[str, Any] = {"prog_bar": prog_bar and key == headline}
            if key in self._unlogged:
                options["logger"] = False
            pl_module.log(key, number.to(pl_module.device), on_step=False, on_epoch=True, batch_size=1, **options)
        return {key: number.item() for key, number in numbers.items()}

    def publish(self, trainer: Any, session: ProbeSession, report: Report) -> None:
        """Write all that is no scalar: pictures, histograms, texts, files.

        Args:
            trainer: In ``on_validation_end`` or ``on_test_end``.
            session: The run that has ended.
            report: What came of it.
        """
        if not trainer.is_global_zero or not session.num_found:
            return
        in_fit = trainer.state.fn == "fit"
        publication = Publication(
            report,
            self.plan,
            name=self.name,
            step=logged_step(trainer),
            in_fit=in_fit,
            space=session.space,
            gallery=session.gallery,
        )
        peers = _arranging(trainer) if in_fit else []
        compared = [key for peer in peers for key in headline_keys("val", peer.name)] if peers[:1] == [self] else []
        for logger in trainer.loggers:
            if self._unlogged:
                self._try(logger, _log_regrouped, {"epoch": report["epoch"], **self._unlogged}, publication.step)
            destination = destination_of(logger)
            if destination is None:
                continue
            self._try(logger, _introduce, destination, publication)
            if compared and hasattr(destination, "compare"):
                self._try(logger, _write_once, "compared", destination.compare, compared)
            self._try(logger, destination.publish, publication)

    def _try(self, logger: Any, write: Callable[..., Any], *what: Any) -> Any:
        try:
            # A logger is somebody else's code: whatever it draws, random streams go on as if it had not.
            with observe_only(nn.Module()):
                return write(logger, *what)
        except Exception as error:
            name = type(logger).__name__
            if name not in self._told:
                self._told.add(name)
                warnings.warn(messages.not_published(name, error), UserWarning, stacklevel=2)
            return None


def _write_once(logger: Any, mark: str, write: Callable[[Any, Any], None], what: Any) -> None:
    marks = vars(logger).setdefault(_WRITTEN, set())
    if mark not in marks:
        marks.add(mark)
        write(logger, what)


def _introduce(logger: Any, destination: ModuleType, publication: Publication) -> None:
    if hasattr(destination, "introduce"):
        _write_once(logger, publication.folder + publication.card, destination.introduce, publication)


def _log_regrouped(logger: Any, scores: Mapping[str, float], step: int) -> None:
    # By keyword, as Lightning calls it.
    logger.log_metrics(metrics={regrouped(logger, key): value for key, value in scores.items()}, step=step)


def _arranging(trainer: Any) -> list[Publisher]:
    found = [getattr(each, "_publisher", None) for each in trainer.callbacks]
    return [each for each in found if isinstance(each, Publisher) and each.arranges]
