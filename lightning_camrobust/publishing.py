"""Tell the loggers of a trainer: scalars to all of them, and the rest to those whose destination is known."""

import warnings
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from lightning_camrobust import messages
from lightning_camrobust.gallery import measure_name
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.plan import ProbePlan
from lightning_camrobust.report.card import describe_settings
from lightning_camrobust.report.destinations import any_destination, destination_of
from lightning_camrobust.report.layout import Layout, arrange_charts
from lightning_camrobust.report.naming import group_separator, regrouped
from lightning_camrobust.report.publication import Publication
from lightning_camrobust.session import ProbeSession
from lightning_camrobust.summary import Report, headline_keys, scores_to_log
from lightning_camrobust.trainers import logged_step


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
        self._arranged: WeakSet[Any] = WeakSet()
        self._introduced: WeakSet[Any] = WeakSet()
        self._unlogged: dict[str, float] = {}
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loggers, which belong to a running trainer."""
        return {**vars(self), "_arranged": None, "_introduced": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with no logger known."""
        vars(self).update({**state, "_arranged": WeakSet(), "_introduced": WeakSet()})

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
            if arrange is not None and logger not in self._arranged:
                self._arranged.add(logger)
                self._try(logger, arrange, layout)

    def log(self, pl_module: Any, report: Report, *, prog_bar: bool) -> None:
        """Log scores by Lightning, for monitors and for every logger; on every process.

        Args:
            pl_module: The user's module.
            report: Of the run.
            prog_bar: Whether the robustness is shown in the progress bar.
        """
        headline = f"{report['stage']}_{self.name}_robustness"
        scores = scores_to_log(report, stage=report["stage"], name=self.name)
        if headline not in scores:
            warnings.warn(messages.nothing_scored(headline), UserWarning, stacklevel=2)
        # MPS has no float64; everywhere else a logged score is the very number of the report.
        dtype = torch.float32 if pl_module.device.type == "mps" else torch.float64
        # A logger that separates groups by another sign gets the cells later, under keys of its own.
        regroup = any(group_separator(logger) != "/" for logger in pl_module.trainer.loggers)
        self._unlogged = {key: value for key, value in scores.items() if regroup and "/" in key}
        for key, value in scores.items():
            number = torch.tensor(value, dtype=dtype, device=pl_module.device)
            options: dict[str, Any] = {"prog_bar": prog_bar and key == headline}
            if key in self._unlogged:
                options["logger"] = False
            pl_module.log(key, number, on_step=False, on_epoch=True, batch_size=1, **options)

    def publish(self, trainer: Any, session: ProbeSession, report: Report) -> None:
        """Write all that is no scalar: pictures, histograms, texts, files.

        Args:
            trainer: In ``on_validation_end`` or ``on_test_end``.
            session: The run that has ended.
            report: What came of it.
        """
        if not trainer.is_global_zero or not session.num_found:
            return
        publication = self._publication(trainer, session, report)
        for logger in trainer.loggers:
            if self._unlogged:
                row = {regrouped(logger, key): value for key, value in self._unlogged.items()}
                self._try(logger, lambda target, scores: target.log_metrics(scores, publication.step), row)
            destination = destination_of(logger)
            if destination is None:
                continue
            if logger not in self._introduced and hasattr(destination, "introduce"):
                self._introduced.add(logger)
                self._try(logger, destination.introduce, publication)
            self._try(logger, destination.publish, publication)

    def _publication(self, trainer: Any, session: ProbeSession, report: Report) -> Publication:
        peers = _arranging(trainer) if trainer.state.fn == "fit" else []
        compared = [key for peer in peers for key in headline_keys("val", peer.name)] if peers[:1] == [self] else []
        return Publication(
            report,
            name=self.name,
            step=logged_step(trainer),
            settings=describe_settings(self.plan, report, space=session.space),
            measure=measure_name(self.plan),
            gallery=session.gallery,
            compared=tuple(compared),
        )

    def _try(self, logger: Any, write: Any, what: Any) -> None:
        try:
            # A logger is somebody else's code: whatever it draws, random streams go on as if it had not.
            with observe_only(nn.Module()):
                write(logger, what)
        except Exception as error:
            name = type(logger).__name__
            if name not in self._told:
                self._told.add(name)
                warnings.warn(messages.not_published(name, error), UserWarning, stacklevel=2)


def _arranging(trainer: Any) -> list[Publisher]:
    found = [getattr(each, "_publisher", None) for each in trainer.callbacks]
    return [each for each in found if isinstance(each, Publisher) and each.arranges]
