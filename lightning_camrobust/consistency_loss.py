"""A training regulariser: keep looking at the same place where noise leaves the prediction as it is.

This changes training, on purpose. It shares no state with the callback, which only watches.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import layer_name, resolve_target_layer
from lightning_camrobust.perturbation import disturb
from lightning_camrobust.pixels import PixelSpace, make_pixel_space, recognise_pixel_space
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.running_statistics import BatchNormRule, check_batch_norm, keep_running_statistics
from lightning_camrobust.severity import check_severity
from lightning_camrobust.soft_agreement import Agreement, check_agreement, find_degenerate, mean_disagreement
from lightning_camrobust.training_members import differentiable_method, image_noise
from lightning_camrobust.training_pass import TrainingPass, pass_with_maps
from lightning_camrobust.types import CAMMethod, Perturbation

_COUNTER = "_extra_state"


class ConsistencyStep(NamedTuple):
    """What one call of :class:`CAMConsistencyLoss` found.

    Attributes:
        logits: Of the images as they came; for the usual loss. As the network gave them: ``(b, k)``, or ``(b, 1)`` or
            ``(b,)`` from a head with a single logit.
        disagreement: Scalar, 0 (maps agree) to 2 (they are opposite); what to add to the loss.
        noisy_logits: Of the noisy copies, same shape; for training on them as well, or not at all.
        agreement: Of each pair, ``(b,)`` detached; NaN for pairs that are not counted.
        same_class: Whether the prediction survived the noise, ``(b,)`` bool.
        degenerate: Whether one of the maps was flat, all zero or not finite, ``(b,)`` bool; such pairs never count.
    """

    logits: Tensor
    disagreement: Tensor
    noisy_logits: Tensor
    agreement: Tensor
    same_class: Tensor
    degenerate: Tensor


class CAMConsistencyLoss(nn.Module):
    """Mean disagreement of class activation maps between images and their noisy copies, differentiable twice.

    Call it in ``training_step`` in the place of the network. The training forward itself gives the clean maps; one
    more forward gives those of the noisy copies. ``loss.backward()`` then goes through the maps into the parameters.
    The module has no parameters. It changes training: it is no part of what the callback does, nor needed by it.

    Only pairs whose prediction survived the noise count: where it changes, the map should move. Maps that are flat or
    empty are left out as well. If nothing is left the disagreement is exactly 0. What is left out hands a gradient of
    exactly 0 to its map.

    Each training step draws other noise. The number of steps is kept in checkpoints (one small integer), so a resumed
    run draws what the unbroken one would have drawn. In eval mode, or where gradients are off, all calls draw the same
    noise, no step is counted, and with gradients off the results are detached: good for a validation curve.

    Args:
        method: CAM method, by name or ready-made; one that draws on activation and gradient only, such as
            ``"gradcam"``, ``"hirescam"``, ``"layercam"``, ``"xgradcam"``.
        perturbation: What disturbs the copies, by name or ready-made; nothing that looks at the network, such as an
            attack, or moves the object.
        severity: 1 (weak) to 5 (strong).
        target_layer: A module, its dotted name, or None for the last layer whose cells feed the prediction, which is
            found in the first call.
        agreement: ``"pearson"``, ``"cosine"`` or a function, see :mod:`lightning_camrobust.soft_agreement`.
        pairs: ``"same_class"``, or ``"all"`` to count pairs with a changed prediction as well.
        batch_norm: What noisy copies are normalised by in training: their own ``"batch"``, or ``"running"``
            statistics, as in a test; neither lets running statistics, or another buffer of the network, learn of noisy
            copies. ``"learn"`` treats the copies as data like any other, as augmentation does.
        mean: What Normalize subtracted, in pixel units [0, 1]; None recognises the range in the first call, which
            may come out differently after resuming, or in another process.
        std: What Normalize divided by.
        seed: Another seed draws other noise.

    Raises:
        ArgumentError: If an argument is unusable.

    Source:
        Our own; the idea that training may ask explanations to be stable is that of Pillai and Pirsiavash 2021 (AAAI)
        and others, the rule of which pairs count that of Sarkar et al. 2025 (arXiv 2508.18154).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        >>> agree, images, labels = CAMConsistencyLoss(), torch.rand(8, 1, 8, 8), torch.randint(3, (8,))
        >>> step = agree(net, images)
        >>> loss = nn.functional.cross_entropy(step.logits, labels) + 0.5 * step.disagreement
        >>> loss.backward()
        >>> step.logits.shape, step.disagreement.dim()
        (torch.Size([8, 3]), 0)
    """

    def __init__(
        self,
        method: str | CAMMethod = "gradcam",
        perturbation: str | Perturbation = "gaussian_noise",
        *,
        severity: int = 3,
        target_layer: nn.Module | str | None = None,
        agreement: Agreement = "pearson",
        pairs: Literal["same_class", "all"] = "same_class",
        batch_norm: BatchNormRule = "batch",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pairs not in ("same_class", "all"):
            raise ArgumentError(f"CAMConsistencyLoss: `pairs` must be 'same_class' or 'all', got {pairs!r}.")
        self.method = differentiable_method(method)
        self.perturbation, self.family = image_noise(perturbation)
        self.severity = check_severity(severity)
        self.agreement, self.pairs = check_agreement(agreement), pairs
        self.batch_norm = check_batch_norm(batch_norm)
        self.seed, self.steps = int(seed), 0
        self._space = make_pixel_space(mean, std)
        # In a tuple, since a module would become a child and its weights a second entry of the checkpoint.
        self._asked_layer = (target_layer,)
        self._found_layer: tuple[weakref.ref[nn.Module], str] | None = None

    def forward(
        self, model: nn.Module, images: Tensor, classes: Tensor | Callable[[Tensor], Tensor] | None = None
    ) -> ConsistencyStep:
        """Run images and noisy copies through the network and compare their maps.

        Args:
            model: The network that is trained, in the mode it should train in; it returns logits ``(b, k)``, or a
                dict or record with ``logits``.
            images: ``(b, c, H, W)`` float, in the model's input units.
            classes: ``(b,)`` integers, the class to explain on both copies, such as the labels; None explains the one
                predicted on the clean copy.

        Returns:
            Logits, disagreement and what they rest on.

        Raises:
            ArgumentError: If images or classes cannot be used.
            ModelError: If the network cannot be explained.
        """
        check_images(images)
        wants_gradients = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            # Autograd refuses tensors of inference mode, which is where `trainer.validate` runs.
            inputs = images.clone() if images.is_inference() else images
            noisy = self._disturbed(inputs, learning=wants_gradients and self.training)
            step = self._compare(model, inputs, noisy, classes)
            return step if wants_gradients else ConsistencyStep(*(each.detach() for each in step))

    def _compare(
        self, model: nn.Module, images: Tensor, noisy: Tensor, classes: Tensor | Callable[[Tensor], Tensor] | None
    ) -> ConsistencyStep:
        layer = self._layer(model, images)
        first = pass_with_maps(model, images, layer=layer, method=self.method, classes=classes)
        with keep_running_statistics(model, rule=self.batch_norm):
            second = pass_with_maps(model, noisy, layer=layer, method=self.method, classes=first.classes)
        same_class = first.logits.detach().argmax(dim=1) == second.logits.detach().argmax(dim=1)
        degenerate = find_degenerate(first.maps) | find_degenerate(second.maps)
        disagreement, agreement = self._disagreement(first, second, same_class=same_class, degenerate=degenerate)
        return ConsistencyStep(first.own_logits, disagreement, second.own_logits, agreement, same_class, degenerate)

    def _disagreement(
        self, first: TrainingPass, second: TrainingPass, *, same_class: Tensor, degenerate: Tensor
    ) -> tuple[Tensor, Tensor]:
        counted = ~degenerate if self.pairs == "all" else ~degenerate & same_class
        with torch.autocast(first.maps.device.type, enabled=False):
            return mean_disagreement(first.maps, second.maps, counted=counted, agreement=self.agreement)

    @torch.no_grad()
    def _disturbed(self, images: Tensor, *, learning: bool) -> Tensor:
        space = self._pixel_space(images)
        # The family is part of what is hashed: no step can draw the noise that the callback measures with.
        moment = f"training step {self.steps}" if learning else "evaluation"
        keys = image_keys(space.to_pixels(images))
        randomness = ImageRandomness(keys, self.seed, f"{self.family}, {moment}", self.severity)
        self.steps += learning
        return disturb(images.detach(), self.perturbation, randomness=randomness, space=space)

    def _pixel_space(self, images: Tensor) -> PixelSpace:
        if self._space is None:
            self._space = recognise_pixel_space(images)
        return self._space

    def _layer(self, model: nn.Module, images: Tensor) -> nn.Module:
        (asked,) = self._asked_layer
        if asked is not None:
            return resolve_target_layer(model, asked, images)
        if self._found_layer is None or self._found_layer[0]() is not model:
            with observe_only(model):
                found = resolve_target_layer(model, None, images.detach())
            # By name: a deep copy of network and loss must not point at the layer of the original.
            self._found_layer = weakref.ref(model), layer_name(model, found)
        return model.get_submodule(self._found_layer[1])

    def get_extra_state(self) -> Tensor:
        """Return the number of training steps for the checkpoint; a resumed run goes on with the noise."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Any) -> None:
        """Take the number of training steps from a checkpoint."""
        self.steps = int(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # A checkpoint of a run without the loss loads as well, strictly too; it says nothing of the number of steps.
        state_dict.setdefault(prefix + _COUNTER, self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *others)

    def __getstate__(self) -> dict[str, Any]:
        # The layer is found anew in a copy, which need not belong to the same network.
        return {**self.__dict__, "_found_layer": None}

    def extra_repr(self) -> str:
        """Show what is compared, in the printed network."""
        return f"method={self.method!r}, perturbation={self.perturbation!r}, severity={self.severity}"
