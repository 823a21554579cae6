"""The mean map of noisy copies of an image, each map brought into [0, 1] first: what smoothing certifies."""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_camrobust.certify.smoothing_method import Smoothing
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.randomness import image_keys


def smoothed_maps(
    attribute: Callable[[Tensor, int], Tensor], images: Tensor, *, space: PixelSpace, settings: Smoothing
) -> Tensor:
    """Average the maps of noisy copies of each image.

    The noise N(0, sigma^2) of an image comes from a generator of its own, on its device, seeded by its content and the
    user's seed: neither the batch nor a global stream matters. Noisy pixels are cut to [0, 1]; that is part of the
    smoothed function and costs no guarantee, and so is reading a NaN in a map as 0.

    Args:
        attribute: Maps ``(n, h, w)`` of copies ``(n, c, H, W)`` in the model's input units, given the copies and the
            image's number in the batch. It must treat each copy for itself.
        images: ``(b, c, H, W)`` in the model's input units.
        space: How they relate to pixels.
        settings: Noise, samples and what becomes of each map.

    Returns:
        ``(b, h, w)`` float64 in [0, 1].

    Example:
        >>> settings = Smoothing(sigma=0.01, samples=8, keep=1.0, clip=0.25)
        >>> image = torch.tensor([[[[1.0, 0.5], [0.5, 0.0]]]])
        >>> found = smoothed_maps(lambda x, _: x[:, 0], image, space=PixelSpace((0.0,), (1.0,)), settings=settings)
        >>> found.shape, bool((found[0, 0, 1] - 0.5).abs() < 0.03)
        (torch.Size([1, 2, 2]), True)
    """
    pixels = space.to_pixels(images)
    keys = image_keys(pixels).tolist()
    return torch.stack(
        [_mean_map(attribute, images, pixels, row, keys[row], space, settings) for row in range(len(images))]
    )


def _mean_map(
    attribute: Callable[[Tensor, int], Tensor],
    images: Tensor,
    pixels: Tensor,
    row: int,
    key: list[int],
    space: PixelSpace,
    settings: Smoothing,
) -> Tensor:
    generator = torch.Generator(pixels.device).manual_seed(zlib.crc32(repr((settings.seed, key)).encode()))
    total: Tensor | None = None
    for start in range(0, settings.samples, settings.chunk):
        count = min(settings.chunk, settings.samples - start)
        # One by one, as how many numbers are drawn at once changes them.
        noise = torch.stack([_normal(pixels[row], generator) for _ in range(count)])
        noisy = (pixels[row] + settings.sigma * noise).clamp_(0, 1)
        copies = space.from_pixels(noisy, pixels=pixels[row, None], inputs=images[row, None])
        part = sparsify(attribute(copies, row), keep=settings.keep, clip=settings.clip).sum(dim=0)
        total = part if total is None else total + part
    assert total is not None
    return total / settings.samples


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def sparsify(maps: Tensor, *, keep: float, clip: float) -> Tensor:
    """Bring maps into [0, 1]: the top share ``clip`` becomes 1, the rest of the top share ``keep`` stays.

    Args:
        maps: ``(n, h, w)``; negative and NaN cells count as 0.
        keep: Share of cells kept, in (0, 1]; the others become 0.
        clip: Share of cells that become 1, in (0, keep].

    Returns:
        ``(n, h, w)`` float64: each kept cell divided by the lowest clipped one, at most 1.

    Source:
        Levine, Singla, Feizi 2019 (arXiv 1905.12105), relaxed sparsified SmoothGrad.

    Example:
        >>> sparsify(torch.tensor([[[8.0, 4.0, 2.0, 1.0]]]), keep=0.75, clip=0.5)
        tensor([[[1.0000, 1.0000, 0.5000, 0.0000]]], dtype=torch.float64)
    """
    cells = maps.double().flatten(1).nan_to_num(nan=0.0).clamp(min=0)
    ordered = cells.sort(dim=1, descending=True).values
    lowest_kept, lowest_clipped = (
        ordered[:, max(1, round(share * cells.shape[1])) - 1, None] for share in (keep, clip)
    )
    # With few positive cells the lowest clipped one is 0: then those above it are clipped, and 0 / 0 is 0.
    scaled = (cells / lowest_clipped).nan_to_num(nan=0.0, posinf=1.0).clamp(max=1)
    return torch.where(cells >= lowest_kept, scaled, 0.0).view(maps.shape)
