"""A classifier as an attack sees it: in pixels, and differentiable."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.ascent import HALF_PRECISION_SCALE, differentiate
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.layout import find_layout
from lightning_camrobust.logits import as_logits
from lightning_camrobust.pixels import PixelSpace


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier for the images of one batch; build it with :func:`network_in_pixels`.

    Attributes:
        model: The classifier, in eval mode.
        target_layer: The module whose output the maps are drawn on; its last run is explained.
        space: How inputs relate to pixels.
        inputs: The clean images, ``(b, c, H, W)``, in the model's input units.
        pixels: The same in [0, 1], float32 or float64.
        classes: The class that attacks start from, ``(b,)`` int64: the one predicted on the clean image.
        explained: The classes whose maps are looked at, ``(b,)`` int64: the same, unless another target was asked for.
        autocast: Device type, dtype and whether autocast was on when this was built; all passes run under it.
    """

    model: nn.Module
    target_layer: nn.Module
    space: PixelSpace
    inputs: Tensor
    pixels: Tensor
    classes: Tensor
    explained: Tensor
    autocast: tuple[str, torch.dtype, bool]

    def of_images(self, rows: slice) -> "Network":
        """Return the network for some of the images only."""
        parts = {name: getattr(self, name)[rows] for name in ("inputs", "pixels", "classes", "explained")}
        return dataclasses.replace(self, **parts)

    def logits(self, pixels: Tensor) -> Tensor:
        """Classify disturbed copies of the images.

        Args:
            pixels: ``(b, c, H, W)``, one copy of each image, as a rule in [0, 1].

        Returns:
            ``(b, k)``, k >= 2, float32 or float64, differentiable in ``pixels``.

        Raises:
            ArgumentError: If ``pixels`` has another shape than the images.
            ModelError: If the output is not logits.
        """
        with _parameters_frozen(self.model), torch.autocast(*self.autocast):
            if not (torch.is_grad_enabled() and pixels.requires_grad):
                return self._run(pixels)
            entering = pixels * 1
            return _scaled_within(self._run(entering), entering)

    def maps(self, pixels: Tensor, classes: Tensor, *, relu: bool = True) -> Tensor:
        """Draw Grad-CAM maps of disturbed copies of the images.

        Args:
            pixels: As in :meth:`logits`.
            classes: The class to explain in each image, ``(b,)`` int64.
            relu: Whether negative cells are cut to zero.

        Returns:
            ``(b, h, w)``, not normalised, differentiable in ``pixels`` (through the gradient as well).

        Raises:
            ArgumentError: If ``pixels`` has another shape than the images.
            ModelError: If the target layer's output has no cells, or no gradient gets from the logits back to it.
        """
        return self.logits_and_maps(pixels, classes, relu=relu)[1]

    def logits_and_maps(self, pixels: Tensor, classes: Tensor, *, relu: bool = True) -> tuple[Tensor, Tensor]:
        """Do what :meth:`logits` and :meth:`maps` do, in one pass."""
        differentiable = torch.is_grad_enabled() and pixels.requires_grad
        with ExitStack() as stack:
            stack.enter_context(_parameters_frozen(self.model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(*self.autocast))
            if differentiable:
                stack.enter_context(_attention_of_two_derivatives())
            outputs = stack.enter_context(_outputs_kept(self.target_layer))
            logits = self._run(pixels if differentiable else pixels.detach())
            activation, gradient = self._explained(logits, classes, outputs, keep_graph=differentiable)
        with torch.set_grad_enabled(differentiable), torch.autocast(self.autocast[0], enabled=False):
            weights = gradient.mean(dim=tuple(range(2, gradient.dim())), keepdim=True)
            maps = (weights * activation).sum(dim=1)
            maps = maps.relu() if relu else maps
        return (logits, maps) if differentiable else (logits.detach(), maps)

    def _run(self, pixels: Tensor) -> Tensor:
        if pixels.shape != self.pixels.shape:
            raise ArgumentError(
                f"`pixels` must hold one copy of each image, {tuple(self.pixels.shape)}, got {tuple(pixels.shape)}. "
                "Take the network for a part of the batch with network.of_images(rows)."
            )
        # In pixels of the images' own type the change would be rounded before it reaches the network.
        inputs = self.space.from_pixels(pixels.to(self.pixels.dtype), pixels=self.pixels, inputs=self.inputs)
        return _at_least_float32(as_logits(self.model(inputs), batch_size=len(inputs)))

    def _explained(
        self, logits: Tensor, classes: Tensor, outputs: list[Tensor], *, keep_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the last activation of the target layer and its gradient, as maps ``(b, c, h, w)``."""
        activation = outputs[-1] if outputs else None
        layout = None if activation is None else find_layout(activation, self.inputs)
        if activation is None or layout is None:
            raise ModelError(
                f"The target layer ({type(self.target_layer).__name__}) did not run, or its output has no cells. "
                "Name a layer before pooling and flattening with `target_layer=`."
            )
        score = logits.gather(1, classes[:, None]).sum() * HALF_PRECISION_SCALE
        gradient = differentiate(score, [activation], keep_graph=keep_graph)[0] / HALF_PRECISION_SCALE
        activation = activation if keep_graph else activation.detach()
        return layout.to_map(_at_least_float32(activation)), layout.to_map(gradient)


def network_in_pixels(
    model: nn.Module,
    inputs: Tensor,
    *,
    target_layer: nn.Module,
    space: PixelSpace,
    classes: Tensor,
    explained: Tensor | None = None,
) -> Network:
    """Show a classifier to attacks.

    Args:
        model: The classifier, in eval mode.
        inputs: The clean images ``(b, c, H, W)``, in the model's input units. A disturbed copy is carried over to them
            as a change, so that a disturbance of strength zero gives these very inputs to the last bit.
        target_layer: The module to draw maps on.
        space: How inputs relate to pixels.
        classes: The class predicted on each clean image, ``(b,)`` int64.
        explained: The class whose map is looked at, ``(b,)`` int64; None takes the predicted one.

    Returns:
        The network in pixel space. Its parameters get no gradients and count as constants in every graph.

    Raises:
        ArgumentError: If ``classes`` does not hold one class an image.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)).eval()
        >>> images, space, classes = torch.rand(2, 1, 8, 8), PixelSpace((0.5,), (0.25,)), torch.tensor([0, 2])
        >>> network = network_in_pixels(net, images, target_layer=net[0], space=space, classes=classes)
        >>> pixels = network.pixels.clone().requires_grad_()
        >>> torch.autograd.grad(network.maps(pixels, network.classes).sum(), pixels)[0].shape
        torch.Size([2, 1, 8, 8])
        >>> torch.equal(network.logits(network.pixels), net(images))
        True
    """
    if classes.shape != inputs.shape[:1]:
        raise ArgumentError(
            f"`classes` must be ({len(inputs)},) integers, one class an image, got shape {tuple(classes.shape)}. "
            "Pass the classes predicted on the clean images."
        )
    device = inputs.device.type
    autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    inputs, classes = inputs.detach(), classes.to(inputs.device, torch.int64)
    explained = classes if explained is None else explained.to(inputs.device, torch.int64)
    return Network(model, target_layer, space, inputs, space.to_pixels(inputs), classes, explained, autocast)


def _scaled_within(logits: Tensor, entering: Tensor) -> Tensor:
    """Let each image's gradient be of a fair size inside the network, and of its own size at the pixels.

    A sure network has logits with gradients of 1e-9 and less, which a network in half precision would round to zero.
    """
    if not logits.requires_grad:
        # Nothing gets back; whoever differentiates will say so.
        return logits
    size: list[Tensor] = []

    def scale(gradient: Tensor) -> Tensor:
        largest = gradient.abs().amax(dim=1)
        size[:] = [torch.where(largest > 0, largest, 1) / HALF_PRECISION_SCALE]
        return gradient / size[0][:, None]

    logits = logits * 1
    logits.register_hook(scale)  # type: ignore[no-untyped-call]

    def back(gradient: Tensor) -> Tensor:
        return gradient * size[0].to(gradient).view(-1, *[1] * (gradient.dim() - 1))

    entering.register_hook(back)  # type: ignore[no-untyped-call]
    return logits


@contextmanager
def _parameters_frozen(model: nn.Module) -> Iterator[None]:
    """Let parameters count as constants: the graph then holds nothing that only their gradients would need."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _outputs_kept(layer: nn.Module) -> Iterator[list[Tensor]]:
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        with torch.enable_grad():
            outputs.append(output if output.requires_grad else output.detach().clone().requires_grad_())
            # What follows gets a copy, since an in-place ReLU would write over the activation.
            return outputs[-1].clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _attention_of_two_derivatives() -> Iterator[None]:
    """Let attention run as plain matrix products: its fused kernels have no second derivative."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # torch 2.2
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()
