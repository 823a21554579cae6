"""An attack that moves the map and keeps the class."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from lightning_camrobust.ascent import gradients_by
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.network import Network
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)


@dataclass(frozen=True)
class CAMAttack:
    """Search the box ``|x' - x| <= level`` for the image whose Grad-CAM differs most while its class stays.

    Steps of the sign of the gradient, projected, as in PGD. The loss is ``"cosine"``: one minus the cosine of the maps;
    or ``"topk"``: minus the share that the clean map's largest cells hold of the sum of all cells. Where an iterate has
    lost the class, the next step goes back towards the class instead.

    Each image gets its strongest iterate that keeps the class. **Where no iterate keeps the class and has a larger loss
    than the clean image, the image comes back unchanged**, as it does where the clean map is zero everywhere.

    Attributes:
        loss: ``"cosine"`` changes the whole order of the cells, ``"topk"`` drives out the top ones.
        top_share: Share of the cells that count as the top, in (0, 1]; at least one cell.
        steps: Number of steps, at least 1; each differentiates the network twice.
        levels: Own values for severity 1..5 instead of 1, 2, 4, 8, 16 (/255), in pixel units [0, 1].
        needs_network: It is called with ``network=``.

    Raises:
        ArgumentError: If a setting is unusable.

    Source:
        The attack that bounds certificates from above in Gu et al. 2020 (CORGI, arXiv 2301.11324), released code: 100
        steps of level / 30 without a random start, on the sum of the top cells. That sum also falls when the whole map
        fades, and divided by the maximum when one cell grows; neither moves the map, hence the share. The random start
        is there because the cosine has no slope at the clean image, and a lost class is won back.

    Example:
        >>> CAMAttack()
        CAMAttack(loss='cosine', top_share=0.2, steps=20, levels=None)
    """

    loss: Literal["cosine", "topk"] = "cosine"
    top_share: float = 0.2
    steps: int = 20
    levels: tuple[float, float, float, float, float] | None = None
    needs_network: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.loss not in ("cosine", "topk"):
            raise ArgumentError(f"CAMAttack: `loss` must be 'cosine' or 'topk', got {self.loss!r}.")
        if not 0 < self.top_share <= 1:
            raise ArgumentError(f"CAMAttack: `top_share` must be above 0 and at most 1, got {self.top_share}.")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(f"CAMAttack: `steps` must be 1 or more (a whole number), got {self.steps!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it.

        Args:
            images: The clean pixels that ``network`` was built from.
            severity: 1 to 5.
            randomness: Draws the start.
            network: The classifier, in pixels.

        Returns:
            ``(b, c, H, W)``; an image without a qualifying iterate comes back unchanged.

        Raises:
            ModelError: If the network cannot be differentiated twice.
        """
        levels = _LEVELS if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)
        climb = _Climb(self, network, images)
        start = randomness.uniform(tuple(images.shape[1:])).to(images.dtype).mul_(2).sub_(1).mul_(level)
        noisy = (images + start).clamp_(0, 1)
        for _ in range(self.steps):
            (gradient,) = gradients_by([noisy], climb.loss)
            change = (noisy + 2.5 * level / self.steps * gradient.sign_() - images).clamp_(-level, level)
            noisy = change.add_(images).clamp_(0, 1)
        with torch.no_grad():
            climb.loss(noisy)
        return climb.best

    def change(self, clean: Tensor, maps: Tensor) -> Tensor:
        """Say how far maps are from the clean ones; larger is farther.

        Args:
            clean: ``(b, h, w)``, zero or above.
            maps: The same shape.

        Returns:
            ``(b,)``, differentiable in ``maps``.
        """
        before, after = clean.flatten(1), maps.flatten(1)
        if self.loss == "cosine":
            return 1 - cosine_similarity(_shares(before), _shares(after))
        count = max(1, round(self.top_share * before.shape[1]))
        top = before.topk(count, dim=1).indices
        return -_shares(after).gather(1, top).sum(dim=1)


class _Climb:
    """The loss that is climbed, and the best image seen on the way."""

    def __init__(self, attack: CAMAttack, network: Network, images: Tensor) -> None:
        self._attack, self._network = attack, network
        self._clean = network.maps(images.detach(), network.explained).detach()
        self._highest = attack.change(self._clean, self._clean)
        self.best = images.clone()

    def loss(self, pixels: Tensor) -> Tensor:
        """Note the images that are better than before, and return what the next step shall raise, ``(b,)``."""
        logits, maps = self._network.logits_and_maps(pixels, self._network.explained)
        change = self._attack.change(self._clean, maps)
        kept = logits.argmax(dim=1) == self._network.classes
        # A map that died is no ranking that moved.
        alive = maps.flatten(1).amax(dim=1) > 0
        better = kept & alive & (change.detach() > self._highest)
        self._highest = torch.where(better, change.detach(), self._highest)
        self.best = torch.where(better.view(-1, 1, 1, 1), pixels.detach(), self.best)
        return torch.where(kept, change, -cross_entropy(logits, self._network.classes, reduction="none"))


def _shares(rows: Tensor) -> Tensor:
    whole = rows.sum(dim=1, keepdim=True)
    return rows / torch.where(whole > 0, whole, 1)


EXAMPLES = (CAMAttack(), CAMAttack(loss="topk"))
