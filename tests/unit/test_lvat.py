"""Virtual adversarial noise, on pixels and on latent codes."""

import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_camrobust import compute_cams
from lightning_camrobust.codec import Codec
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.network import network_in_pixels
from lightning_camrobust.overlap import rank_biased_overlap
from lightning_camrobust.perturb.lvat import LVAT
from lightning_camrobust.perturb.vat import VAT
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.randomness import ImageRandomness, image_keys
from tests.networks import digits, trained

SPACE = PixelSpace((0.0,), (1.0,))


def streams(images, severity=3):
    return ImageRandomness(image_keys(images), 0, "attack", severity)


def digit_network(count=8, dtype=torch.float32):
    net = trained().net.eval().to(dtype)
    images = digits()[0][:count].to(dtype)
    with torch.no_grad():
        classes = net(images).argmax(dim=1)
    return network_in_pixels(net, images, target_layer=net[6], space=SPACE, classes=classes)


def call(member, network, severity=3):
    return member(network.pixels, severity=severity, randomness=streams(network.pixels), network=network)


def kl(network, noisy):
    clean, disturbed = (nn.functional.softmax(network.logits(each).double(), dim=1) for each in (network.pixels, noisy))
    return (clean * (clean / disturbed).log()).sum(dim=1).detach()


class Autoencoder(nn.Module):
    """A linear code of the digits' first principal components; dropout and batch norm show careless handling."""

    def __init__(self, components=24):
        super().__init__()
        images = digits()[0][400:1200].flatten(1)
        _, _, axes = torch.linalg.svd(images - images.mean(dim=0), full_matrices=False)
        self.encoder, self.decoder = nn.Linear(256, components), nn.Linear(components, 256)
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(components, affine=False)
        with torch.no_grad():
            self.encoder.weight.copy_(axes[:components])
            self.encoder.bias.copy_(-axes[:components] @ images.mean(dim=0))
            self.decoder.weight.copy_(axes[:components].T)
            self.decoder.bias.copy_(images.mean(dim=0))

    def encode(self, images):
        return self.norm(self.dropout(self.encoder(images.flatten(1))))

    def decode(self, code):
        return self.decoder(self.dropout(code)).view(-1, 1, 16, 16)


def in_two_parts(images):
    return images[:, :, :8] * 2, images[:, :, 8:]


def from_two_parts(code):
    upper, lower = code
    return torch.cat([upper / 2, lower], dim=2)


# --- virtual adversarial noise on pixels


def slow_vat(network, draws, level, *, xi=1e-2, iterations=1):
    """The published algorithm for one image after the other, in float64 with plain autograd."""
    net, noisy = network.model, []
    for image, direction in zip(network.pixels, draws, strict=True):
        clean = torch.softmax(net(image[None])[0], dim=0).detach()
        for _ in range(iterations):
            direction = direction / direction.abs().max()
            step = (xi * direction / (direction**2).sum().sqrt()).requires_grad_()
            disturbed = torch.softmax(net((image + step)[None])[0], dim=0)
            (direction,) = torch.autograd.grad((clean * (clean.log() - disturbed.log())).sum(), step)
        direction = direction / direction.abs().max()
        noisy.append((image + level * direction / (direction**2).sum().sqrt()).clip(0, 1).detach())
    return torch.stack(noisy)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize(("severity", "level"), [(1, 0.25), (3, 1.0), (5, 4.0)])
@pytest.mark.parametrize("kind", [VAT, LVAT])
def test_identity_codec_equals_a_vat_reference(kind, severity, level, iterations):
    network = digit_network(4, torch.float64)
    draws = streams(network.pixels).normal((1, 16, 16)).double()
    wanted = slow_vat(network, draws, level, iterations=iterations)
    found = call(kind(iterations=iterations), network, severity)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def test_identity_codec_equals_vat_to_the_last_bit():
    network = digit_network()
    assert torch.equal(call(LVAT(), network), call(VAT(), network))


