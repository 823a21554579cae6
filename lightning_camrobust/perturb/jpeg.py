"""JPEG compression."""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.severity import Column, SeverityTable
from lightning_camrobust.types import Randomness

if TYPE_CHECKING:
    import numpy as np

_TABLE = SeverityTable(imagenet=(25, 18, 15, 10, 7), cifar=(80, 65, 58, 50, 40))


@dataclass(frozen=True)
class Jpeg:
    """Compress as JPEG of quality ``level`` and read back, by Pillow, on the host.

    Pixels are rounded to 8 bits first. Three channels are taken for RGB, so that colours get a coarser grid; any other
    number is compressed channel by channel as grey pictures. Nothing is random.

    Attributes:
        column: Which published column gives the values: by image size, or one by name.
        levels: Own qualities 1..100 for severity 1..5 instead of a published column; they are cut to whole numbers.

    Source:
        Hendrycks and Dietterich 2019 (arXiv 1903.12261), released scripts.

    Example:
        >>> noise = torch.rand(1, 3, 16, 16)
        >>> Jpeg()(noise, severity=5, randomness=None).shape
        torch.Size([1, 3, 16, 16])
    """

    random: ClassVar[bool] = False

    column: Column = "auto"
    levels: tuple[float, float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        for level in self.levels or ():
            if not 1 <= level <= 100:
                raise ArgumentError(f"Jpeg: each of `levels` must be a quality from 1 to 100, got {level!r}.")

    def __call__(self, images: Tensor, *, severity: int, randomness: Randomness) -> Tensor:
        """Return disturbed copies of ``images`` ``(b, c, H, W)`` in [0, 1], clipped to it."""
        table = _TABLE if self.levels is None else SeverityTable(self.levels, self.levels)
        quality = int(table.value(severity, images=images, column=self.column))
        bytes_ = (images.detach() * 255).round_().clamp_(0, 255).to(torch.uint8).cpu()
        if images.shape[1] == 3:
            pictures = bytes_.permute(0, 2, 3, 1).contiguous().numpy()
            read = torch.stack([_round_trip(each, quality) for each in pictures]).permute(0, 3, 1, 2)
        else:
            read = torch.stack([_round_trip(each, quality) for each in bytes_.flatten(0, 1).contiguous().numpy()])
        return read.reshape(images.shape).to(images.device, images.dtype) / 255


def _round_trip(picture: "np.ndarray", quality: int) -> Tensor:
    # Loaded here, so that importing the package stays light.
    import numpy as np
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file)))


EXAMPLES = (Jpeg(), Jpeg(column="cifar"))
