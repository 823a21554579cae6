"""What lies under the perturbations: random numbers, alias tables, blocks."""

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_camrobust import blocks, perturb_images
from lightning_camrobust.heldout import HeldOutImages
from lightning_camrobust.perturb.shot_noise import ShotNoise, _alias_table
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import make_plan
from lightning_camrobust.randomness import ImageRandomness, _normal_table, image_keys
from lightning_camrobust.session import ProbeSession
from tests.networks import small_cnn


@pytest.fixture
def extreme_bits(monkeypatch):
    """Draw the smallest and the largest 32 bits there are."""
    ends = torch.tensor([-(2**31), -(2**31) + 1, -1, 0, 2**31 - 2, 2**31 - 1], dtype=torch.int32)
    monkeypatch.setattr(ImageRandomness, "_bits", lambda self, shape: ends[None].clone())
    return ImageRandomness(image_keys(torch.rand(1, 1, 2, 3)), 0, "specimen", 1)


def test_uniform_numbers_never_reach_the_ends(extreme_bits):
    drawn = extreme_bits.uniform((6,))
    assert drawn.min() == 2.0**-24
    assert drawn.max() == 1 - 2.0**-24


def test_normal_numbers_are_always_finite(extreme_bits):
    drawn = extreme_bits.normal((6,))
    # The mean of the outermost of 2^16 pieces, and of the two in the middle.
    tail = stats.norm.pdf(stats.norm.isf(2.0**-16)) * 2**16
    assert drawn.aminmax() == pytest.approx((-tail, tail), rel=1e-6)
    assert drawn.abs().min() < 2e-5
    torch.testing.assert_close(drawn.sort().values, -drawn.sort().values.flip(1), rtol=0, atol=1e-6)


def test_normal_numbers_have_the_moments_of_the_distribution():
    pieces = _normal_table(torch.device("cpu")).double()
    assert float(pieces.mean()) == pytest.approx(0, abs=1e-9)
    assert float(pieces.square().mean()) == pytest.approx(1, abs=2e-5)
    assert float(pieces.pow(4).mean()) == pytest.approx(3, abs=2e-3)
    keys = image_keys(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    drawn = ImageRandomness(keys, 0, "specimen", 1).normal((3, 128, 128)).flatten()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


def test_streams_look_random():
    keys = image_keys(torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    drawn = torch.cat([ImageRandomness(keys, seed, "specimen", 1).uniform((3, 64, 64)) for seed in (0, 1)]).flatten(1)
    for row in drawn:
        assert stats.kstest(row.numpy(), "uniform").pvalue > 1e-4
        bits = np.histogram(row.numpy(), 256, (0, 1))[0]
        assert stats.chisquare(bits).pvalue > 1e-4
    # Neither neighbours in a row, nor pixels below each other, nor other images or seeds are related.
    related = [torch.corrcoef(torch.stack([row[:-lag], row[lag:]]))[0, 1] for row in drawn for lag in (1, 64, 4096)]
    between = torch.corrcoef(drawn)[torch.triu_indices(12, 12, 1).unbind()]
    spread = drawn.shape[1] ** -0.5
    assert torch.stack(related).abs().max() < 5 * spread
    assert between.abs().max() < 5 * spread


def test_streams_that_start_side_by_side_do_not_walk_in_step(monkeypatch):
    # One step apart on the 32-bit circle; with one stride for all, the second would be the first, shifted by one.
    words = torch.tensor([[5, 2], [6, 8]], dtype=torch.int32)
    monkeypatch.setattr(ImageRandomness, "_stream_keys", lambda self: words)
    first, second = ImageRandomness(words, 0, "specimen", 1).uniform((1000,))
    assert not torch.isin(first, second).any()


def test_keys_differ_with_any_pixel_and_with_the_shape():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    variants = [image, image.flip(3), image.transpose(2, 3), image.reshape(1, 3, 8, 32), image[:, :1], image * 0]
    for row, column in ((0, 0), (7, 9), (15, 15)):
        for value in (0.0, 1.0):
            changed = image.clone()
            changed[0, 1, row, column] = value
            variants.append(changed)
    assert len({tuple(image_keys(each)[0].tolist()) for each in variants}) == len(variants)


@pytest.mark.parametrize("level", [0.5, 3.0, 60.0, 500.0, 1000.0])
def test_alias_tables_hold_the_poisson_distributions(level):
    table, columns = _alias_table(level, torch.device("cpu"))
    table = table.double().numpy().reshape(256, columns)
    other = np.floor(table)
    stay = table - other
    found = np.zeros((256, columns))
    for grey in range(256):
        found[grey] += stay[grey] / columns
        np.add.at(found[grey], other[grey].astype(int), (1 - stay[grey]) / columns)
    wanted = stats.poisson.pmf(np.arange(columns), np.arange(256)[:, None] / 255 * level)
    # Half of the summed difference is the largest error in any probability at all.
    assert abs(found - wanted).sum(axis=1).max() / 2 < 1e-5


@pytest.mark.parametrize("level", [999.0, 1001.0])
def test_both_ways_of_counting_photons_agree_with_theory(level):
    images = torch.full((1, 1, 256, 256), 0.2)  # 51 of 255
    noisy = perturb_images(images, ShotNoise(levels=(level,) * 5)).double()
    error = (0.2 / level) ** 0.5
    assert noisy.mean() == pytest.approx(0.2, abs=5 * error / 256)
    assert noisy.std() == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_blocks_change_no_bit(name, memory_format, monkeypatch):
    images = torch.rand(5, 3, 16, 16).contiguous(memory_format=memory_format)
    whole = perturb_images(images, name, mean=0.4, std=0.3)
    monkeypatch.setattr(blocks, "_BLOCK_VALUES", 2 * 3 * 16 * 16)
    assert len(blocks.cache_blocks(images)) == 3
    assert torch.equal(perturb_images(images, name, mean=0.4, std=0.3), whole)
    assert whole.is_contiguous(memory_format=memory_format)


def test_no_block_of_nothing():
    assert blocks.cache_blocks(torch.zeros(0, 3, 8, 8)) == []


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_reaches_the_network(memory_format):
    seen = []
    net = small_cnn(3).eval()
    net.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    plan = make_plan(perturbations=("gaussian_noise", "shot_noise"), severities=3, segmenter="grid")
    session = ProbeSession(plan, net, HeldOutImages(num_samples=4, chunk_size=4), space=PixelSpace((0.5,), (0.2,)))
    session.take(torch.rand(4, 3, 16, 16).contiguous(memory_format=memory_format))
    session.finish()
    whole = [images for images in seen if len(images) == 4]
    assert len(whole) == 3
    assert all(images.is_contiguous(memory_format=memory_format) for images in whole)


def test_constants_made_in_inference_mode_serve_gradients_later():
    settings = {"mean": 0.123, "std": 0.321}  # not used by any other test
    with torch.inference_mode():
        perturb_images(torch.rand(1, 3, 8, 8), **settings)
    images = torch.rand(1, 3, 8, 8).requires_grad_()
    perturb_images(images, **settings).sum().backward()
    assert images.grad.isfinite().all()
