"""Random numbers that belong to an image, not to a batch.

A number is a hash of (image content, seed, family, severity, position in the image), so it is the same in whatever
batch, epoch, process or device the image turns up, no global generator is involved, and a whole batch is drawn at once
on its own device.
"""

import zlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lightning_camrobust.blocks import cache_blocks

_GOLDEN = 0x9E3779B1 - 2**32


def _constant(value: int) -> Tensor:
    # A plain number would be wrapped into a tensor by every single operation, which costs more than the operation.
    return torch.tensor(value, dtype=torch.int32, device="cpu")


# Wellons' `lowbias32` (public domain): shift, its mask (int32 has no logical shift), and the factor behind it.
_ROUNDS = (
    (_constant(16), _constant(0xFFFF), _constant(0x7FEB352D)),
    (_constant(15), _constant(0x1FFFF), _constant(0x846CA68B - 2**32)),
)


def image_keys(pixels: Tensor) -> Tensor:
    """Hash the content of each image.

    Args:
        pixels: ``(b, c, H, W)`` in [0, 1]; rounded to 8 bits first, so that the same picture has the same key in any
            float type that can hold it.

    Returns:
        ``(b, 2)`` int32.

    Example:
        >>> image = torch.rand(1, 3, 4, 4)
        >>> torch.equal(image_keys(image), image_keys(image.double()))
        True
    """
    count, device = pixels[0].numel(), pixels.device
    shape = _salt(repr(tuple(pixels.shape[1:])), device)
    sums = []
    for block in cache_blocks(pixels):
        levels = (pixels[block].float().clamp(0, 1) * 255).round_().to(torch.int32).flatten(1)
        # Multilinear hashing. Integers wrap, so the order of adding, which differs between devices, cannot matter.
        words = [(levels * weights).sum(dim=1, dtype=torch.int32) for weights in _weights(count, device)]
        sums.append(torch.stack(words, dim=1))
    return _mix_(_mix_(torch.cat(sums)).bitwise_xor_(shape))


@dataclass
class ImageRandomness:
    """A stream of random numbers for each image of a batch.

    Attributes:
        keys: ``(b, 2)`` int32 from :func:`image_keys`.
        seed: The user's seed.
        family: Name of the perturbation.
        severity: 1..5.

    Example:
        >>> images = torch.rand(3, 1, 4, 4)
        >>> both = ImageRandomness(image_keys(images), 0, "gaussian_noise", 1).normal((1, 4, 4))
        >>> alone = ImageRandomness(image_keys(images[2:]), 0, "gaussian_noise", 1).normal((1, 4, 4))
        >>> torch.equal(both[2:], alone)
        True
    """

    keys: Tensor
    seed: int
    family: str
    severity: int
    _rows: slice | None = field(default=None, repr=False)
    _streams: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _draws: int = field(default=0, init=False, repr=False)

    def of_images(self, rows: slice) -> "ImageRandomness":
        """Return the streams of some of the images, from their beginning."""
        return ImageRandomness(self.keys, self.seed, self.family, self.severity, rows, self._streams)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the open interval (0, 1), the middles of 2^23 equal steps.

        Args:
            shape: Shape of one image's share.

        Returns:
            ``(b, *shape)``.
        """
        steps = self._bits(shape).bitwise_right_shift_(_SHIFT_9).to(torch.float32)
        # Exact: with one bit more the largest number would round up to 1.
        return torch.add(_MIDDLE_OF_UNIT, steps, alpha=2.0**-23, out=steps)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the standard normal distribution, cut into 2^16 equally likely pieces.

        Each piece stands for itself with its mean, so that sums and variances are those of the whole distribution.

        Args:
            shape: Shape of one image's share.

        Returns:
            ``(b, *shape)``, within +-4.39.
        """
        bits = self._bits(shape)
        piece = bits.bitwise_right_shift_(_ROUNDS[0][0]).bitwise_and_(_ROUNDS[0][1])
        return _normal_table(bits.device).index_select(0, piece.flatten()).view(piece.shape)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        words = self._stream_keys()
        # Each stream walks the 32-bit circle with a start and an odd stride of its own, so that no two walk in step.
        start, stride = words[:, :1], words[:, 1:] | 1
        count = int(torch.Size(shape).numel())
        bits = (_counter(count, words.device) * stride).add_(start)
        return _mix_(bits, last=False).reshape(len(words), *shape)

    def _stream_keys(self) -> Tensor:
        self._draws += 1
        if self._draws not in self._streams:
            # For all images at once: on two numbers an image, calling costs more than counting.
            self._streams[self._draws] = self._mixed_keys(self._draws)
        words = self._streams[self._draws]
        return words if self._rows is None else words[self._rows]

    def _mixed_keys(self, draw: int) -> Tensor:
        label = f"{self.seed}/{self.family}/{self.severity}/{draw}"
        first = _mix_(self.keys ^ _salt(label, self.keys.device))
        # Each word has to depend on both words of the key.
        swapped = _mix_(first.flip(1) + 1)
        return _mix_(first ^ swapped)


_SHIFT_9 = _constant(9)
_MIDDLE_OF_UNIT = torch.tensor(0.5 + 2.0**-24, dtype=torch.float32, device="cpu")


# What depends on no image is made once and kept: making it anew, or sending it to an accelerator, would cost more than
# its use.
@lru_cache(maxsize=4)
def _counter(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.int32, device=device)


@lru_cache(maxsize=4)
def _weights(count: int, device: torch.device) -> Tensor:
    first = _mix_(_counter(count, device) * _GOLDEN)
    return torch.stack([first, _mix_(first ^ _GOLDEN)])


@lru_cache(maxsize=4)
def _normal_table(device: torch.device) -> Tensor:
    edges = stats.norm.ppf(np.arange(2**16 + 1) / 2**16)
    # The mean of a piece is what the density loses over it, divided by its share.
    means = -np.diff(stats.norm.pdf(edges)) * 2**16
    return torch.from_numpy(means.astype(np.float32)).to(device)


@lru_cache(maxsize=1024)
def _salt(label: str, device: torch.device) -> Tensor:
    text = label.encode()
    return torch.tensor([zlib.crc32(text) - 2**31, zlib.adler32(text[::-1]) - 2**31], dtype=torch.int32, device=device)


def _mix_(bits: Tensor, *, last: bool = True) -> Tensor:
    """Mix 32 bits in place; the last step changes none of the upper 16 bits and may be left out for numbers."""
    scratch = torch.empty_like(bits)
    for shift, mask, factor in _ROUNDS:
        torch.bitwise_right_shift(bits, shift, out=scratch)
        bits.bitwise_xor_(scratch.bitwise_and_(mask)).mul_(factor)
    if not last:
        return bits
    torch.bitwise_right_shift(bits, _ROUNDS[0][0], out=scratch)
    return bits.bitwise_xor_(scratch.bitwise_and_(_ROUNDS[0][1]))
