"""Pictures for TensorBoard, written with the run's own writer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lightning_camrobust.report.drawing import draw_gallery, draw_severity_curves, figure_to_pixels

if TYPE_CHECKING:
    from lightning_camrobust.gallery import Gallery


def tensorboard_writers(loggers: Iterable[Any]) -> list[Any]:
    """Find the loggers that are TensorBoard's, of either Lightning package.

    Args:
        loggers: ``trainer.loggers``.

    Returns:
        Those loggers; their writer is only opened when something is written.

    Example:
        >>> tensorboard_writers([])
        []
    """
    return [each for each in loggers if any(kind.__name__ == "TensorBoardLogger" for kind in type(each).__mro__)]


_HEADLINE = ("robustness", "consistency", "responsiveness", "flip_rate")


def write_pictures(loggers: Iterable[Any], gallery: "Gallery", report: dict[str, Any], *, name: str, step: int) -> None:
    """Write the gallery and the severity curves.

    Args:
        loggers: TensorBoard loggers; without one nothing is drawn.
        gallery: What to show.
        report: As in ``callback.report``.
        name: First part of the tags.
        step: Position on TensorBoard's slider.
    """
    loggers = list(loggers)
    if not loggers:
        return
    heading = f"Epoch {report['epoch']}, all {report['num_images']} images and noises: "
    heading += ", ".join(f"{key.replace('_', ' ')} {_number(report[key])}" for key in _HEADLINE)
    pictures = {
        f"{name}_robustness/severity": draw_severity_curves(report),
        f"{name}_robustness/images": draw_gallery(gallery, heading=heading),
    }
    for tag, figure in pictures.items():
        pixels = figure_to_pixels(figure)
        for logger in loggers:
            logger.experiment.add_image(tag, pixels, global_step=step, dataformats="HWC")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
