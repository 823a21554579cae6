"""What every baseline promises."""

import pickle
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from lightning_camrobust.baseline.noisy_linear import NoisyLinear
from lightning_camrobust.members import member_names, resolve_member
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.types import Baseline
from tests.contracts.specimens import member_modules, specimens, unfinished

BASELINES = specimens("baseline")
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
RANDOM = ("gaussian_noise", "noisy_linear", "shuffle", "uniform_noise")
PROMISED = {
    "black", "white", "grey", "dataset_mean", "image_mean", "blur", "uniform_noise", "gaussian_noise", "shuffle",
    "noisy_linear", "custom",
}  # fmt: skip


def pictures(*shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_removed(pixels, share=0.4):
    """A share of the pixels; it depends on the image, not on its place in the batch."""
    drawn = ImageRandomness(image_keys(pixels), 0, "removed", 1).uniform((1, *pixels.shape[2:]))
    return drawn < share


def fill(baseline, pixels, *, removed=None, seed=0):
    """Call a member with fresh random numbers."""
    randomness = ImageRandomness(image_keys(pixels), seed, "specimen", 1)
    removed = some_removed(pixels) if removed is None else removed
    return baseline(pixels, removed=removed, randomness=randomness)


def random_streams():
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tolist(), rest), torch.get_rng_state().tolist()


def test_every_file_shows_examples():
    assert {module.__name__.rpartition(".")[2] for module in member_modules("baseline")} >= PROMISED
    assert unfinished("baseline") == []


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, BASELINES)).items() if count > 1] == []


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_it_is_a_baseline(baseline):
    assert isinstance(baseline, Baseline)
    assert resolve_member("baseline", baseline) is baseline


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_whole_pictures_of_the_same_kind_in_the_unit_interval(baseline, channels, dtype, device, share):
    pixels = pictures(2, channels, 9, 7, dtype=dtype).to(device)
    # The full range, where rounding or noise would leave it.
    pixels[0, :, :3], pixels[0, :, 3:6] = 0.0, 1.0
    filled = fill(baseline, pixels, removed=some_removed(pixels, share))
    assert (filled.shape, filled.dtype, filled.device) == (pixels.shape, dtype, pixels.device)
    assert filled.isfinite().all()
    assert float(filled.min()) >= 0
    assert float(filled.max()) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)], ids=str)
@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_tiny_pictures(baseline, size):
    pixels = pictures(2, 3, *size)
    for share in (0.0, 0.5, 1.0):
        filled = fill(baseline, pixels, removed=some_removed(pixels, share))
        assert filled.shape == pixels.shape
        assert ((filled >= 0) & (filled <= 1)).all()


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_input_stays_as_it_is(baseline):
    pixels = pictures(2, 3, 9, 7)
    removed = some_removed(pixels)
    before = pixels.clone(), removed.clone()
    filled = fill(baseline, pixels, removed=removed)
    filled.mul_(0.5)  # refused where several values share one place in memory
    torch.testing.assert_close((pixels, removed), before, rtol=0, atol=0)


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_same_seed_gives_the_same_fill(baseline):
    pixels = pictures(2, 3, 9, 7)
    torch.testing.assert_close(fill(baseline, pixels), fill(baseline, pixels), rtol=0, atol=0)


@pytest.mark.parametrize("name", member_names("baseline"))
def test_another_seed_gives_another_fill_where_chance_rules(name):
    pixels, baseline = pictures(2, 3, 32, 32), resolve_member("baseline", name)
    changed = (fill(baseline, pixels, seed=0) != fill(baseline, pixels, seed=1)).flatten(1).any(dim=1)
    assert changed.tolist() == [name in RANDOM] * 2


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# Odd sizes leave a remainder behind every vector register; large ones are split over threads.
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(5, 3, 9, 7), (5, 1, 28, 28), (2, 1, 200, 200)], ids=str)
@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_an_image_has_the_same_fill_in_any_batch(baseline, shape):
    pixels = pictures(*shape)
    together = fill(baseline, pixels)
    alone = torch.cat([fill(baseline, image[None]) for image in pixels])
    backwards = fill(baseline, pixels.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=0)


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_channels_last_changes_no_value(baseline):
    pixels = pictures(2, 3, 9, 7)
    other = fill(baseline, pixels.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other, fill(baseline, pixels), rtol=0, atol=1e-7)


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_global_generators_stay(baseline):
    before = random_streams()
    fill(baseline, pictures(2, 3, 9, 7))
    assert random_streams() == before


@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
def test_members_pickle_and_hash(baseline):
    copy = pickle.loads(pickle.dumps(baseline))
    assert copy == baseline
    assert hash(copy) == hash(baseline)
    assert repr(copy) == repr(baseline)


def test_reprs_are_the_same_in_another_process():
    code = "from tests.contracts.specimens import specimens; print([repr(each) for each in specimens('baseline')])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == str([repr(each) for each in BASELINES])


@pytest.mark.parametrize("baseline", [each for each in BASELINES if isinstance(each, NoisyLinear)], ids=repr)
def test_removed_pixels_do_not_shine_through(baseline):
    pixels = pictures(2, 3, 9, 7)
    removed = some_removed(pixels)
    changed = torch.where(removed, 1 - pixels, pixels)
    keys = image_keys(pixels)  # the random numbers belong to the picture, so they are held fixed

    def filled(images):
        randomness = ImageRandomness(keys, 0, "specimen", 1)
        return baseline(images, removed=removed, randomness=randomness)

    torch.testing.assert_close(filled(changed), filled(pixels), rtol=0, atol=0)
    kept = ~removed.expand_as(pixels)
    torch.testing.assert_close(filled(pixels)[kept], pixels[kept], rtol=0, atol=0)
