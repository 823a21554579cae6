"""Virtual adversarial noise."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from lightning_camrobust.ascent import gradients_by, unit_rows
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.network import Network
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class VAT:
    """Add the small vector that changes the predicted distribution most: ``clip(x + level * N(d))``.

    ``d`` starts as normal noise and takes ``iterations`` steps of power iteration, ``d <- gradient by d of
    KL(p || f(x + xi * N(d)))``, with p the distribution predicted on the clean image and ``N`` the scaling to L2 norm
    one. Where the gradient is zero, ``d`` stays as it is.

    Attributes:
        xi: Length at which the gradient is taken, in pixel units. The published 1e-6 loses the direction to the
            rounding of float32.
        iterations: Steps of power iteration, at least 1.
        levels: Own values for severity 1..5 instead of 0.25, 0.5, 1, 2, 4: the L2 norm of the change of a whole image,
            in pixel units, before clipping.
        needs_network: It is called with ``network=``.

    Raises:
        ArgumentError: If a setting is unusable.

    Source:
        Miyato et al. 2018 (arXiv 1704.03976), section 3.3; scaling as in the code of LVAT (arXiv 2011.13181).

    Example:
        >>> VAT()
        VAT(xi=0.01, iterations=1, levels=None)
    """

    xi: float = 1e-2
    iterations: int = 1
    levels: tuple[float, float, float, float, float] | None = None
    needs_network: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.xi > 0:
            raise ArgumentError(f"VAT: `xi` must be above 0, got {self.xi}. The default 1e-2 suits float32.")
        if self.iterations < 1:
            raise ArgumentError(f"VAT: `iterations` must be 1 or more, got {self.iterations}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it.

        Args:
            images: The clean pixels that ``network`` was built from.
            severity: 1 to 5.
            randomness: Draws the first direction.
            network: The classifier, in pixels.

        Returns:
            ``(b, c, H, W)``.

        Raises:
            ModelError: If no gradient gets from the logits to the pixels.
        """
        levels = _LEVELS if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)
        predicted = log_softmax(network.logits(images.detach()).detach(), dim=1)

        def divergence(shift: Tensor) -> Tensor:
            disturbed = log_softmax(network.logits(images + shift), dim=1)
            return kl_div(disturbed, predicted, log_target=True, reduction="none").sum(dim=1)

        direction = unit_rows(randomness.normal(tuple(images.shape[1:])).to(images.dtype))
        for _ in range(self.iterations):
            (gradient,) = gradients_by([self.xi * direction], divergence)
            direction = unit_rows(gradient, otherwise=direction)
        return direction.mul(level).add_(images).clamp_(0, 1)


EXAMPLES = (VAT(),)
