"""Any other CAM of the pytorch-grad-cam package, by class name. The package is imported when first asked for."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError, UnknownNameError, nearest_names
from lightning_camrobust.types import Trace


@dataclass(frozen=True)
class PytorchGradCAM:
    """Adapter to a class of pytorch-grad-cam; slow (its own forward and full backward per image), but the reference.

    The result is that package's own: scaled to [0, 1] per image, at the target layer's resolution.

    Attributes:
        class_name: For example ``"ScoreCAM"``.

    Source:
        Gildenblat and contributors, https://github.com/jacobgil/pytorch-grad-cam.

    Example:
        >>> PytorchGradCAM("ScoreCAM").name
        'pytorch_grad_cam:ScoreCAM'
    """

    class_name: str

    @property
    def name(self) -> str:
        """The name under which this member is asked for and reported."""
        return f"pytorch_grad_cam:{self.class_name}"

    def __call__(self, trace: Trace) -> Tensor:
        """Return maps ``(b, h, w)`` in [0, 1]."""
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        if trace.activation.dim() != 4:
            raise ArgumentError(f"CAM method {self.name!r} explains pictures only, not volumes. Use a native method.")
        height, width = trace.activation.shape[2:]
        targets = [ClassifierOutputTarget(each) for each in trace.classes.tolist()]
        # A graph from the input on, so that a network with every parameter frozen can be explained as well.
        images = trace.images.detach().clone().requires_grad_()
        # Their classes take `None` for an output that is a map already.
        reshape = None if trace.layout.is_map else trace.layout.to_map
        with (
            _last_run(trace, self.name) as layer,
            self._class()(model=trace.model, target_layers=[layer], reshape_transform=reshape) as cam,
        ):
            # Asks for maps at the layer's resolution; the class would upsample them to the image's.
            cam.get_target_width_height = lambda _images: (width, height)
            maps = cam(input_tensor=images, targets=targets)
        return torch.as_tensor(maps, device=trace.activation.device).to(trace.activation.dtype)

    def _class(self) -> Any:
        return _cam_classes()[self.class_name]


@contextmanager
def _last_run(trace: Trace, name: str) -> Iterator[nn.Module]:
    """Give a module that runs exactly once; pytorch-grad-cam would explain the first run of a shared layer."""
    if trace.runs == 1:
        yield trace.target_layer
        return
    if name.endswith("AblationCAM"):
        raise ArgumentError(
            f"CAM method {name!r} cannot explain a layer that runs {trace.runs} times in one forward. "
            "Name a layer that runs once with `target_layer=`, or use the native 'ablationcam'."
        )
    relay = nn.Identity()
    state = {"run": 0}

    def pass_on(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        state["run"] += 1
        return cast("Tensor", relay(output)) if state["run"] % trace.runs == 0 else output

    handle = trace.target_layer.register_forward_hook(pass_on)
    try:
        yield relay
    finally:
        handle.remove()


def from_name(class_name: str) -> PytorchGradCAM:
    """Build the adapter for a class, checking that the class exists.

    Args:
        class_name: For example ``"ScoreCAM"``.

    Returns:
        The member.

    Raises:
        UnknownNameError: If pytorch-grad-cam has no such CAM class.
        ArgumentError: If the package cannot be imported.
    """
    classes = _cam_classes()
    if class_name not in classes:
        raise UnknownNameError(
            f"CAM method: pytorch_grad_cam has no CAM class {class_name!r}. "
            f"Nearest: {nearest_names(class_name, classes)}."
        )
    return PytorchGradCAM(class_name)


def _cam_classes() -> dict[str, Any]:
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.base_cam import BaseCAM
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(
            f"CAM method: pytorch-grad-cam cannot be imported ({error}). Install matching `grad-cam`, `torch` and "
            "`torchvision`, or use a native method such as 'gradcam'."
        ) from error
    return {
        name: each
        for name, each in vars(pytorch_grad_cam).items()
        if inspect.isclass(each) and issubclass(each, BaseCAM)
    }
