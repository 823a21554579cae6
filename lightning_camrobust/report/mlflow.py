"""MLflow: pictures, the card and the per-image numbers, as artifacts of the run."""

from typing import Any

from lightning_camrobust.report.naming import own_key
from lightning_camrobust.report.publication import Publication

LOGGER = "MLFlowLogger"


def introduce(logger: Any, publication: Publication) -> None:
    """Write the card.

    Args:
        logger: MLflow's.
        publication: The first one.
    """
    logger.experiment.log_text(logger.run_id, publication.card, f"{own_key(logger, publication.folder)}/about.md")


def publish(logger: Any, publication: Publication) -> None:
    """Write pictures and per-image numbers.

    Args:
        logger: MLflow's.
        publication: What to show.
    """
    start = f"{own_key(logger, publication.folder)}/{publication.stem}"
    for name, pixels in publication.pictures.items():
        logger.experiment.log_image(logger.run_id, pixels, f"{start}-{name}.png")
    logger.experiment.log_text(logger.run_id, publication.table, f"{start}-per-image.csv")
