"""How far images may be disturbed while the top cells of their class activation maps provably stay."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_camrobust.certify.attack import TopKAttack
from lightning_camrobust.certify.crown import LinearBounds
from lightning_camrobust.certify.graph import read_network
from lightning_camrobust.certify.interval import IntervalBounds
from lightning_camrobust.certify.noisy_maps import smoothed_maps
from lightning_camrobust.certify.record import Certificate, Method
from lightning_camrobust.certify.smoothing_method import Smoothing
from lightning_camrobust.certify.topk import top_count
from lightning_camrobust.errors import ArgumentError, nearest_names
from lightning_camrobust.images import check_images
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import resolve_target_layer
from lightning_camrobust.logits import as_logits, explained_classes
from lightning_camrobust.members import resolve_member
from lightning_camrobust.pixels import PixelSpace, make_pixel_space, recognise_pixel_space
from lightning_camrobust.trace import trace

# Normalising and back costs some units in the last place.
_PIXEL_TOLERANCE = 1e-6

_METHODS: dict[str, Method] = {
    "smoothing": Smoothing(),
    "interval": IntervalBounds(),
    "crown": LinearBounds(),
    "pairwise": LinearBounds(pairwise=True),
}


def certify_topk(
    model: nn.Module,
    images: Tensor,
    *,
    k: int | None = None,
    share: float | None = None,
    within: int | None = None,
    method: str | Method = "interval",
    attack: TopKAttack | None = None,
    classes: Tensor | None = None,
    mean: float | tuple[float, ...] | None = None,
    std: float | tuple[float, ...] | None = None,
) -> Certificate:
    """Certify for each image a radius inside which the set of the k top cells of its CAM cannot change.

    Bounds (``"interval"``, ``"crown"``, ``"pairwise"``) speak of the vanilla CAM of a fixed class, sum_c W_yc A_c at
    the last map's own resolution, of a network that ends in global average pooling and one linear layer; for every
    image within an L-infinity radius whose pixels stay in [0, 1]. Smoothing speaks of the smoothed map of any CAM
    method on any network, in the L2 norm, with a probability. The network is left as it was found.

    Not covered: whether the predicted class stays, the order inside the set, enlarging the map, normalising it, cutting
    off what is negative. Bounds are computed in float64 for the network as written down; an allowance keeps ties that
    rounding could decide from being certified, but rounding inside a float32 network is not itself bounded.

    Args:
        model: A classifier mapping ``(b, c, H, W)`` to logits ``(b, k)``, run in eval mode whatever mode it is in.
        images: ``(b, c, H, W)`` float, in the model's input units, on the model's device.
        k: Number of top cells; or pass ``share``.
        share: Share of all cells, in (0, 1).
        within: Bounds only: certify that the top k cells stay among this many, k..cells; None for k.
        method: ``"interval"`` (milliseconds an image), ``"crown"`` or ``"pairwise"`` (seconds an image, larger radii),
            ``"smoothing"`` (as many passes as samples), or an instance with other settings.
        attack: Bounds only: an attack that gives an upper bound of the radius next to it.
        classes: ``(b,)`` int64; None for the predicted ones. Images whose prediction differs are not covered.
        mean: What was subtracted to normalise images, in pixel units, one value or one a channel.
        std: What was divided by. Without both, images must lie in [0, 1] or [0, 255].

    Returns:
        The certificate.

    Raises:
        ArgumentError: If an argument is unusable.
        UnsupportedLayerError: If bounds are asked for and a layer cannot be bounded; it is named.
        ModelError: If the network cannot be read or explained.

    Source:
        Gu et al. 2020 (CORGI, arXiv 2301.11324); Levine, Singla, Feizi 2019 (arXiv 1905.12105).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> certificate = certify_topk(net, torch.rand(3, 1, 8, 8), share=0.2)
        >>> certificate.radius.shape, certificate.k, bool((certificate.radius >= 0).all())
        (torch.Size([3]), 7, True)
    """
    chosen = _method(method)
    check_images(images)
    if isinstance(chosen, Smoothing) and (within is not None or attack is not None):
        raise ArgumentError("`within` and `attack` belong to bounds; leave both None for method='smoothing'.")
    given = make_pixel_space(mean, std)
    space = _known_space(images) if given is None else given
    space.to_pixels(images[:1])
    _check_range(images, space)
    with observe_only(model), torch.autocast(images.device.type, enabled=False):
        inputs = images.detach().clone()
        with torch.no_grad():
            logits = as_logits(model(inputs.clone()), batch_size=len(inputs))
        explained = explained_classes(classes, logits)
        asked = _Asked(inputs, space, explained, logits.argmax(dim=1) == explained, k, share)
        if isinstance(chosen, Smoothing):
            return _by_smoothing(model, asked, chosen)
        return _by_bounds(model, asked, chosen, within=within, attack=attack)


def _known_space(images: Tensor) -> PixelSpace:
    low, high = float(images.min()), float(images.max())
    if low < 0 or (high > 1 and not 16 < high <= 255):
        raise ArgumentError(
            f"`mean` and `std` must be given for normalised images, got values {low:.3g}..{high:.3g}. A certificate "
            "speaks of pixels in [0, 1], whose range cannot be estimated from a batch: pass the constants of Normalize."
        )
    return recognise_pixel_space(images)


def _check_range(images: Tensor, space: PixelSpace) -> None:
    # Written out, as `to_pixels` cuts off what lies outside. Float32 is exact enough to judge by on any device.
    mean, std = (images.new_tensor(each, dtype=torch.float32).view(1, -1, 1, 1) for each in (space.mean, space.std))
    pixels = images.float() * std + mean
    low, high = float(pixels.min()), float(pixels.max())
    allowed = max(_PIXEL_TOLERANCE, 4 * torch.finfo(images.dtype).eps)
    if low < -allowed or high > 1 + allowed:
        raise ArgumentError(
            f"`images` must have pixels in [0, 1], got {low:.3g}..{high:.3g} with mean={space.mean} and "
            f"std={space.std}. Likely causes: wrong `mean` and `std`, or images that were not normalised."
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    inputs: Tensor
    space: PixelSpace
    classes: Tensor
    covered: Tensor
    k: int | None
    share: float | None


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if method not in _METHODS:
        raise ArgumentError(
            f"`method` must be one of {tuple(_METHODS)} or an instance with other settings, got {method!r}. "
            f"Nearest: {nearest_names(str(method), _METHODS)}."
        )
    return _METHODS[method]


def _by_bounds(
    model: nn.Module,
    asked: _Asked,
    method: IntervalBounds | LinearBounds,
    *,
    within: int | None,
    attack: TopKAttack | None,
) -> Certificate:
    network = read_network(model, asked.inputs, space=asked.space)
    pixels = asked.space.to_pixels(asked.inputs.to(network.weight))
    cells = network.count_cells(pixels[:1])
    pixels, classes = pixels[asked.covered], asked.classes[asked.covered]
    k = top_count(asked.k, asked.share, cells)
    within = k if within is None else within
    if not isinstance(within, int) or not k <= within <= cells:
        raise ArgumentError(f"`within` must be a whole number in k..{cells}, with k={k}; got {within!r}.")
    found = method.radius(network, pixels, classes, k=k, within=within)
    broken = None if attack is None else _spread(attack.radius(network, pixels, classes, k=k, within=within), asked)
    return Certificate(_spread(found, asked), broken, asked.classes, asked.covered, k, within, method)


def _by_smoothing(model: nn.Module, asked: _Asked, method: Smoothing) -> Certificate:
    layer = resolve_target_layer(model, method.target_layer, asked.inputs.clone())
    member = resolve_member("cams", method.cam)

    def attribute(copies: Tensor, row: int) -> Tensor:
        classes = asked.classes[row].expand(len(copies))
        found: Tensor = member(trace(model, copies, target_layer=layer, classes=classes, space=asked.space))
        return found

    maps = smoothed_maps(attribute, asked.inputs, space=asked.space, settings=method)
    k = top_count(asked.k, asked.share, maps[0].numel())
    radius = method.radii(maps.flatten(1), k=k).masked_fill(~asked.covered, float("nan"))
    return Certificate(radius, None, asked.classes, asked.covered, k, k, method, maps)


def _spread(values: Tensor, asked: _Asked) -> Tensor:
    """Put values of the covered images in their places, NaN elsewhere."""
    everywhere = torch.full(asked.covered.shape, float("nan"), dtype=torch.float64, device=values.device)
    return everywhere.masked_scatter(asked.covered, values.double())
