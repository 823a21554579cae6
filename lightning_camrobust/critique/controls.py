"""Maps that know nothing of the network, to hold explanations against: random order, and edges of the picture."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_camrobust.randomness import ImageRandomness, image_keys


def random_maps(pixels: Tensor, *, seed: int = 0) -> Tensor:
    """Draw a map for each image that removes its pixels in random order.

    Equal images get equal maps, so copies of an image in the data count once only when chance is judged.

    Args:
        pixels: ``(b, c, H, W)`` in [0, 1].
        seed: Another seed draws another order.

    Returns:
        ``(b, H, W)`` float32 in (0, 1); it depends on the image and the seed only.

    Example:
        >>> random_maps(torch.rand(2, 3, 4, 5)).shape
        torch.Size([2, 4, 5])
    """
    return ImageRandomness(image_keys(pixels), seed, "random order", 1).uniform(tuple(pixels.shape[2:]))


def edge_maps(pixels: Tensor) -> Tensor:
    """Measure the edges of each picture: the magnitude of its Sobel gradient.

    Args:
        pixels: ``(b, c, H, W)``; the mean over channels is looked at, edge pixels repeated beyond the edge.

    Returns:
        ``(b, H, W)`` in the dtype of ``pixels``, at least 0.

    Source:
        Adebayo et al. 2018 (arXiv 1810.03292): an edge detector passes for an explanation.

    Example:
        >>> edge_maps(torch.tensor([[[[0.0, 1.0, 1.0]] * 3]]))[0, 1]
        tensor([4., 4., 0.])
    """
    wide = pad(pixels.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    down = _smooth(wide[:, 2:] - wide[:, :-2], axis=2)
    right = _smooth(wide[:, :, 2:] - wide[:, :, :-2], axis=1)
    return torch.hypot(down, right)


def _smooth(rows: Tensor, *, axis: int) -> Tensor:
    size = rows.shape[axis] - 2
    return rows.narrow(axis, 0, size) + 2 * rows.narrow(axis, 1, size) + rows.narrow(axis, 2, size)
