"""The fast gradient sign method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_camrobust.ascent import gradients_by
from lightning_camrobust.network import Network
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)


@dataclass(frozen=True)
class FGSM:
    """One step against the predicted class: ``clip(x + level * sign(gradient of CE(f(x), class)))``.

    No pixel changes by more than the level, in pixel units [0, 1]. The class is the one predicted on the clean image,
    so no label is needed. A network whose gradients vanish looks stable against one step; compare with ``"pgd"``.

    Attributes:
        levels: Own values for severity 1..5 instead of 1, 2, 4, 8, 16 (/255). The scripts of ImageNet-C have 8, 16,
            32, 64, 128 (/255), which no picture survives; pass ``tuple(each / 255 for each in (8, 16, 32, 64, 128))``.
        needs_network: It is called with ``network=``.

    Source:
        Goodfellow, Shlens and Szegedy 2015 (arXiv 1412.6572), section 4; label as in the scripts of ImageNet-C.

    Example:
        >>> FGSM()
        FGSM(levels=None)
    """

    levels: tuple[float, float, float, float, float] | None = None
    needs_network: ClassVar[bool] = True

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it; nothing is drawn.

        Args:
            images: The clean pixels that ``network`` was built from.
            severity: 1 to 5.
            randomness: Not used.
            network: The classifier, in pixels.

        Returns:
            ``(b, c, H, W)``.

        Raises:
            ModelError: If no gradient gets from the logits to the pixels.
        """
        levels = _LEVELS if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)

        def loss(pixels: Tensor) -> Tensor:
            return cross_entropy(network.logits(pixels), network.classes, reduction="none")

        (gradient,) = gradients_by([images], loss)
        return gradient.sign_().mul_(level).add_(images).clamp_(0, 1)


EXAMPLES = (FGSM(),)
