"""Randomised smoothing as a method of certifying: its settings."""

from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.certify.smoothing import certified_overlap, certified_radius, check_overlap, check_smoothing
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.types import CAMMethod


@dataclass(frozen=True)
class Smoothing:
    """Certify the smoothed map of any CAM method on any network, with a probability, in the L2 norm.

    Attributes:
        cam: Name of a CAM method, or an instance.
        target_layer: Dotted name of its layer, or None for the last spatial one.
        sigma: Standard deviation of the noise, in pixel units.
        samples: Noisy copies of each image; the certified radius grows with them.
        confidence: With what probability the certificate of an image holds, in (0, 1).
        overlap: Share of the top cells that has to stay, in (0, 1].
        keep: Share of cells kept in each copy's map, in (0, 1].
        clip: Share of cells set to 1 in it, in (0, keep].
        seed: Seed of the noise.
        chunk: Copies that run through the network at once.

    Source:
        Levine, Singla, Feizi 2019 (arXiv 1905.12105), who take 8192 samples, and sigma and `keep` between 0.02 and 0.5.
    """

    cam: str | CAMMethod = "gradcam"
    target_layer: str | None = None
    sigma: float = 0.1
    samples: int = 1000
    confidence: float = 0.95
    overlap: float = 1.0
    keep: float = 0.4
    clip: float = 0.2
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        check_smoothing(sigma=self.sigma, samples=self.samples, confidence=self.confidence)
        check_overlap(self.overlap)
        if not 0 < self.clip <= self.keep <= 1:
            raise ArgumentError(f"`clip` and `keep` must hold 0 < clip <= keep <= 1, got {self.clip!r}, {self.keep!r}.")
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise ArgumentError(f"`chunk` must be a whole number of at least 1, got {self.chunk!r}.")

    def radii(self, mean_map: Tensor, *, k: int) -> Tensor:
        """Find the certified radius of mean maps ``(b, n)``, see :func:`certified_radius`."""
        return certified_radius(
            mean_map,
            k=k,
            samples=self.samples,
            sigma=self.sigma,
            overlap=self.overlap,
            confidence=self.confidence,
        )

    def overlaps(self, mean_map: Tensor, *, k: int, radius: float) -> Tensor:
        """Find the certified overlap of mean maps ``(b, n)``, see :func:`certified_overlap`."""
        return certified_overlap(
            mean_map, k=k, samples=self.samples, sigma=self.sigma, radius=radius, confidence=self.confidence
        )
