"""TensorBoard: pictures, histograms, the card, a layout of the charts, and the columns of the HParams table.

All goes through the run's own writer, so that a run stays one folder and one file.
"""

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from lightning_camrobust.report.layout import Layout
from lightning_camrobust.report.naming import own_key
from lightning_camrobust.report.publication import Publication

LOGGER = "TensorBoardLogger"


def arrange(logger: Any, layout: Layout) -> None:
    """Write the layout of the Custom Scalars tab; of several in one run TensorBoard shows the last.

    Args:
        logger: TensorBoard's.
        layout: Keys by category and chart.
    """
    # The tab reads names as patterns that match from the start, so 1 would match 10 as well.
    lines = {
        category: {
            chart: ["Multiline", [f"{re.escape(own_key(logger, key))}$" for key in keys]]
            for chart, keys in each.items()
        }
        for category, each in layout.items()
    }
    logger.experiment.add_custom_scalars(lines)


def compare(logger: Any, keys: Sequence[str]) -> None:
    """Name what the HParams table compares runs by.

    Only the columns are named: a value written with them would be a made-up point at the start of the curve.

    Args:
        logger: TensorBoard's.
        keys: Log keys of scores.
    """
    settings = _flat(logger.hparams)
    # With `default_hp_metric` on, Lightning has filled the table already, and TensorBoard reads the first entry only.
    if not settings or getattr(logger, "_default_hp_metric", True):
        return
    from torch.utils.tensorboard.summary import hparams

    writer = logger.experiment._get_file_writer()
    columns: Any = hparams
    for summary in columns(settings, dict.fromkeys((own_key(logger, key) for key in keys), 0.0)):
        writer.add_summary(summary)


def introduce(logger: Any, publication: Publication) -> None:
    """Write the card.

    Args:
        logger: TensorBoard's.
        publication: The first one.
    """
    tag = own_key(logger, f"{publication.folder}/about")
    logger.experiment.add_text(tag, publication.card, global_step=publication.step)


def publish(logger: Any, publication: Publication) -> None:
    """Write histograms and pictures.

    Args:
        logger: TensorBoard's.
        publication: What to show.
    """
    writer, step = logger.experiment, publication.step
    for name, values in publication.similarities.items():
        if len(values):
            tag = own_key(logger, f"{publication.folder}/per_image_{name}")
            writer.add_histogram(tag, values, global_step=step, bins=publication.edges)
    for name, pixels in publication.pictures.items():
        tag = own_key(logger, f"{publication.folder}/{name}")
        writer.add_image(tag, pixels, global_step=step, dataformats="HWC")


def _flat(settings: Any, *, above: str = "") -> dict[str, bool | int | float | str]:
    """Flatten nested settings; the table holds numbers, truth values and text."""
    settings = settings if isinstance(settings, Mapping) else vars(settings)
    found: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, above=f"{above}{key}/"))
        else:
            found[f"{above}{key}"] = _plain(value)
    return found


def _plain(value: Any) -> bool | int | float | str:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (bool, int, float, str)):
        return value
    return float(value) if isinstance(value, Real) else str(value)
