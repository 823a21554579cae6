"""Transforms of other libraries as perturbations."""

import math
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_camrobust import perturb_images
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.perturb.transformed import Transformed, random_gamma
from lightning_camrobust.randomness import ImageRandomness, image_keys


def some_images(count=3, size=16):
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(0))


def call(member, images, severity=3, seed=0):
    randomness = ImageRandomness(image_keys(images), seed, "transformed", severity)
    return member(images, severity=severity, randomness=randomness)


def dice(image):
    """Write one number of each generator into a pixel of its own."""
    image = image.clone()
    image[0, 0, 0] = random.random()
    image[0, 0, 1] = np.random.random()
    image[0, 0, 2] = torch.rand(())
    return image


def streams():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_draws_depend_on_image_seed_and_severity_only():
    images = some_images()
    member = Transformed(dice)
    together = call(member, images)[:, 0, 0, :3]
    random.random(), np.random.random(), torch.rand(3)
    alone = torch.cat([call(member, image[None]) for image in images.flip(0)]).flip(0)[:, 0, 0, :3]
    assert torch.equal(together, alone)
    others = call(member, images, seed=1)[:, 0, 0, :3], call(member, images, severity=4)[:, 0, 0, :3]
    drawn = torch.cat([together, *others]).flatten()
    assert len(drawn.unique()) == len(drawn)  # 3 settings x 3 images x 3 generators, no number twice


def test_draws_follow_a_seed_made_of_the_images_own_numbers():
    images = some_images()
    drawn = call(Transformed(dice), images)[:, 0, 0, :3]
    words = ImageRandomness(image_keys(images), 0, "transformed", 3).uniform((2,))
    for row, (high, low) in enumerate(words.tolist()):
        seed = math.floor(high * 65536) * 65536 + math.floor(low * 65536)
        wanted = [
            random.Random(seed).random(),
            np.random.RandomState(seed).random(),
            torch.rand((), generator=torch.Generator().manual_seed(seed)).item(),
        ]
        np.testing.assert_allclose(drawn[row].numpy(), wanted, rtol=0, atol=1e-7)


def test_global_generators_stay_even_after_a_failure():
    before = streams()
    call(Transformed(dice), some_images())
    assert streams() == before

    def stumble(image):
        dice(image)
        raise KeyError("transform")

    with pytest.raises(KeyError):
        call(Transformed(stumble), some_images())
    assert streams() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_generators_of_an_accelerator_stay_and_are_seeded():
    images = some_images().cuda()
    member = Transformed(lambda image: torch.rand_like(image))
    before = torch.cuda.get_rng_state().tolist()
    first = call(member, images)
    assert torch.cuda.get_rng_state().tolist() == before
    torch.rand(5, device="cuda")
    assert torch.equal(call(member, images), first)


def test_build_chooses_by_severity():
    images = some_images()
    member = Transformed(build=lambda severity: lambda image: image * (1 - severity / 10))
    for severity in (1, 5):
        torch.testing.assert_close(call(member, images, severity), images * (1 - severity / 10), rtol=0, atol=0)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_gamma_is_a_power_of_the_strength_that_was_asked_for(severity):
    images = some_images(40).double()
    powers = call(Transformed(build=random_gamma), images, severity).log() / images.log()
    assert float((powers.flatten(1).amax(dim=1) - powers.flatten(1).amin(dim=1)).max()) < 1e-9
    strengths = powers[:, 0, 0, 0].log()
    least = {1: 0.1, 3: 0.35, 5: 0.8}[severity]
    assert float(strengths.abs().min()) >= least - 1e-9
    assert float(strengths.abs().max()) <= 1.2 * least + 1e-9
    assert 10 < int((strengths > 0).sum()) < 30


def scribble(image):
    return image.mul_(0).add_(0.5)


def test_images_stay_and_results_are_clipped():
    images = some_images()
    before = images.clone()
    assert torch.equal(call(Transformed(scribble), images), torch.full_like(images, 0.5))
    assert torch.equal(images, before)
    wide = call(Transformed(lambda image: 3 * image - 1), images)
    assert torch.equal(wide, (3 * images - 1).clamp(0, 1))


