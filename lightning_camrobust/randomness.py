"""Random numbers that belong to an image, not to a batch.

A number is a hash of (image content, seed, family, severity, position in the image), so it is the same in whatever
batch, epoch, process or device the image turns up, no global generator is involved, and a whole batch is drawn at once
on its own device.
"""

import zlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B1 - 2**32


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
    levels = (pixels.float().clamp(0, 1) * 255).round_().to(torch.int32).flatten(1)
    position = torch.arange(levels.shape[1], dtype=torch.int32, device=levels.device) * _GOLDEN
    shape = torch.tensor([zlib.crc32(repr(tuple(pixels.shape[1:])).encode()) - 2**31], dtype=torch.int32)
    # Integers wrap, so the order of adding, which differs between devices, cannot matter.
    bits = _mix_(levels.mul_(0x01000193).bitwise_xor_(position))
    first = bits.sum(dim=1, dtype=torch.int32)
    second = _mix_(bits.bitwise_xor_(_GOLDEN)).sum(dim=1, dtype=torch.int32)
    return _mix(torch.stack([first, second], dim=1) ^ shape.to(levels.device))


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
    _draws: int = field(default=0, init=False, repr=False)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the open interval (0, 1) on a grid of 2^-24.

        Args:
            shape: Shape of one image's share.

        Returns:
            ``(b, *shape)``.
        """
        bits = self._bits(shape)
        return bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-24)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw float32 from the standard normal distribution, by inverting its distribution function.

        Args:
            shape: Shape of one image's share.

        Returns:
            ``(b, *shape)``, within +-5.4.
        """
        # 2u - 1 is formed from u on a grid of 2^-24, exactly; erfinv never sees +-1.
        return self.uniform(shape).mul_(2).sub_(1).erfinv_().mul_(2**0.5)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        words = self._stream_keys()
        count = int(torch.Size(shape).numel())
        counter = torch.arange(count, dtype=torch.int32, device=words.device) * _GOLDEN
        bits = _mix(counter ^ words[:, :1])
        return _mix_(bits.bitwise_xor_(words[:, 1:])).reshape(len(words), *shape)

    def _stream_keys(self) -> Tensor:
        self._draws += 1
        label = f"{self.seed}/{self.family}/{self.severity}/{self._draws}".encode()
        salt = torch.tensor([zlib.crc32(label) - 2**31, zlib.adler32(label[::-1]) - 2**31], dtype=torch.int32)
        first = _mix(self.keys ^ salt.to(self.keys.device))
        # Each word has to depend on both words of the key.
        swapped = _mix(first.flip(1) + 1)
        return _mix(first ^ swapped)


def _mix(bits: Tensor) -> Tensor:
    return _mix_(bits.clone())


def _mix_(bits: Tensor) -> Tensor:
    """Mix 32 bits in place: Wellons' `lowbias32` (public domain), on int32 with the shifts made logical."""
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))
    bits.mul_(0x7FEB352D)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF))
    bits.mul_(0x846CA68B - 2**32)
    return bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))