@pytest.mark.parametrize("kind", [VAT, LVAT])
def test_xi_keeps_the_direction_in_float32(kind):
    found = {}
    for dtype in (torch.float32, torch.float64):
        network = digit_network(16, dtype)
        # Away from 0 and 1, so that clipping does not turn the direction; and from ties of max pooling.
        pixels = 0.25 + 0.5 * network.pixels + 0.02 * streams(network.pixels).uniform((1, 16, 16)).to(dtype)
        network = network_in_pixels(
            network.model, pixels, target_layer=network.target_layer, space=SPACE, classes=network.classes
        )
        for xi in (1e-2, 1e-6):
            member = kind(xi=xi, levels=(0.1,) * 5)
            noisy = member(pixels, severity=1, randomness=streams(digits()[0][:16]), network=network)
            found[dtype, xi] = (noisy - pixels).double().flatten(1)

    def cosine(xi):
        return torch.cosine_similarity(found[torch.float32, xi], found[torch.float64, 1e-2]).abs()

    assert float(cosine(1e-2).min()) > 0.99
    assert float(cosine(1e-6).mean()) < float(cosine(1e-2).mean())


@pytest.mark.parametrize("member", [VAT(), LVAT()])
def test_worst_shift_has_20_times_the_kl_of_random_shifts(member):
    network = digit_network(32)
    worst = kl(network, call(member, network)).mean()
    at_random = []
    for seed in range(20):
        direction = torch.randn(network.pixels.shape, generator=torch.Generator().manual_seed(seed))
        direction = direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        at_random.append(kl(network, (network.pixels + direction).clamp(0, 1)).mean())
    assert worst > 20 * torch.stack(at_random).mean()


@pytest.mark.parametrize("kind", [VAT, partial(LVAT, objective="kl"), partial(LVAT, objective="cam")])
def test_a_flat_network_is_disturbed_at_random(kind):
    network = digit_network(3)
    nn.init.zeros_(network.model[10].weight)
    noisy = call(kind(levels=(0.5,) * 5), network)
    assert noisy.isfinite().all()


# --- shifts of codes


def test_shift_has_the_wanted_length_for_every_sample_and_part():
    network = digit_network()
    coder = Autoencoder()
    for member in (
        LVAT(),
        LVAT(coder.encode, coder.decode),
        LVAT(in_two_parts, from_two_parts),
        LVAT(in_two_parts, from_two_parts, "cam"),
        LVAT(coder.encode, coder.decode, "random"),
    ):
        for severity, level in enumerate((0.25, 0.5, 1.0, 2.0, 4.0), start=1):
            shifts = member.shift(
                network.pixels, severity=severity, randomness=streams(network.pixels), network=network
            )
            assert len(shifts) == 1 + (member.encode is in_two_parts)
            for shift in shifts:
                lengths = shift.double().flatten(1).norm(dim=1)
                torch.testing.assert_close(lengths, torch.full_like(lengths, level), rtol=1e-5, atol=0)


def test_shift_of_a_code_equals_a_slow_loop():
    network = digit_network(4, torch.float64)
    coder = Autoencoder().double().eval()
    draws = streams(network.pixels).normal((24,)).double()
    noisy = call(LVAT(coder.encode, coder.decode), network)
    for index, image in enumerate(network.pixels):
        clean = torch.softmax(network.model(image[None]), dim=1)[0].detach()
        code = coder.encode(image[None]).detach()
        step = (1e-2 * draws[index] / draws[index].norm()).requires_grad_()
        disturbed = torch.softmax(network.model(coder.decode(code + step)), dim=1)[0]
        (direction,) = torch.autograd.grad((clean * (clean.log() - disturbed.log())).sum(), step)
        wanted = coder.decode(code + direction / direction.norm())[0].clip(0, 1).detach()
        torch.testing.assert_close(noisy[index], wanted, rtol=0, atol=1e-8)


