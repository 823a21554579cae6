"""Random streams against whole numbers of Python, so that the noise of a picture stays the same in later versions."""

import zlib

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_camrobust.randomness import ImageRandomness, image_keys

WORD = 2**32
GOLDEN = 0x9E3779B1


def mixed(word, last=True):
    """Wellons' lowbias32."""
    word = (word ^ word >> 16) * 0x7FEB352D % WORD
    word = (word ^ word >> 15) * 0x846CA68B % WORD
    return word ^ word >> 16 if last else word


def salt(text):
    return zlib.crc32(text.encode()) ^ 2**31, zlib.adler32(text.encode()[::-1]) ^ 2**31


def key_of(image):
    levels = [round(min(max(value, 0.0), 1.0) * 255) for value in image.flatten().tolist()]
    first = [mixed(place * GOLDEN % WORD) for place in range(len(levels))]
    second = [mixed(word ^ GOLDEN) for word in first]
    sums = (sum(level * word for level, word in zip(levels, row, strict=True)) % WORD for row in (first, second))
    return [mixed(mixed(each) ^ shape) for each, shape in zip(sums, salt(repr(tuple(image.shape))), strict=True)]


def words_of(key, label, count):
    first = [mixed(word ^ other) for word, other in zip(key, salt(label), strict=True)]
    swapped = [mixed((word + 1) % WORD) for word in reversed(first)]
    start, stride = (mixed(word ^ other) for word, other in zip(first, swapped, strict=True))
    return [mixed((place * (stride | 1) + start) % WORD, last=False) for place in range(count)]


def signed(word):
    return word - WORD if word >= 2**31 else word


@pytest.fixture
def images():
    # Half a level, both sides of the ends, and exact levels.
    values = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.2 - 0.1
    return (values * 255).round().div(255).float()


def test_keys_of_images(images):
    found = image_keys(images)
    assert [[each % WORD for each in row] for row in found.tolist()] == [key_of(image) for image in images]


@pytest.mark.parametrize(("seed", "family", "severity"), [(0, "gaussian_noise", 1), (7, "fog", 5)])
def test_streams_of_images(images, seed, family, severity):
    drawn = ImageRandomness(image_keys(images), seed, family, severity)
    even, bell = drawn.uniform((3, 5)), drawn.normal((7,))
    edges = stats.norm.ppf(np.arange(2**16 + 1) / 2**16)
    for row, image in enumerate(images):
        key = key_of(image)
        words = words_of(key, f"{seed}/{family}/{severity}/1", 15)
        wanted = [((signed(word) >> 9) + 2**22 + 0.5) / 2**23 for word in words]
        assert even[row].flatten().tolist() == wanted
        pieces = [word >> 16 for word in words_of(key, f"{seed}/{family}/{severity}/2", 7)]
        means = [(stats.norm.pdf(edges[piece]) - stats.norm.pdf(edges[piece + 1])) * 2**16 for piece in pieces]
        np.testing.assert_allclose(bell[row], means, rtol=1e-6)


def test_part_of_a_batch_starts_from_its_beginning(images):
    whole = ImageRandomness(image_keys(images), 3, "frost", 2)
    drawn = whole.uniform((4,)), whole.uniform((4,))
    part = whole.of_images(slice(1, 2))
    assert torch.equal(part.uniform((4,)), drawn[0][1:])
    assert torch.equal(part.uniform((4,)), drawn[1][1:])
