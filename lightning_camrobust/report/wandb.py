"""Weights & Biases: pictures, histograms and the card, in the run's own history."""

from html import escape
from typing import Any

import numpy as np

from lightning_camrobust.report.naming import regrouped
from lightning_camrobust.report.publication import Publication

LOGGER = "WandbLogger"


def introduce(logger: Any, publication: Publication) -> None:
    """Write the card.

    Args:
        logger: Of Weights & Biases.
        publication: The first one.
    """
    import wandb

    page = f"<pre style='white-space: pre-wrap'>{escape(publication.card)}</pre>"
    key = regrouped(logger, f"{publication.folder}/about")
    logger.log_metrics(metrics={key: wandb.Html(page, inject=False)}, step=publication.step)


def publish(logger: Any, publication: Publication) -> None:
    """Write histograms, and then pictures, as rows of the history.

    Args:
        logger: Of Weights & Biases.
        publication: What to show.
    """
    import wandb

    histograms = {
        f"per_image_{name}": wandb.Histogram(np_histogram=np.histogram(values, bins=publication.edges))
        for name, values in publication.similarities.items()
        if len(values)
    }
    _log(logger, publication, histograms)
    _log(logger, publication, {name: [wandb.Image(pixels)] for name, pixels in publication.pictures.items()})


def _log(logger: Any, publication: Publication, shown: dict[str, Any]) -> None:
    row = {regrouped(logger, f"{publication.folder}/{name}"): each for name, each in shown.items()}
    if row:
        # Not `experiment.log(step=...)`: that step must grow with every call, and Lightning puts its own in the row.
        logger.log_metrics(metrics=row, step=publication.step)