def test_worst_shift_of_a_code_beats_random_ones():
    network = digit_network(32)
    coder = Autoencoder()
    worst, at_random = (
        kl(network, call(LVAT(coder.encode, coder.decode, objective), network)).mean() for objective in ("kl", "random")
    )
    assert worst > 2 * at_random


def test_parts_of_a_code_are_searched_and_scaled_on_their_own():
    network = digit_network(3, torch.float64)
    found = LVAT(in_two_parts, from_two_parts).shift(
        network.pixels, severity=3, randomness=streams(network.pixels), network=network
    )
    draws = streams(network.pixels)
    parts = [draws.normal((1, 8, 16)).double() for _ in range(2)]
    for index, image in enumerate(network.pixels):
        clean = torch.softmax(network.model(image[None]), dim=1)[0].detach()
        code = in_two_parts(image[None])
        steps = [(1e-2 * each[index] / each[index].norm()).requires_grad_() for each in parts]
        decoded = from_two_parts([part + step for part, step in zip(code, steps, strict=True)])
        disturbed = torch.softmax(network.model(decoded), dim=1)[0]
        directions = torch.autograd.grad((clean * (clean.log() - disturbed.log())).sum(), steps)
        for shift, direction in zip(found, directions, strict=True):
            torch.testing.assert_close(shift[index], direction / direction.norm(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", [tuple, list])
def test_codes_come_back_in_the_form_they_had(form):
    network = digit_network(2)
    seen = []

    def decode(code):
        seen.append(type(code))
        return from_two_parts(code)

    call(LVAT(lambda images: form(in_two_parts(images)), decode), network)
    assert set(seen) == {form}


@pytest.mark.parametrize("objective", ["kl", "cam", "random"])
def test_epsilon_zero_gives_similarity_one_to_the_reference(objective):
    network = digit_network()
    coder = Autoencoder()
    member = LVAT(coder.encode, coder.decode, objective, levels=(0.0,) * 5)
    noisy, reference = call(member, network), member.reference(network.pixels)
    assert torch.equal(noisy, reference)
    maps = [
        compute_cams(network.model, each, target_layer=network.target_layer)["gradcam"] for each in (noisy, reference)
    ]
    overlap = rank_biased_overlap(maps[0].flatten(1), maps[1].flatten(1))
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-12)
    # The codec loses a lot, which is why the clean image would be the wrong one to compare with.
    assert float((reference - network.pixels).abs().max()) > 0.1


def test_reference_is_the_clipped_reconstruction():
    network = digit_network()
    coder = Autoencoder()
    member = LVAT(coder.encode, coder.decode)
    raw = member.reconstruct(network.pixels)
    torch.testing.assert_close(raw, coder.eval().decode(coder.encode(network.pixels)).detach(), rtol=0, atol=1e-6)
    assert float(raw.min()) < 0
    assert torch.equal(member.reference(network.pixels), raw.clamp(0, 1))
    assert torch.equal(LVAT().reference(network.pixels), network.pixels)


def map_change(network, reference, noisy):
    classes = network.logits(reference).argmax(dim=1)
    before, after = (network.maps(each, classes).flatten(1) for each in (reference, noisy))
    return 1 - torch.cosine_similarity(before, after), network.logits(noisy).argmax(dim=1) == classes


def test_cam_objective_moves_maps_and_keeps_every_class():
    network = digit_network(40)
    coder = Autoencoder()
    reference = LVAT(coder.encode, coder.decode).reference(network.pixels)
    change, kept = map_change(network, reference, call(LVAT(coder.encode, coder.decode, "cam"), network))
    change_of_kl, kept_by_kl = map_change(network, reference, call(LVAT(coder.encode, coder.decode), network, 5))
    at_random, _ = map_change(network, reference, call(LVAT(coder.encode, coder.decode, "random"), network))
    assert kept.all()
    assert not kept_by_kl.all()
    assert change.mean() > 1.5 * at_random.mean()


def test_cam_objective_returns_the_reference_where_both_ways_lose_the_class():
    network = digit_network(40)
    member = LVAT(objective="cam", levels=(60.0,) * 5)
    noisy = call(member, network)
    unmoved = (noisy == member.reference(network.pixels)).flatten(1).all(dim=1)
    assert unmoved.any()
    _, kept = map_change(network, network.pixels, noisy)
    assert kept.all()
    (shift,) = member.shift(network.pixels, severity=3, randomness=streams(network.pixels), network=network)
    ways = [map_change(network, network.pixels, (network.pixels + way * shift).clamp(0, 1))[1] for way in (1, -1)]
    assert torch.equal(unmoved, ~(ways[0] | ways[1]))


@pytest.mark.parametrize("objective", ["kl", "cam", "random"])
def test_model_grads_buffers_and_random_streams_are_untouched(objective):
    network = digit_network(4)
    coder = Autoencoder().train()
    coder.norm.weight = None
    modules = [network.model, coder]
    grads = [torch.ones_like(next(each.parameters())) for each in modules]
    for module, grad in zip(modules, grads, strict=True):
        next(module.parameters()).grad = grad
    before = [pickle.dumps(each.state_dict()) for each in modules]
    dice = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    member = LVAT(coder.encode, coder.decode, objective)
    assert torch.equal(call(member, network), call(member, network))
    member.reference(network.pixels)
    assert [pickle.dumps(each.state_dict()) for each in modules] == before
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == dice
    assert coder.training
    assert coder.dropout.training
    for module, grad in zip(modules, grads, strict=True):
        first, *others = module.parameters()
        assert first.grad is grad
        assert torch.equal(grad, torch.ones_like(grad))
        assert all(each.grad is None and each.requires_grad for each in others)


@pytest.mark.parametrize("member", [VAT(), LVAT(), LVAT(objective="cam"), LVAT(in_two_parts, from_two_parts)], ids=repr)
def test_shift_of_an_image_does_not_depend_on_the_batch(member):
    network = digit_network(5, torch.float64)
    whole = streams(network.pixels)
    together = member(network.pixels, severity=4, randomness=whole, network=network)
    for index in range(5):
        rows = slice(index, index + 1)
        how = {"randomness": whole.of_images(rows), "network": network.of_images(rows)}
        alone = member(network.pixels[rows], severity=4, **how)
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-8)


