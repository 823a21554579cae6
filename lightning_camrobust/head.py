"""Run only what follows the target layer, for many changed activations of one image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ModelError
from lightning_camrobust.layout import Layout
from lightning_camrobust.logits import as_logits
from lightning_camrobust.replay import Recording, record, replayed

_Strategy = Callable[["HeadRunner", int, Tensor], Tensor]
# How far the logits of an unchanged copy may lie from the traced ones, relative to the largest logit. Only reductions
# in another order differ (1e-6 in float32); half precision needs more room.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


class HeadRunner:
    """Logits of one image for many changed activations, without running the backbone for each.

    Four ways are tried, cheapest first, and the first one whose unchanged copy gives back the traced logits is kept:

    1. one image enters the network, each module finished before the layer hands out its recorded output, and the layer
       hands out all the changed activations;
    2. the same, but what comes before the layer runs again;
    3. for networks that remember the batch size from before the layer: the image enters repeated, and modules hand out
       their recorded outputs (as a view, or as a copy where that is written into);
    4. the repeated image runs through the whole network.

    Args:
        model: The network, in eval mode.
        layer: The target layer.
        images: ``(b, c, H, W)``, what was traced.
        logits: ``(b, k)``, what came out.
        activation: The layer's output, in its own dtype and layout.
        layout: Where the cells of a map sit in it.
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
        self,
        model: nn.Module,
        layer: nn.Module,
        images: Tensor,
        logits: Tensor,
        activation: Tensor,
        *,
        layout: Layout | None = None,
        runs: int = 1,
    ) -> None:
        self._model, self._layer, self._images, self._runs = model, layer, images, runs
        self._logits, self._activation, self._layout = logits, activation, layout or Layout()
        # Plain functions: bound methods would make a cycle that keeps activations alive until the collector comes.
        kind = type(self)
        self._strategies: list[_Strategy] = [
            kind._replay_one, kind._swap, kind._replay, kind._replay_copies, kind._repeat,
        ]  # fmt: skip
        self._recorded: tuple[int, Recording] | None = None
        device = images.device.type
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

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
        unchanged = self._activation[index : index + 1]
        changed = self._layout.from_map(activations.to(unchanged.dtype), like=unchanged)
        batch = torch.cat([unchanged, changed])
        failure: Exception | None = None
        while self._strategies:
            try:
                with torch.no_grad(), torch.autocast(*self._autocast):
                    logits = self._strategies[0](self, index, batch)
                if self._reproduces(index, logits, len(batch)):
                    return logits[1:]
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError) as error:
                failure = error
            self._strategies.pop(0)
        raise ModelError(
            f"{type(self._model).__name__}: running the part behind the target layer ({type(self._layer).__name__}) on "
            "an unchanged activation does not give back the model's own logits. The network is random in eval mode, or "
            "mixes the images of a batch; ablation needs neither. Use a gradient method such as 'gradcam'."
        ) from failure

    def _reproduces(self, index: int, logits: Tensor, rows: int) -> bool:
        if len(logits) != rows:
            return False
        wanted, got = self._logits[index].double(), logits[0].double()
        tolerance = _TOLERANCE.get(self._activation.dtype, 5e-2)
        if bool(wanted.isnan().any()):
            # NaN logits (a diverged network) reproduce themselves; the maps are then counted as degenerate.
            return True
        return torch.allclose(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))

    def _replay_one(self, index: int, activations: Tensor) -> Tensor:
        with replayed(self._recording(index), activations, rows=1, writable=True):
            return as_logits(self._model(self._images[index : index + 1]), batch_size=len(activations))

    def _swap(self, index: int, activations: Tensor) -> Tensor:
        with _last_output_replaced(self._layer, activations, runs=self._runs):
            return as_logits(self._model(self._images[index : index + 1]), batch_size=len(activations))

    def _replay(self, index: int, activations: Tensor) -> Tensor:
        return self._replayed(index, activations, writable=False)

    def _replay_copies(self, index: int, activations: Tensor) -> Tensor:
        return self._replayed(index, activations, writable=True)

    def _replayed(self, index: int, activations: Tensor, *, writable: bool) -> Tensor:
        with replayed(self._recording(index), activations, rows=len(activations), writable=writable):
            return as_logits(self._model(self._copies(index, len(activations))), batch_size=len(activations))

    def _recording(self, index: int) -> Recording:
        if self._recorded is None or self._recorded[0] != index:
            self._recorded = (index, record(self._model, self._layer, self._images[index : index + 1]))
        return self._recorded[1]

    def _repeat(self, index: int, activations: Tensor) -> Tensor:
        with _last_output_replaced(self._layer, activations, runs=self._runs):
            return as_logits(self._model(self._copies(index, len(activations))), batch_size=len(activations))

    def _copies(self, index: int, count: int) -> Tensor:
        return self._images[index : index + 1].expand(count, *self._images.shape[1:])


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
