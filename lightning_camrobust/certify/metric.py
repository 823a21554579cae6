"""Certificates as a torchmetric."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_camrobust.certify.record import Certificate
from lightning_camrobust.errors import ArgumentError

_SUMS = ("radius_sum", "certified_sum", "covered_count", "left_out_count")


class CertifiedTopK(Metric):
    """Mean certified radius, and mean certified overlap at one radius; higher is better.

    As input to ``update``: a certificate of :func:`~.certificate.certify_topk`, all of one method, k and ``within``. As
    output of ``compute``: a dictionary of scalars: ``mean_radius`` in pixel units; ``certified_at_radius``, the mean
    share of top cells certified to stay at ``at_radius`` (for bounds the share of images whose radius reaches it); and
    the counts ``covered`` and ``left_out`` of images. Images that no certificate covers enter no mean. Without a
    covered image both means are NaN, with one warning.

    Example:
        >>> from torch import nn
        >>> from lightning_camrobust.certify.certificate import certify_topk
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> metric = CertifiedTopK(at_radius=1e-5)
        >>> metric.update(certify_topk(net, torch.rand(3, 1, 8, 8), k=5))
        >>> found = metric.compute()
        >>> sorted(found), found["covered"]
        (['certified_at_radius', 'covered', 'left_out', 'mean_radius'], tensor(3., dtype=torch.float64))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    radius_sum: Tensor
    certified_sum: Tensor
    covered_count: Tensor
    left_out_count: Tensor

    def __init__(self, *, at_radius: float, **kwargs: Any) -> None:
        """Set the metric up.

        Args:
            at_radius: Where the certified share is read off, in pixel units and the norm of the certificates.
            kwargs: Arguments of :class:`torchmetrics.Metric`, such as ``dist_sync_fn``.

        Raises:
            ArgumentError: If the radius is negative or not finite.
        """
        super().__init__(**kwargs)
        if not 0 <= at_radius < float("inf"):
            raise ArgumentError(
                f"`at_radius` must be a finite number of at least 0, in pixel units; got {at_radius!r}."
            )
        self.at_radius = at_radius
        self._statement: tuple[Any, ...] | None = None
        for name in _SUMS:
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        # MetricCollection merges metrics whose states look alike after one update, as they may by chance.
        self.add_state("settings", default=torch.tensor([at_radius], dtype=torch.float64), dist_reduce_fx="max")

    def update(self, certificate: Certificate) -> None:
        """Add the certificate of a batch.

        Args:
            certificate: What :func:`~.certificate.certify_topk` returned.

        Raises:
            ArgumentError: If it states something else than those before it.
        """
        self._statement = self._same_statement(certificate)
        covered = certificate.covered
        self.radius_sum = self.radius_sum + certificate.radius[covered].sum()
        self.certified_sum = self.certified_sum + certificate.overlap_at(self.at_radius)[covered].sum()
        self.covered_count = self.covered_count + covered.sum()
        self.left_out_count = self.left_out_count + (~covered).sum()

    def forward(self, certificate: Certificate) -> Any:
        """Add the certificate of a batch, and return the values of this batch alone.

        Args:
            certificate: As for :meth:`update`.

        Returns:
            What :meth:`compute` would return for it.

        Raises:
            ArgumentError: If it states something else than those before it.
        """
        # Before torchmetrics sets all states aside, and with them what those before stated.
        self._same_statement(certificate)
        return super().forward(certificate)

    def _same_statement(self, certificate: Certificate) -> tuple[Any, ...]:
        statement = (certificate.method, certificate.k, certificate.within)
        if self._statement not in (None, statement):
            raise ArgumentError(
                f"`certificate` must state the same as those before it (method, k, within) = {self._statement}; "
                f"got {statement}. Use one metric for each statement."
            )
        return statement

    def compute(self) -> dict[str, Tensor]:
        """Return means and counts, scalars in float64."""
        if not bool(self.covered_count > 0):
            warnings.warn(
                f"CertifiedTopK is undefined and returns NaN: no image is covered by a certificate "
                f"({int(self.left_out_count)} left out, as another class was predicted).",
                UserWarning,
                stacklevel=2,
            )
        return {
            "mean_radius": self.radius_sum / self.covered_count,
            "certified_at_radius": self.certified_sum / self.covered_count,
            "covered": self.covered_count,
            "left_out": self.left_out_count,
        }

    def reset(self) -> None:
        """Forget all certificates."""
        super().reset()
        self._statement = None
