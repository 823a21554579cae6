"""Where the cells of a map sit in a layer's output: `(b, c, h, w)`, `(b, h, w, c)`, or patch tokens `(b, n, c)`."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Tokens in front that belong to no patch: none, a class token, with a distillation token, with four registers.
_PREFIXES = (0, 1, 2, 4, 5)


@dataclass(frozen=True)
class Layout:
    """How a layer's output holds a grid of cells.

    Attributes:
        prefix: In patch tokens ``(b, n, c)``, the number of tokens in front that belong to no cell.
        size: ``(h, w)`` of the tokens' grid, row by row; None for an output that is no tokens.
        channels_last: Whether the output is ``(b, h, w, c)`` instead of ``(b, c, h, w)``.

    Example:
        >>> import torch
        >>> tokens = torch.rand(2, 5, 8)  # a class token and 2 x 2 patches
        >>> layout = Layout(prefix=1, size=(2, 2))
        >>> layout.to_map(tokens).shape
        torch.Size([2, 8, 2, 2])
        >>> torch.equal(layout.from_map(layout.to_map(tokens), like=tokens), tokens)
        True
    """

    prefix: int = 0
    size: tuple[int, int] | None = None
    channels_last: bool = False

    @property
    def is_map(self) -> bool:
        """Whether the output is a map ``(b, c, h, w)`` already."""
        return self.size is None and not self.channels_last

    def to_map(self, output: Tensor) -> Tensor:
        """Bring an output into the shape ``(b, c, h, w)``."""
        if self.size is None:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.size)

    def from_map(self, maps: Tensor, *, like: Tensor) -> Tensor:
        """Bring maps ``(n, c, h, w)`` into the shape of an output, other tokens as in ``like`` ``(1 or n, ...)``."""
        if self.size is None:
            return maps.permute(0, 2, 3, 1) if self.channels_last else maps
        output = like.expand(len(maps), *like.shape[1:]).clone()
        output[:, self.prefix :] = maps.flatten(2).transpose(1, 2).to(output.dtype)
        return output


def find_layout(output: Tensor, images: Tensor) -> Layout | None:
    """Recognise the layout of a layer's output.

    Tokens are a grid if, behind at most five others, they are as many as a grid of the images' proportions has cells.
    Channels come last if only then the cells have the images' proportions.

    Args:
        output: What the layer gave out.
        images: ``(b, c, H, W)``, what went into the network; or volumes ``(b, c, D, H, W)``.

    Returns:
        The layout, or None if the output has no cells.

    Example:
        >>> import torch
        >>> find_layout(torch.rand(2, 197, 384), torch.rand(2, 3, 224, 224))
        Layout(prefix=1, size=(14, 14), channels_last=False)
        >>> find_layout(torch.rand(2, 384), torch.rand(2, 3, 224, 224)) is None
        True
    """
    if not output.is_floating_point():
        return None
    if output.dim() == 4 and images.dim() == 4:
        channels_last = not has_proportions(output.shape[2:], images) and has_proportions(output.shape[1:3], images)
        return Layout(channels_last=channels_last)
    if output.dim() in (4, 5):
        return Layout()
    # One feature is no token, but a pooled channel.
    if output.dim() != 3 or images.dim() != 4 or output.shape[2] == 1:
        return None
    height, width = int(images.shape[2]), int(images.shape[3])
    for grid in (_proportional_grid, _patched_grid):
        for prefix in _PREFIXES:
            size = grid(output.shape[1] - prefix, height, width)
            if size is not None:
                return Layout(prefix, size)
    return None


def _proportional_grid(cells: int, height: int, width: int) -> tuple[int, int] | None:
    rows = round((max(cells, 0) * height / width) ** 0.5)
    if cells > 1 and rows and cells % rows == 0 and rows * width == (cells // rows) * height:
        return rows, cells // rows
    return None


def _patched_grid(cells: int, height: int, width: int) -> tuple[int, int] | None:
    """Cut patches off an image whose sides are no multiples of theirs; what is left over is lost."""
    if height == width:
        return None
    for patch in range(2, min(height, width)):
        rows, columns = height // patch, width // patch
        if rows * columns == cells:
            return rows, columns
    return None


def has_proportions(cells: Sequence[int], images: Tensor) -> bool:
    """Tell whether a grid has the proportions of the images, up to one row or column.

    Args:
        cells: ``(h, w)`` of the grid.
        images: ``(b, c, H, W)``.

    Returns:
        The answer.

    Example:
        >>> import torch
        >>> has_proportions((7, 10), torch.rand(1, 3, 224, 320)), has_proportions((7, 64), torch.rand(1, 3, 224, 224))
        (True, False)
    """
    height, width = images.shape[2:]
    return abs(cells[0] * width - cells[1] * height) <= max(height, width)
