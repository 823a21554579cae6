"""Any other CAM of the pytorch-grad-cam package, by class name. The package is imported when first asked for."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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

        height, width = trace.activation.shape[2:]
        targets = [ClassifierOutputTarget(each) for each in trace.classes.tolist()]
        # A graph from the input on, so that a network with every parameter frozen can be explained as well.
        images = trace.images.detach().clone().requires_grad_()
        with self._class()(model=trace.model, target_layers=[trace.target_layer]) as cam:
            # Asks for maps at the layer's resolution; the class would upsample them to the image's.
            cam.get_target_width_height = lambda _images: (width, height)
            maps = cam(input_tensor=images, targets=targets)
        return torch.as_tensor(maps, device=trace.activation.device).to(trace.activation.dtype)

    def _class(self) -> Any:
        return _cam_classes()[self.class_name]


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
