"""Other ways than the mean to let one number stand for a segment; none of them is a matrix, so maps are enlarged."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def segment_sums(means: Tensor, labels: Tensor) -> Tensor:
    """Turn means into sums, in units of the image's mean segment size.

    Args:
        means: ``(b, ..., s)`` float64.
        labels: ``(b, H, W)`` int64, 0..m-1 in each image.

    Returns:
        float64 of the shape of ``means``. Divided by one number an image, so that rank scores keep their scale.

    Example:
        >>> segment_sums(torch.ones(1, 2).double(), torch.tensor([[[0, 0, 0, 1]]]))
        tensor([[1.5000, 0.5000]], dtype=torch.float64)
    """
    sizes = torch.stack([torch.bincount(each.flatten(), minlength=means.shape[-1]) for each in labels]).double()
    sizes = sizes / (sizes.sum(dim=1, keepdim=True) / (sizes > 0).sum(dim=1, keepdim=True))
    return means * sizes.reshape(len(means), *[1] * (means.dim() - 2), -1)


def segment_maxima(maps: Tensor, labels: Tensor, *, count: int) -> Tensor:
    """Find the largest value of each enlarged map inside each segment.

    Args:
        maps: ``(b, ..., h, w)`` float.
        labels: ``(b, H, W)`` int64, 0..m-1 in each image.
        count: Number of columns s, at least the largest m.

    Returns:
        ``(b, ..., s)`` float64; 0 for segments that do not exist.

    Example:
        >>> segment_maxima(torch.eye(2)[None], torch.tensor([[[0, 0], [1, 1]]]), count=2)
        tensor([[1., 1.]], dtype=torch.float64)
    """
    rows = []
    # One image at a time: enlarged maps of all methods are large.
    for each, cut in zip(maps.double(), labels, strict=True):
        flat = each.reshape(-1, 1, *each.shape[-2:])
        enlarged = interpolate(flat, size=cut.shape, mode="bilinear", align_corners=False).flatten(1)
        places = cut.flatten().expand(len(enlarged), -1)
        found = enlarged.new_zeros(len(enlarged), count)
        found = found.scatter_reduce(1, places, enlarged, reduce="amax", include_self=False)
        rows.append(found.reshape(*each.shape[:-2], count))
    return torch.stack(rows)
