"""Pooling operators that are kept from run to run."""

import pytest
import torch

from lightning_camrobust.cache import TensorCache
from lightning_camrobust.comparison import score_segments
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.pooling import build_pooling
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.segmented import SegmentedBatch

SPACE = PixelSpace((0.0,), (1.0,))


class Stripes:
    """Cut an image into as many columns as its first pixel says, and count the images cut."""

    def __init__(self):
        self.cut = 0

    def __call__(self, images):
        self.cut += len(images)
        columns = torch.arange(images.shape[3])
        return torch.stack(
            [(columns * int(image[0, 0, 0] * 10) // images.shape[3]).expand(images.shape[2], -1) for image in images]
        )


def striped_images():
    images = torch.rand(4, 3, 8, 8)
    images[:, 0, 0, 0] = torch.tensor([0.2, 0.4, 0.8, 0.3]) + 0.001
    return images


def batch_of(images, segmenter, operators):
    return SegmentedBatch(images, SPACE, segmenter, image_keys(images), operators=operators)


def test_scores_equal_those_of_operators_built_at_once():
    images, segmenter, maps = striped_images(), Stripes(), torch.rand(4, 3, 2, 4, 4)
    scores, present, rankable = batch_of(images, segmenter, None).score(maps)
    operator, wanted_present = build_pooling(segmenter(images), map_size=(4, 4))
    wanted, wanted_rankable = score_segments(maps, operator, wanted_present)
    assert torch.equal(scores, wanted)
    assert torch.equal(present, wanted_present)
    assert torch.equal(rankable, wanted_rankable)
    assert present.sum(dim=1).tolist() == [2, 4, 8, 3]


def test_operators_are_kept_for_each_image_and_map_size():
    images, segmenter, operators = striped_images(), Stripes(), TensorCache(2**20)
    first = batch_of(images, segmenter, operators).score(torch.ones(4, 1, 4, 4))
    assert segmenter.cut == 4
    # Another order, another batch: each image is known.
    turned = batch_of(images.flip(0), segmenter, operators).score(torch.ones(4, 1, 4, 4))
    assert torch.equal(turned[1].flip(0), first[1])
    part = batch_of(images[:1], segmenter, operators).score(torch.ones(1, 1, 4, 4))
    assert part[0].shape == (1, 1, 2)
    assert segmenter.cut == 4
    kept = operators.num_bytes
    batch_of(images, segmenter, operators).score(torch.ones(4, 1, 2, 2))
    assert operators.num_bytes == kept + (2 + 4 + 8 + 3) * 4 * 8


def test_another_segmenter_has_operators_of_its_own():
    images, operators = striped_images(), TensorCache(2**20)
    batch_of(images, Stripes(), operators).score(torch.ones(4, 1, 4, 4))
    _, present, _ = batch_of(images, lambda batch: torch.zeros_like(batch[:, 0]).long(), operators).score(
        torch.ones(4, 1, 4, 4)
    )
    assert present.shape == (4, 1)


def test_seconds_are_counted_only_when_something_was_cut():
    images, segmenter, operators = striped_images(), Stripes(), TensorCache(2**20)
    cold, warm = batch_of(images, segmenter, operators), batch_of(images, segmenter, operators)
    cold.score(torch.ones(4, 1, 4, 4))
    warm.score(torch.ones(4, 1, 4, 4))
    assert cold.seconds > 0
    assert warm.seconds == 0
    # What cannot be kept will have to be paid for again.
    forgetful = batch_of(images, segmenter, TensorCache(100))
    forgetful.score(torch.ones(4, 1, 4, 4))
    assert forgetful.seconds == 0


def test_cache_copies_as_an_empty_one():
    import copy
    import pickle

    cache = TensorCache(100)
    cache.put("a", torch.zeros(2))
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert twin.max_bytes == 100
        assert twin.num_bytes == 0
        assert twin.get("a") is None


@pytest.mark.parametrize("max_bytes", [0, 7])
def test_what_is_larger_than_the_budget_is_not_kept(max_bytes):
    cache = TensorCache(max_bytes)
    cache.put("a", torch.zeros(2))
    assert cache.get("a") is None