def test_a_batch_axis_of_one_is_taken_off():
    images = some_images()
    torch.testing.assert_close(call(Transformed(lambda image: 1 - image[None]), images), 1 - images, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_stays(dtype):
    images = some_images().to(dtype)
    assert call(Transformed(lambda image: image.half()), images).dtype == dtype


@pytest.mark.parametrize(
    ("transform", "complaint"),
    [
        (lambda image: (image * 255).byte(), "must return a float tensor, got torch.uint8"),
        (lambda image: image.numpy(), "must return a float tensor, got ndarray"),
        (lambda image: image[:, 1:], r"must keep the shape \(3, 16, 16\), got \(3, 15, 16\)"),
        (lambda image: image[None].repeat(2, 1, 1, 1), r"got \(2, 3, 16, 16\)"),
        (lambda image: image / (image - image[0, 0, 0]), "returned NaN or infinity"),
        (nn.Flatten(), r"Flatten must keep the shape"),
    ],
)
def test_wrong_results_are_named(transform, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        call(Transformed(transform), some_images())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: Transformed(), "either `transform`.* got neither"),
        (lambda: Transformed(dice, random_gamma), "got both"),
        (lambda: Transformed("gamma"), "must be callable, got 'gamma'"),
        (lambda: Transformed(build=3), "must be callable, got 3"),
        (lambda: call(Transformed(dice), some_images(), severity=0), "`severity` must be"),
    ],
)
def test_wrong_settings_are_named(wrong, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        wrong()


def test_members_pickle_and_compare():
    member = Transformed(build=random_gamma, geometric=True)
    copy = pickle.loads(pickle.dumps(member))
    assert (copy, hash(copy), copy.geometric) == (member, hash(member), True)
    assert member != Transformed(dice, geometric=True)
    assert "0x" not in repr(Transformed(dice))
    assert not Transformed(dice).geometric


def blur(severity):
    from torchvision.transforms import v2

    return v2.GaussianBlur(kernel_size=5, sigma=float(severity))


def test_torchvision_transforms_equal_a_direct_call():
    from torchvision.transforms import v2

    images = some_images()
    for severity in (1, 4):
        wanted = torch.stack([v2.functional.gaussian_blur(each, [5, 5], [float(severity)] * 2) for each in images])
        torch.testing.assert_close(call(Transformed(build=blur), images, severity), wanted.clamp(0, 1))


def test_random_torchvision_transforms_are_reproducible():
    from torchvision.transforms import v2

    images = some_images(4)
    jitter = v2.Compose([v2.ColorJitter(0.5, 0.5, 0.5, 0.1), v2.RandomErasing(p=1.0)])
    before = streams()
    first = perturb_images(images, Transformed(jitter), seed=3)
    alone = torch.cat([perturb_images(image[None], Transformed(jitter), seed=3) for image in images])
    assert streams() == before
    assert torch.equal(first, alone)
    assert ((first != images).flatten(1).any(dim=1)).all()
    other = perturb_images(images, Transformed(jitter), seed=4)
    assert ((first != other).flatten(1).any(dim=1)).all()


def test_kornia_augmentations_work():
    augmentation = pytest.importorskip("kornia.augmentation")
    images = some_images()
    member = Transformed(augmentation.RandomGaussianNoise(std=0.2, p=1.0))
    first = call(member, images)
    torch.rand(3)
    assert torch.equal(call(member, images), first)
    assert float((first - images).abs().mean()) > 0.05


def test_modules_with_state_are_used_as_they_are():
    images = some_images()
    dropped = call(Transformed(nn.Dropout(0.5)), images)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(0.5, abs=0.05)
    assert torch.equal(call(Transformed(nn.Dropout(0.5).eval()), images), images)
    assert torch.equal(call(Transformed(partial(torch.add, other=0.0)), images), images)
