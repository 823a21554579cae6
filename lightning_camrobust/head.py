"""Run only what follows the target layer, for many changed activations of one image."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ModelError

_Strategy = Callable[[int, Tensor], Tensor]
# How far the logits of an unchanged copy may lie from the traced ones, relative to the largest logit. Only reductions
# in another order differ (1e-6 in float32); half precision needs more room.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


class HeadRunner:
    """Logits of one image for many changed activations, without running the backbone for each.

    Three ways are tried, cheapest first, and the first one whose unchanged copy gives back the traced logits is kept:

    1. one image enters the network, and at the target layer its output is swapped for all the changed activations;
    2. for networks that remember the batch size from before the layer: the image enters repeated, but each module
       finished before the layer hands out its recorded output;
    3. the repeated image runs through the whole network.

    Args:
        model: The network, in eval mode.
        layer: The target layer.
        images: ``(b, c, H, W)``, what was traced.
        logits: ``(b, k)``, what came out.
        activation: ``(b, channel, h, w)``, the layer's output, in its own dtype.
        runs: How often the layer runs in one forward; its last output is the one that is changed.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
        >>> images = torch.rand(2, 1, 8, 8)
        >>> activation = net[0](images).detach()
        >>> head = HeadRunner(net, net[0], images, net(images).detach(), activation)
        >>> head(0, torch.zeros(5, 4, 6, 6)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module, images: Tensor, logits: Tensor, activation: Tensor, *, runs: int = 1
    ) -> None:
        self._model, self._layer, self._images, self._runs = model, layer, images, runs
        self._logits, self._activation = logits, activation
        self._strategies: list[_Strategy] = [self._swap, self._replay, self._repeat]
        self._recorded: tuple[int, dict[nn.Module, list[Tensor]]] | None = None

    def __call__(self, index: int, activations: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            index: Which image of the batch.
            activations: ``(n, channel, h, w)``, changed outputs of the target layer for this image.

        Returns:
            ``(n, k)`` logits, without a graph.

        Raises:
            ModelError: If not even a full forward gives back the traced logits (a network that is random in eval mode).
        """
        # The unchanged copy rides along in front, so that the check costs one row and never a pass of its own.
        batch = torch.cat([self._activation[index : index + 1], activations.to(self._activation.dtype)])
        failure: Exception | None = None
        while self._strategies:
            try:
                with torch.no_grad():
                    logits = self._strategies[0](index, batch)
                if self._reproduces(index, logits, len(batch)):
                    return _two_columns(logits[1:])
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                failure = error
            self._strategies.pop(0)
        raise ModelError(
            f"{type(self._model).__name__}: running the part behind the target layer ({type(self._layer).__name__}) on "
            "an unchanged activation does not give back the model's own logits. The network is random in eval mode, or "
            "mixes the images of a batch; ablation needs neither. Use a gradient method such as 'gradcam'."
        ) from failure

    def _reproduces(self, index: int, logits: object, rows: int) -> bool:
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != rows:
            return False
        wanted, got = self._logits[index].double(), _two_columns(logits[:1])[0].double()
        if wanted.shape != got.shape:
            return False
        tolerance = _TOLERANCE.get(self._activation.dtype, 5e-2)
        # NaN logits (a diverged network) reproduce themselves; the maps are then counted as degenerate.
        return torch.allclose(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()), equal_nan=True) or bool(
            wanted.isnan().any()
        )

    def _swap(self, index: int, activations: Tensor) -> Tensor:
        with _last_output_replaced(self._layer, activations, runs=self._runs):
            return self._as_tensor(self._model(self._images[index : index + 1]))

    def _replay(self, index: int, activations: Tensor) -> Tensor:
        if self._recorded is None or self._recorded[0] != index:
            self._recorded = (index, _record_upstream(self._model, self._layer, self._images[index : index + 1]))
        count = len(activations)
        outputs = {
            module: [each.expand(count, *each.shape[1:]) for each in recorded]
            for module, recorded in self._recorded[1].items()
        }
        outputs[self._layer][-1] = activations
        with _forward_replaced(outputs):
            return self._as_tensor(self._model(self._copies(index, count)))

    def _repeat(self, index: int, activations: Tensor) -> Tensor:
        with _last_output_replaced(self._layer, activations, runs=self._runs):
            return self._as_tensor(self._model(self._copies(index, len(activations))))

    def _copies(self, index: int, count: int) -> Tensor:
        return self._images[index : index + 1].expand(count, *self._images.shape[1:])

    @staticmethod
    def _as_tensor(output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"expected a tensor of logits, got {type(output).__name__}")
        return output


def _two_columns(logits: Tensor) -> Tensor:
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


@contextmanager
def _last_output_replaced(layer: nn.Module, activations: Tensor, *, runs: int) -> Iterator[None]:
    countdown = iter(range(runs - 1, -1, -1))

    def swap(_module: nn.Module, _args: object, _output: object) -> Tensor | None:
        # A clone, since an in-place ReLU behind the layer would write into the caller's tensor.
        return activations.clone() if next(countdown, None) == 0 else None

    handle = layer.register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _forward_replaced(outputs: dict[nn.Module, list[Tensor]]) -> Iterator[None]:
    """Let modules hand out given outputs, one a run, instead of computing them."""
    before = [(module, module.__dict__.get("forward")) for module in outputs]
    try:
        for module, given in outputs.items():
            module.__dict__["forward"] = _giver(given)
        yield
    finally:
        for module, forward in before:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


def _giver(outputs: list[Tensor]) -> Callable[..., Tensor]:
    remaining = iter(outputs)
    # `clone`, because an expanded view cannot be written to in place.
    return lambda *_args, **_kwargs: next(remaining).clone()


def _record_upstream(model: nn.Module, layer: nn.Module, image: Tensor) -> dict[nn.Module, list[Tensor]]:
    """Outputs of the layer itself, and of the outermost modules that ran once and finished before its last run."""
    finished: list[tuple[nn.Module, object]] = []
    starts: Counter[nn.Module] = Counter()

    def count(module: nn.Module, _args: object) -> None:
        starts[module] += 1

    def keep(module: nn.Module, _args: object, output: object) -> None:
        finished.append((module, output.clone() if isinstance(output, Tensor) else output))

    handles = [m.register_forward_pre_hook(count) for m in model.modules()]
    handles += [m.register_forward_hook(keep) for m in model.modules()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return _outermost(finished, starts, layer)


def _outermost(
    finished: Sequence[tuple[nn.Module, object]], starts: Counter[nn.Module], layer: nn.Module
) -> dict[nn.Module, list[Tensor]]:
    upstream: dict[nn.Module, Tensor] = {}
    last_run = max(position for position, (module, _) in enumerate(finished) if module is layer)
    for module, output in finished[:last_run]:
        if starts[module] == 1 and isinstance(output, Tensor) and output.shape[:1] == (1,):
            upstream[module] = output
    inner = {child for module in upstream for child in module.modules() if child is not module}
    # Children of the layer itself finish before it; the layer's own output is replaced as a whole.
    inner |= set(layer.modules())
    outputs = {module: [output] for module, output in upstream.items() if module not in inner}
    # A run of the layer inside a replayed module does not happen again.
    hidden = any(layer is child for module in outputs for child in module.modules())
    own = [output for module, output in finished if module is layer and isinstance(output, Tensor)]
    return {**outputs, layer: own[-1:] if hidden else own}
