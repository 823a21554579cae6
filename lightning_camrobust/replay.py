"""Record the calls of a forward pass, and run the pass again with all that happened before a layer handed out ready."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class _Call:
    module: nn.Module
    parent: "_Call | None"
    output: Tensor | None = None
    finished: int | None = None


@dataclass(frozen=True)
class Recording:
    """What the modules of a network gave out before the last run of a layer, for one image.

    Attributes:
        outputs: For each module the outputs ``(1, ...)`` of its runs, in order, leaving out runs inside another module
            of the recording. None stands for a run that gave no single tensor and has to happen again.
        layer: The layer; its own last run is not among its outputs.
    """

    outputs: dict[nn.Module, list[Tensor | None]]
    layer: nn.Module


def record(model: nn.Module, layer: nn.Module, image: Tensor) -> Recording:
    """Run one image and note what happens before the last run of a layer.

    Args:
        model: The network, in eval mode.
        layer: A module of it.
        image: ``(1, c, H, W)``.

    Returns:
        The recording.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> import torch
        >>> list(record(net, net[1], torch.rand(1, 1, 4, 4)).outputs)
        [Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1)), ReLU()]
    """
    calls: list[_Call] = []
    running: list[_Call] = []
    finished: list[_Call] = []

    def begin(module: nn.Module, _args: object) -> None:
        calls.append(_Call(module, running[-1] if running else None))
        running.append(calls[-1])

    def end(_module: nn.Module, _args: object, output: object) -> None:
        call = running.pop()
        call.finished = len(finished)
        finished.append(call)
        if isinstance(output, Tensor) and output.shape[:1] == (1,):
            # Someone may write into it in place later in this very pass.
            call.output = output.clone()

    handles = [module.register_forward_pre_hook(begin) for module in model.modules()]
    handles += [module.register_forward_hook(end) for module in model.modules()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return _before_last_run(calls, layer)


@contextmanager
def replayed(recording: Recording, activations: Tensor, *, rows: int, writable: bool) -> Iterator[None]:
    """Let modules hand out their recorded outputs, and the layer the given activations, instead of computing them.

    Args:
        recording: From :func:`record`.
        activations: ``(n, ...)``, what the layer's last run gives out.
        rows: How often recorded outputs are repeated: as often as the image in the batch that is going to enter.
        writable: Whether recorded outputs are copied, for networks that write into them in place. Without, they are
            views that take no memory.

    Yields:
        Nothing.
    """
    before = [(module, module.__dict__.get("forward")) for module in recording.outputs]
    try:
        for module, outputs in recording.outputs.items():
            ready = [None if each is None else each.expand(rows, *each.shape[1:]) for each in outputs]
            if writable:
                ready = [None if each is None else each.clone() for each in ready]
            if module is recording.layer:
                ready.append(activations.clone())
            module.__dict__["forward"] = _hand_out(ready, module.forward)
        yield
    finally:
        for module, forward in before:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


def _before_last_run(calls: list[_Call], layer: nn.Module) -> Recording:
    last = [call for call in calls if call.module is layer][-1]

    def done_before(call: _Call) -> bool:
        return call.finished is not None and last.finished is not None and call.finished < last.finished

    outputs: dict[nn.Module, list[Tensor | None]] = {}
    for call in calls:
        hidden = any(done_before(outer) and outer.output is not None for outer in _outer_calls(call))
        inside_layer = any(outer is last for outer in _outer_calls(call))
        if done_before(call) and not hidden and not inside_layer:
            outputs.setdefault(call.module, []).append(call.output)
    outputs.setdefault(layer, [])
    return Recording(outputs, layer)


def _outer_calls(call: _Call) -> Iterator[_Call]:
    outer = call.parent
    while outer is not None:
        yield outer
        outer = outer.parent


def _hand_out(ready: list[Tensor | None], compute: Callable[..., Any]) -> Callable[..., Any]:
    remaining = iter(ready)

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = next(remaining, None)
        return compute(*args, **kwargs) if output is None else output

    return forward
