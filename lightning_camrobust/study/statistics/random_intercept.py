"""A linear model with a random intercept of the image, fitted by restricted maximum likelihood."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Bools, Floats

# An intraclass correlation of exactly 1 would divide by zero.
MOST = 1 - 1e-8


@dataclass(frozen=True)
class InterceptFit:
    """Means of cells (such as a method of a model), estimated from images that may lack some cells.

    Attributes:
        means: Of the cells, ``(cells,)``, by generalised least squares.
        covariance: Of these means, ``(cells, cells)``, robust: from the scatter of whole images.
        image_share: Share of the variance that belongs to the image, in [0, 1]; NaN where nothing tells it.
        num_images: Images with a value.
        present: Which cells these images have, ``(images, cells)`` bool.
        information: Inverse of the covariance of the means that the model believes in, up to a factor,
            ``(cells, cells)``.
    """

    means: Floats
    covariance: Floats
    image_share: float
    num_images: int
    present: Bools
    information: Floats

    def informative_images(self, contrasts: Floats) -> float:
        """Say on how many images contrasts of the means rest.

        An image without some of the cells says less than others: where images hardly differ from each other but within
        themselves, a difference between two cells rests on the images that have both. So each image is weighted by the
        share v_i of the contrasts' variance that the model ascribes to it, and the number is (sum v_i)^2 / sum v_i^2.

        Args:
            contrasts: ``(q, cells)``, linearly independent.

        Returns:
            The number: that of all images where none lacks a cell, of a few where a few carry the contrasts.

        Source:
            Satterthwaite 1946, Biometrics Bulletin 2; for clusters Bell & McCaffrey 2002, Survey Methodology 28. Here
            the parts of several contrasts are added up in units of their variance.
        """
        bread = contrasts @ np.linalg.inv(self.information)
        weight = bread.T @ np.linalg.solve(bread @ self.information @ bread.T, bread)
        rho = 0.0 if math.isnan(self.image_share) else self.image_share
        given = self.present.astype(np.float64)
        parts = (given @ np.diag(weight) - _shared(given, rho) * ((given @ weight) * given).sum(axis=1)) / (1 - rho)
        return float(parts.sum() ** 2 / (parts**2).sum())


def fit_random_intercept(values: Floats) -> InterceptFit:
    """Fit value = mean of the cell + deviation of the image + residual.

    The model gives the weights and the share of the image. The covariance of the means does not believe it: methods on
    one model see the same noisy images, so residuals of an image hang together, and the model's own standard errors of
    a difference between models would be too small by up to the root of the number of methods. It is the sandwich with
    images as clusters; with complete data it is the covariance of the images divided by their number.

    Args:
        values: ``(images, cells)``, NaN where missing; every cell has a value.

    Returns:
        The fit.

    Raises:
        ArgumentError: If it is no table, or a cell has no value.

    Source:
        Laird & Ware 1982, Biometrics 38 (model). Harville 1977, JASA 72 (REML). Liang & Zeger 1986, Biometrika 73
        (sandwich; here each cell's part is scaled up for its n - 1 degrees of freedom).

    Example:
        >>> fit = fit_random_intercept(np.array([[0.1, 0.3], [0.5, 0.7], [0.6, np.nan]]))
        >>> fit.means.round(3), round(fit.image_share, 3), fit.num_images
        (array([0.4, 0.6]), 1.0, 3)
        >>> round(fit.informative_images(np.array([[1.0, -1.0]])), 3)
        2.0
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or np.isnan(values).all(axis=0).any():
        raise ArgumentError(
            f"fit_random_intercept: `values` must be (images, cells) with a value in every cell, got {values.shape}. "
            "Leave empty cells out."
        )
    values = values[~np.isnan(values).all(axis=1)]
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    share = _image_share(filled, present)
    rho = 0.0 if math.isnan(share) else share
    means, information = _generalised_means(filled, present, rho)
    residual = np.where(present, filled - means, 0.0)
    scores = np.where(present, _whiten(residual, present, rho), 0.0)
    count = len(values)
    per_cell = present.sum(axis=0)
    covariance = np.full_like(information, np.nan)
    if count > 1:
        half = np.linalg.solve(information, (scores * np.sqrt(per_cell / np.maximum(per_cell - 1, 1))).T)
        covariance = half @ half.T
    return InterceptFit(means, covariance, share, count, present, information)


def _image_share(filled: Floats, present: Bools) -> float:
    """Return the intraclass correlation that is most likely; NaN if no image has two values or nothing varies."""
    counts = present.sum(axis=1)
    freedom = int(present.sum()) - present.shape[1]
    means, _ = _generalised_means(filled, present, 0.0)
    varies = float(np.abs(np.where(present, filled - means, 0.0)).max(initial=0.0)) > 1e-9
    if counts.max(initial=0) < 2 or freedom < 1 or not varies:
        return math.nan

    def criterion(rho: float) -> float:
        means, information = _generalised_means(filled, present, rho)
        residual = np.where(present, filled - means, 0.0)
        scatter = float((residual * _whiten(residual, present, rho)).sum())
        spread = float(((counts - 1) * math.log1p(-rho) + np.log1p((counts - 1) * rho)).sum())
        return float(freedom * math.log(scatter) + spread + np.linalg.slogdet(information)[1])

    grid = np.concatenate([np.linspace(0.0, 0.95, 20), 1 - np.geomspace(0.02, 1 - MOST, 8)])
    best = int(np.argmin([criterion(rho) for rho in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(criterion, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(found.x if found.fun < criterion(grid[best]) else grid[best])


def _generalised_means(filled: Floats, present: Bools, rho: float) -> tuple[Floats, Floats]:
    """Return the means of the cells, and X' R^-1 X, R being the correlations within an image."""
    given = present.astype(np.float64)
    information = (np.diag(given.sum(axis=0)) - given.T @ (_shared(given, rho)[:, None] * given)) / (1 - rho)
    right = np.where(present, _whiten(filled, present, rho), 0.0).sum(axis=0)
    return np.linalg.solve(information, right), information


def _shared(given: Floats, rho: float) -> Floats:
    """Return what the image takes from each of its cells, ``(images,)``, given ``(images, cells)`` being 0 or 1."""
    return np.asarray(rho / (1 - rho + rho * given.sum(axis=1)), dtype=np.float64)


def _whiten(rows: Floats, present: Bools, rho: float) -> Floats:
    """Return R^-1 times each image's row, R = (1 - rho) I + rho 1 1'; only present elements mean something."""
    counts = present.sum(axis=1, keepdims=True)
    shared: Floats = rho / (1 - rho + rho * counts) * rows.sum(axis=1, keepdims=True)
    return (rows - shared) / (1 - rho)
