"""MLflow: pictures, the card and the per-image numbers, as artifacts of the run."""

from typing import Any

from lightning_camrobust.report.naming import own_key, unused_stem
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
    """Write per-image numbers and pictures.

    Args:
        logger: MLflow's.
        publication: What to show.
    """
    folder = own_key(logger, publication.folder)
    artifacts = logger.experiment.list_artifacts(logger.run_id, folder)
    stem = unused_stem(publication.stem, [each.path for each in artifacts])
    logger.experiment.log_text(logger.run_id, publication.table, f"{folder}/{stem}-per-image.csv")
    for name, pixels in publication.pictures.items():
        logger.experiment.log_image(logger.run_id, pixels, f"{folder}/{stem}-{name}.png")
