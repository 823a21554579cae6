"""Look at a network without leaving a trace on it."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ModelError


@contextmanager
def observe_only(model: nn.Module) -> Iterator[None]:
    """Run the block with ``model`` in eval mode and put everything back afterwards, also when the block raises.

    Put back are: the tree of submodules, their train/eval flags and hooks, each parameter's ``.grad`` and
    ``requires_grad``, buffers, the global random streams (Python, numpy, torch on CPU and accelerators), grad mode and
    inference mode. Parameters are not copied. Inside the block inference mode is off and gradients are on; ``.grad``
    of every parameter is None.

    Args:
        model: The network that is looked at.

    Yields:
        Nothing.

    Raises:
        ModelError: If the network is a TorchScript module, on which hooks do not run.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
        >>> with observe_only(net):
        ...     net[1].training, torch.is_grad_enabled()
        (False, True)
        >>> net[1].training
        True
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{type(model).__name__} is a TorchScript module; hooks on it do not run, so it cannot be explained. "
            "Use the network it was scripted or traced from."
        )
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_eager_when_compiled())
        for remember in (
            _random_streams,
            _parameter_state,
            _buffers,
            _training_flags,
            _hooks,
            _inference_tensors,
            _children,
        ):
            # One by one: what is set aside must already be sure to come back when the next one stumbles.
            stack.callback(remember(modules))
        for module in modules:
            # Not `model.eval()`: a user's override of `eval` or `train` might do more than set the flag. And not by the
            # `__setattr__` of modules, which looks in a dozen places first.
            object.__setattr__(module, "training", False)
        yield


@contextmanager
def _eager_when_compiled() -> Iterator[None]:
    """Let hooks fire on modules that were compiled earlier; costs nothing if dynamo is not loaded."""
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None or "torch._dynamo" not in sys.modules:
        yield
        return
    with stance("force_eager"):
        yield


def _training_flags(modules: list[nn.Module]) -> Callable[[], None]:
    flags = [(module, module.training) for module in modules]

    def restore() -> None:
        for module, flag in flags:
            object.__setattr__(module, "training", flag)

    return restore


def _children(modules: list[nn.Module]) -> Callable[[], None]:
    """Remember which module sits where; an explainer that swaps a layer may stumble before it swaps back."""
    kept = [(module, dict(module._modules)) for module in modules]

    def restore() -> None:
        for module, children in kept:
            if module._modules != children:
                module._modules.clear()
                module._modules.update(children)

    return restore


def _inference_tensors(modules: list[nn.Module]) -> Callable[[], None]:
    """Lend copies of tensors that a module kept from a forward in inference mode: autograd refuses the originals."""
    kept = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.is_inference()
    ]
    copies = [value.clone() for _, _, value in kept]
    for (module, name, _), copy in zip(kept, copies, strict=True):
        vars(module)[name] = copy

    def restore() -> None:
        for (module, name, value), copy in zip(kept, copies, strict=True):
            if vars(module).get(name) is copy:
                vars(module)[name] = value

    return restore


def _hooks(modules: list[nn.Module]) -> Callable[[], None]:
    kept = [
        (hooks, set(hooks))
        for module in modules
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]

    def restore() -> None:
        for hooks, before in kept:
            for key in set(hooks) - before:
                del hooks[key]

    return restore


def _parameter_state(modules: list[nn.Module]) -> Callable[[], None]:
    kept = [(parameter, parameter.grad, parameter.requires_grad) for parameter in _parameters(modules)]
    for parameter, _, _ in kept:
        # Set aside, not zeroed: accumulated gradients must survive whatever a third-party explainer does to `.grad`.
        parameter.grad = None

    def restore() -> None:
        for parameter, grad, requires_grad in kept:
            parameter.grad = grad
            if parameter.requires_grad is not requires_grad:
                parameter.requires_grad_(requires_grad)

    return restore


def _parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    found = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    return list(dict.fromkeys(found))


def _buffers(modules: list[nn.Module]) -> Callable[[], None]:
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    versions = [_version(buffer) for _, _, buffer, _ in kept]

    def restore() -> None:
        for (module, name, buffer, copy), version in zip(kept, versions, strict=True):
            if version is None or _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(copy)
            module._buffers[name] = buffer

    return restore


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else int(tensor._version)


def _random_streams(modules: list[nn.Module]) -> Callable[[], None]:
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = {p.device for p in _parameters(modules) if p.device.type in {"cuda", "mps", "xpu"}}
    on_device: list[tuple[Any, torch.device, Tensor]] = []
    for device in devices:
        backend = getattr(torch, device.type)
        state = backend.get_rng_state() if device.type == "mps" else backend.get_rng_state(device)
        on_device.append((backend, device, state))

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        for backend, device, state in on_device:
            if device.type == "mps":
                backend.set_rng_state(state)
            else:
                backend.set_rng_state(state, device)

    return restore
