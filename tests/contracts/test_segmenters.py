"""What every segmenter promises, seen through `segment_images`, and what its cache promises."""

import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from skimage.data import astronaut
from torch.nn.functional import interpolate

from lightning_camrobust import segment_images
from lightning_camrobust.cache import SegmentCache
from tests.contracts.specimens import specimens, unfinished

SEGMENTERS = specimens("segment")
SIZES = (64, 224)


@cache
def pictures(size):
    """A textured picture and its mirror image, ``(2, 3, size, size)`` in [0, 1]."""
    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    small = interpolate(photograph, size=(size, size), mode="area").clamp(0, 1)
    return torch.cat([small, small.flip(3)])


@cache
def labels_of(segmenter, size):
    return segment_images(pictures(size), segmenter, cache=SegmentCache())


def test_every_file_shows_examples():
    assert SEGMENTERS
    assert unfinished("segment") == []


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, SEGMENTERS)).items() if count > 1] == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_labels_are_numbered_without_gaps(segmenter, size):
    labels = labels_of(segmenter, size)
    assert (labels.shape, labels.dtype) == ((2, size, size), torch.int64)
    for each in labels:
        used = each.unique().tolist()
        assert used == list(range(len(used)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_a_textured_picture_has_several_segments(segmenter, size):
    assert all(int(each.max()) + 1 >= 2 for each in labels_of(segmenter, size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_same_picture_gives_the_same_labels_alone_and_in_a_batch(segmenter, size):
    first = pictures(size)[:1].clone()
    again = segment_images(first, segmenter, cache=SegmentCache())
    torch.testing.assert_close(again[0], labels_of(segmenter, size)[0], rtol=0, atol=0)


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_picture_stays_as_it_is(segmenter):
    images = pictures(64)[:1].clone()
    segment_images(images, segmenter, cache=SegmentCache())
    torch.testing.assert_close(images, pictures(64)[:1], rtol=0, atol=0)


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_grey_picture_works(segmenter):
    grey = pictures(64)[:1].mean(dim=1, keepdim=True)
    labels = segment_images(grey, segmenter, cache=SegmentCache())
    assert labels.shape == (1, 64, 64)
    assert int(labels.max()) >= 1
    in_three_channels = segment_images(grey.expand(-1, 3, -1, -1), segmenter, cache=SegmentCache())
    torch.testing.assert_close(labels, in_three_channels, rtol=0, atol=0)


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_wide_picture_keeps_its_shape(segmenter):
    wide = pictures(64)[:1, :, :40]
    assert segment_images(wide, segmenter, cache=SegmentCache()).shape == (1, 40, 64)


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_pickles(segmenter):
    assert pickle.loads(pickle.dumps(segmenter)) == segmenter


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
def test_cache_gives_back_equal_labels(segmenter):
    store = SegmentCache()
    first = segment_images(pictures(64)[:1], segmenter, cache=store)
    assert store.num_bytes > 0
    second = segment_images(pictures(64)[:1], segmenter, cache=store)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


class CountingStripes:
    """Vertical stripes, and a count of the pictures that were cut."""

    def __init__(self, stripes):
        self.stripes = stripes
        self.pictures_cut = 0

    def __repr__(self):
        return f"CountingStripes({self.stripes})"

    def __call__(self, images):
        self.pictures_cut += len(images)
        return stripes(self.stripes, images)


def stripes(count, images):
    width = images.shape[3]
    return (torch.arange(width) * count // width).expand(len(images), images.shape[2], width).contiguous()


def test_cache_spares_the_segmenter():
    segmenter, store, images = CountingStripes(4), SegmentCache(), torch.rand(3, 3, 8, 8)
    segment_images(images, segmenter, cache=store)
    segment_images(images.flip(0), segmenter, cache=store)
    assert segmenter.pictures_cut == 3
    segment_images(torch.cat([images, torch.rand(1, 3, 8, 8)]), segmenter, cache=store)
    assert segmenter.pictures_cut == 4


def test_cache_is_shared_when_none_is_given():
    segmenter, images = CountingStripes(3), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(segment_images(images, segmenter), segment_images(images, segmenter))
    assert segmenter.pictures_cut == 2


def test_caller_may_write_into_cached_labels():
    segmenter, store, images = CountingStripes(4), SegmentCache(), torch.rand(1, 3, 8, 8)
    segment_images(images, segmenter, cache=store).fill_(9)
    segment_images(images, segmenter, cache=store).fill_(9)
    assert segment_images(images, segmenter, cache=store).max() == 3


def test_cache_tells_settings_and_sizes_apart():
    store, images = SegmentCache(), torch.zeros(1, 3, 8, 8)
    counts = [int(segment_images(images, CountingStripes(each), cache=store).max()) + 1 for each in (2, 4)]
    assert counts == [2, 4]
    assert segment_images(torch.zeros(1, 3, 4, 16), CountingStripes(2), cache=store).shape == (1, 4, 16)


def test_cache_tells_nameless_segmenters_apart():
    store, images = SegmentCache(), torch.rand(1, 3, 8, 8)
    counts = []
    for count in (2, 4, 8, 2, 4, 8):
        # Each lambda is gone when the next one comes, and may lie at the very same address.
        labels = segment_images(images, lambda batch, count=count: stripes(count, batch), cache=store)
        counts.append(int(labels.max()) + 1)
    assert counts == [2, 4, 8, 2, 4, 8]


@dataclass(frozen=True)
class Boundaries:
    """A segmenter whose settings do not fit into a short repr."""

    columns: torch.Tensor | Callable[[], torch.Tensor]

    def __call__(self, images):
        columns = self.columns() if callable(self.columns) else self.columns
        labels = torch.bucketize(torch.arange(images.shape[3]), columns)
        return labels.expand(len(images), *images.shape[2:]).contiguous()


def test_cache_tells_settings_that_are_functions_apart():
    store, images = SegmentCache(), torch.rand(1, 3, 8, 8)
    counts = []
    for count in (1, 3, 5, 1, 3, 5):
        segmenter = Boundaries(lambda count=count: torch.arange(count))
        counts.append(int(segment_images(images, segmenter, cache=store).max()) + 1)
        del segmenter
    assert counts == [2, 4, 6, 2, 4, 6]


def test_cache_tells_settings_with_a_shortened_repr_apart():
    store, images = SegmentCache(), torch.rand(1, 3, 8, 8)
    early, late = torch.full((2001,), 100), torch.full((2001,), 100)
    early[:1000], late[:1000] = 0, 0
    early[1000], late[1000] = 2, 6  # torch prints neither
    assert repr(early) == repr(late)
    widths = [segment_images(images, Boundaries(each), cache=store)[0, 0].bincount().max() for each in (early, late)]
    assert widths == [5, 6]


def test_cache_lets_go_of_segmenters_whose_labels_are_gone():
    store, images = SegmentCache(max_bytes=8 * 8 * 2), torch.rand(1, 3, 8, 8)

    def forgotten(batch):
        return stripes(2, batch)

    def latest(batch):
        return stripes(4, batch)

    segment_images(images, forgotten, cache=store)
    segment_images(images, latest, cache=store)
    watched = weakref.ref(forgotten)
    del forgotten
    assert watched() is None


def test_cache_is_bounded():
    store = SegmentCache(max_bytes=3 * 8 * 8 * 2)  # three pictures of 64 labels in two bytes each
    segmenter, images = CountingStripes(4), torch.rand(10, 3, 8, 8)
    for image in images:
        segment_images(image[None], segmenter, cache=store)
        assert store.num_bytes <= store.max_bytes
    assert store.num_bytes == store.max_bytes
    segment_images(images[-3:], segmenter, cache=store)
    assert segmenter.pictures_cut == 10  # the latest three are still there
    segment_images(images[:1], segmenter, cache=store)
    assert segmenter.pictures_cut == 11  # the oldest is not


def test_picture_too_large_for_the_cache_drives_nothing_out():
    store, segmenter = SegmentCache(max_bytes=3 * 8 * 8 * 2), CountingStripes(4)
    small, large = torch.rand(3, 3, 8, 8), torch.rand(1, 3, 32, 32)
    segment_images(small, segmenter, cache=store)
    segment_images(large, segmenter, cache=store)
    segment_images(small, segmenter, cache=store)
    assert segmenter.pictures_cut == 4


def test_cache_smaller_than_a_picture_still_gives_labels():
    store = SegmentCache(max_bytes=1)
    labels = segment_images(torch.rand(2, 3, 8, 8), CountingStripes(4), cache=store)
    assert labels.max() == 3
    assert store.num_bytes == 0