def test_members_pickle_and_compare():
    for member in (VAT(), LVAT(), LVAT(in_two_parts, from_two_parts, "random")):
        assert pickle.loads(pickle.dumps(member)) == member
        assert hash(pickle.loads(pickle.dumps(member))) == hash(member)
    assert LVAT() != LVAT(in_two_parts, from_two_parts)
    assert "0x" not in repr(LVAT(in_two_parts, from_two_parts))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: VAT(xi=0.0), "`xi` must be above 0"),
        (lambda: VAT(iterations=0), "`iterations` must be 1 or more"),
        (lambda: LVAT(encode=in_two_parts), "belong together, but one is None"),
        (lambda: LVAT(objective="l2"), "`objective` must be 'kl', 'cam' or 'random', got 'l2'"),
        (lambda: LVAT(xi=-1.0), "`xi` must be above 0"),
        (lambda: LVAT(iterations=0), "`iterations` must be 1 or more"),
        (lambda: Codec(in_two_parts, sum).read(torch.rand(2, 1, 16, 16))[1](torch.rand(1), torch.rand(1)), "`decode`"),
        (lambda: Codec(lambda _: 3, sum).read(torch.rand(2, 1, 4, 4)), "`encode` must .* got int"),
        (lambda: Codec(lambda x: (x, x[0, 0, 0]), sum).read(torch.rand(2, 1, 4, 4)), "`encode` must .* tuple of"),
        (lambda: Codec(torch.Tensor.long, sum).read(torch.rand(2, 1, 4, 4)), "int64"),
    ],
)
def test_wrong_settings_are_named(wrong, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        wrong()
