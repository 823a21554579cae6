"""Shifts of an image's latent code: disturbances that stay among the images a decoder can make."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, log_softmax

from lightning_camrobust.ascent import gradients_by, unit_rows
from lightning_camrobust.codec import Codec, Decode, Encode
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.network import Network
from lightning_camrobust.severity import SeverityTable
from lightning_camrobust.types import Randomness

_LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class LVAT:
    """Shift the latent code: ``clip(Dec(z + r))`` with ``z = Enc(x)`` and ``r = level * N(d)``.

    ``d`` starts as normal noise and takes ``iterations`` steps of power iteration, ``d <- gradient by d of
    loss(Dec(z + xi * N(d)))``; ``N`` scales to L2 norm one. A code of several tensors (Glow) has each of them shifted
    and scaled on its own. Nothing is clipped during the search. Where the gradient is zero, ``d`` stays as it is.

    Compare the map of the result with that of :meth:`reference`, not with that of the clean image, or the error of
    reconstruction counts as instability.

    Attributes:
        encode: ``(b, c, H, W)`` in [0, 1] to a code: a float tensor ``(b, ...)``, or a tuple or list of them (of a VAE
            the mean of the posterior). A module, a module's method or a function; None, with ``decode`` None, takes
            the image itself for its code, which makes ``"kl"`` the same as ``"vat"``.
        decode: The way back, differentiable, called with a code of the same form.
        objective: ``"kl"``: change the prediction, ``KL(p || f(Dec(z + d)))`` with p predicted on the clean image;
            ``"cam"``: change the Grad-CAM of the class predicted on ``Dec(z)``, by one minus the cosine of the maps,
            and keep that class: of ``+r`` and ``-r`` the one is taken that keeps it and changes the map more, and
            where both lose it the result is ``Dec(z)``; ``"random"``: no search.
        xi: Length at which the gradient is taken. The published 1e-6 loses the direction to the rounding of float32.
        iterations: Steps of power iteration, at least 1.
        levels: Own values for severity 1..5 instead of 0.25, 0.5, 1, 2, 4: the L2 norm of the shift of each tensor of
            the code, in its own units. The published norm is 1.
        needs_network: It is called with ``network=``.

    Raises:
        ArgumentError: If a setting is unusable.

    Source:
        Osada et al. 2020 (LVAT, arXiv 2011.13181) and its released code; xi and the objectives ``"cam"`` and
        ``"random"`` are ours.

    Example:
        >>> LVAT()
        LVAT(objective='kl', xi=0.01, iterations=1, levels=None)
    """

    # A module's own text fills pages, and that of a function holds an address.
    encode: Encode | None = field(default=None, repr=False)
    decode: Decode | None = field(default=None, repr=False)
    objective: Literal["kl", "cam", "random"] = "kl"
    xi: float = 1e-2
    iterations: int = 1
    levels: tuple[float, float, float, float, float] | None = None
    needs_network: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Codec(self.encode, self.decode)
        if self.objective not in ("kl", "cam", "random"):
            raise ArgumentError(f"LVAT: `objective` must be 'kl', 'cam' or 'random', got {self.objective!r}.")
        if not self.xi > 0:
            raise ArgumentError(f"LVAT: `xi` must be above 0, got {self.xi}. The default 1e-2 suits float32.")
        if self.iterations < 1:
            raise ArgumentError(f"LVAT: `iterations` must be 1 or more, got {self.iterations}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it.

        Args:
            images: The clean pixels that ``network`` was built from.
            severity: 1 to 5.
            randomness: Draws the first direction.
            network: The classifier, in pixels.

        Returns:
            ``Dec(z + r)``, ``(b, c, H, W)``.

        Raises:
            ArgumentError: If ``encode`` or ``decode`` returns something else than it should.
            ModelError: If no gradient gets from the logits to the code.
        """
        shifts = self.shift(images, severity=severity, randomness=randomness, network=network)
        with self._codec.at_rest(), torch.no_grad():
            code, decode = self._codec.read(images)

            def shifted(sign: int) -> Tensor:
                return decode(*[part + sign * shift for part, shift in zip(code, shifts, strict=True)]).clamp(0, 1)

            if self.objective != "cam":
                return shifted(1)
            return _best_that_keeps_class(decode(*code).clamp(0, 1), [shifted(1), shifted(-1)], network)

    def reference(self, images: Tensor) -> Tensor:
        """Return what the result is to be compared with: ``clip(Dec(z))``, ``(b, c, H, W)``."""
        return self.reconstruct(images).clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return ``Dec(Enc(images))`` as the decoder gives it, ``(b, c, H, W)``."""
        with self._codec.at_rest(), torch.no_grad():
            code, decode = self._codec.read(images)
            return decode(*code).clone()

    def shift(self, images: Tensor, *, severity: int, randomness: Randomness, network: Network) -> tuple[Tensor, ...]:
        """Return the shift r of each tensor of the code; arguments and errors as in a call."""
        levels = _LEVELS if self.levels is None else self.levels
        level = SeverityTable(levels, levels).value(severity, images=images)
        with self._codec.at_rest():
            code, decode = self._codec.read(images)
            directions = [unit_rows(randomness.normal(tuple(part.shape[1:])).to(part)) for part in code]
            if self.objective != "random":
                with torch.no_grad():
                    change = self._change(images, decode(*code), network)
                directions = self._power_iteration(directions, code, lambda *parts: change(decode(*parts)))
        return tuple(level * each for each in directions)

    @property
    def _codec(self) -> Codec:
        return Codec(self.encode, self.decode)

    def _power_iteration(
        self, directions: list[Tensor], code: list[Tensor], change: Callable[..., Tensor]
    ) -> list[Tensor]:
        def loss(*steps: Tensor) -> Tensor:
            return change(*[part + step for part, step in zip(code, steps, strict=True)])

        for _ in range(self.iterations):
            gradients = gradients_by([self.xi * each for each in directions], loss)
            directions = [unit_rows(new, otherwise=old) for new, old in zip(gradients, directions, strict=True)]
        return directions

    def _change(self, images: Tensor, reference: Tensor, network: Network) -> Callable[[Tensor], Tensor]:
        """Return what the search raises: a function of decoded images, one value each."""
        if self.objective == "cam":
            return _MapChange(reference, network)
        predicted = log_softmax(network.logits(images), dim=1)

        def divergence(decoded: Tensor) -> Tensor:
            disturbed = log_softmax(network.logits(decoded), dim=1)
            return kl_div(disturbed, predicted, log_target=True, reduction="none").sum(dim=1)

        return divergence


class _MapChange:
    """How far the map of an image, for the class predicted on its reference, is from the reference's own."""

    def __init__(self, reference: Tensor, network: Network) -> None:
        self._network = network
        self.classes = network.logits(reference).detach().argmax(dim=1)
        self._map = network.maps(reference.detach(), self.classes)

    def __call__(self, decoded: Tensor) -> Tensor:
        return self.of_maps(self._network.maps(decoded, self.classes))

    def of_maps(self, maps: Tensor) -> Tensor:
        return 1 - cosine_similarity(self._map.flatten(1), maps.flatten(1))


def _best_that_keeps_class(reference: Tensor, candidates: list[Tensor], network: Network) -> Tensor:
    change = _MapChange(reference, network)
    best, highest = reference, torch.full(reference.shape[:1], -torch.inf).to(reference)
    for candidate in candidates:
        logits, maps = network.logits_and_maps(candidate, change.classes)
        moved = change.of_maps(maps).to(highest)
        # A map that died is no ranking that moved.
        keeps = (logits.argmax(dim=1) == change.classes) & (maps.flatten(1).amax(dim=1) > 0)
        better = keeps & (moved > highest)
        highest = torch.where(better, moved, highest)
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
    return best


EXAMPLES = (LVAT(), LVAT(objective="cam"), LVAT(objective="random"))
