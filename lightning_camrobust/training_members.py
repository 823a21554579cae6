"""Which CAM methods and perturbations a training loss can be made of."""

from typing import NoReturn

import torch
from torch import Tensor, nn

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.layout import Layout
from lightning_camrobust.members import member_family, member_names, resolve_member
from lightning_camrobust.training_pass import derivative_only_trace
from lightning_camrobust.types import CAMMethod, Perturbation


def differentiable_method(method: str | CAMMethod) -> CAMMethod:
    """Find a CAM method and try on a few numbers whether its map can be differentiated by activation and gradient.

    Args:
        method: Name of a file in ``lightning_camrobust/cams/``, or an instance.

    Returns:
        The method.

    Raises:
        ArgumentError: If its map has no derivative, or it needs more than activation and gradient.
        UnknownNameError: If there is no such method.

    Example:
        >>> differentiable_method("layercam")
        LayerCAM()
    """
    member: CAMMethod = resolve_member("cams", method)
    reason = _reason_against(member)
    if reason is None:
        return member
    others = [name for name in member_names("cams") if _reason_against(resolve_member("cams", name)) is None]
    raise ArgumentError(
        f"CAMConsistencyLoss: `method` {member_family(member)!r} cannot be trained with: {reason}. "
        f"Use one whose map is a differentiable function of activation and gradient: {', '.join(map(repr, others))}."
    )


def image_noise(perturbation: str | Perturbation) -> tuple[Perturbation, str]:
    """Find a perturbation that makes noisy copies of which the map should stay where it is.

    Args:
        perturbation: Name of a file in ``lightning_camrobust/perturb/``, or an instance.

    Returns:
        The perturbation and its name.

    Raises:
        ArgumentError: If it looks at the network, disturbs no image, or moves the object.
        UnknownNameError: If there is none of that name.

    Example:
        >>> image_noise("fog")[1]
        'fog'
    """
    member: Perturbation = resolve_member("perturb", perturbation)
    family = member_family(member)
    reason = None
    if getattr(member, "needs_network", False):
        reason = "it looks at the network, which takes more than the one extra pass"
    elif hasattr(member, "disturb_trace") or hasattr(member, "reference"):
        reason = "it does not disturb the image alone"
    elif getattr(member, "geometric", False):
        reason = "it moves the object, and a good map moves along"
    if reason is None:
        return member, family
    raise ArgumentError(
        f"CAMConsistencyLoss: `perturbation` {family!r} cannot be trained with: {reason}. "
        "Use a disturbance of pixels in place, such as 'gaussian_noise', 'shot_noise', 'fog' or 'jpeg'."
    )


def _reason_against(method: CAMMethod) -> str | None:
    """Rehearse a method; the reason why it will not do, or None."""
    try:
        return _rehearse(method)
    except ArgumentError as error:
        return str(error)
    except Exception as error:
        # Whatever a foreign method stumbles over here, it would stumble over in the first training step.
        return f"{type(error).__name__} ({str(error).splitlines()[0] if str(error) else 'no message'})"


class _NoNetwork(nn.Module):
    def forward(self, _images: Tensor) -> NoReturn:
        raise ArgumentError("it runs the network again, of which a training step sees one pass only")


def _rehearse(method: CAMMethod) -> str | None:
    with torch.inference_mode(False), torch.enable_grad():
        # Eight channels are enough for all branches of methods that treat strong and weak ones differently.
        activation = torch.linspace(0.1, 2, 144).reshape(2, 8, 3, 3).cos().abs().requires_grad_()
        gradient = torch.linspace(-1, 7, 144).reshape(2, 8, 3, 3).sin().requires_grad_()
        maps: object = method(
            derivative_only_trace(
                images=torch.linspace(0, 1, 72).reshape(2, 1, 6, 6),
                logits=torch.tensor([[0.0, 1.0], [2.0, 1.0]]),
                classes=torch.tensor([1, 0]),
                activation=activation,
                gradient=gradient,
                model=_NoNetwork(),
                layer=nn.Identity(),
                layout=Layout(),
            )
        )
        if not isinstance(maps, Tensor) or maps.shape != (2, 3, 3):
            return "it does not return maps (b, h, w) of the target layer's size"
        if not maps.requires_grad:
            return "its map has no derivative by activation or gradient"
        slopes = torch.autograd.grad(maps.sum(), (activation, gradient), allow_unused=True)
    finite = all(each is None or bool(each.isfinite().all()) for each in slopes)
    return None if finite else "the derivative of its map is not finite"
