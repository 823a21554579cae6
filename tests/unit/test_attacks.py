"""Attacks: the network in pixels, FGSM, PGD, the attack on maps, and noise on gradients."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from lightning_camrobust import compute_cams, isolation
from lightning_camrobust.ascent import gradients_by, unit_rows
from lightning_camrobust.cams.gradcam import GradCAM
from lightning_camrobust.cams.layercam import LayerCAM
from lightning_camrobust.errors import ArgumentError, LayerNotReachedError, ModelError
from lightning_camrobust.network import network_in_pixels
from lightning_camrobust.overlap import rank_biased_overlap
from lightning_camrobust.perturb.cam_attack import CAMAttack
from lightning_camrobust.perturb.fgsm import FGSM
from lightning_camrobust.perturb.gradient_noise import GradientNoise
from lightning_camrobust.perturb.pgd import PGD
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.randomness import ImageRandomness, image_keys
from lightning_camrobust.trace import trace
from tests.networks import digits, trained

SPACE = PixelSpace((0.4,), (0.3,))
LAYER = 6  # the last ReLU of the digit network, an in-place one


def streams(images, severity=3, seed=0):
    return ImageRandomness(image_keys(images), seed, "attack", severity)


def smooth_net(channels=1):
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 3, stride=2), nn.Softplus(),
        nn.Flatten(), nn.Linear(5 * 9, 3),
    )  # fmt: skip
    return net.eval()


def in_pixels(net, pixels, layer, space=SPACE):
    inputs = (pixels - space.mean[0]) / space.std[0]
    with torch.no_grad():
        classes = net(inputs).argmax(dim=1)
    return network_in_pixels(net, inputs, target_layer=layer, space=space, classes=classes)


def digit_network(count=12, dtype=torch.float32, layer=LAYER):
    net = trained().net.eval().to(dtype)
    return in_pixels(net, digits()[0][:count].to(dtype), net[layer])


# --- the network in pixels


def test_logits_are_those_of_the_inputs_to_the_last_bit():
    network = digit_network()
    wanted = network.model(network.inputs).detach()
    torch.testing.assert_close(network.logits(network.pixels).detach(), wanted, rtol=0, atol=0)


def test_a_change_of_pixels_reaches_the_network_in_input_units():
    network = digit_network()
    noisy = (network.pixels + 0.1 * torch.rand_like(network.pixels)).clamp(0, 1)
    torch.testing.assert_close(network.logits(noisy), network.model((noisy - 0.4) / 0.3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [5, LAYER])  # behind layer 5 an in-place ReLU writes over what it gave out
def test_maps_are_the_packages_gradcam(layer, relu):
    network = digit_network(layer=layer)
    noisy = (network.pixels + 0.2 * torch.rand_like(network.pixels)).clamp(0, 1)
    classes = torch.arange(len(noisy)) % 10
    wanted = compute_cams(
        network.model, (noisy - 0.4) / 0.3, "gradcam", target_layer=network.target_layer, classes=classes
    )["gradcam"]
    found = network.maps(noisy, classes, relu=relu)
    assert not found.requires_grad
    torch.testing.assert_close(found.relu(), wanted, rtol=1e-5, atol=1e-5)
    assert bool((found < 0).any()) is not relu
    assert float(wanted.max()) > 0.01


def test_maps_with_a_graph_are_the_same():
    network = digit_network()
    plain = network.maps(network.pixels, network.classes)
    tracked = network.maps(network.pixels.clone().requires_grad_(), network.classes)
    assert tracked.requires_grad
    torch.testing.assert_close(tracked.detach(), plain, rtol=0, atol=0)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_pixel_gradient_of_maps_equals_finite_differences(layer, relu):
    net = smooth_net().double()
    pixels = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    network = in_pixels(net, pixels, net[layer])
    leaf = pixels.clone().requires_grad_()
    maps = network.maps(leaf, network.classes, relu=relu)
    weights = torch.rand(maps.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((maps * weights).sum(), leaf)
    assert float(gradient.abs().max()) > 1e-6

    def total(image):
        return float((network.maps(image, network.classes, relu=relu) * weights).sum())

    for place in [(0, 0, 3, 4), (1, 0, 0, 0), (0, 0, 7, 2), (1, 0, 5, 5), (1, 0, 2, 6)]:
        step = torch.zeros_like(pixels)
        step[place] = 1e-5
        slope = (total(pixels + step) - total(pixels - step)) / 2e-5
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("layer", [5, LAYER])
def test_pixel_gradient_goes_through_an_in_place_relu(layer):
    network = digit_network(2, torch.float64, layer)
    # Enlarged digits have equal neighbours, where max pooling has no slope of its own.
    pixels = 0.9 * network.pixels + 0.1 * torch.rand_like(network.pixels)
    (gradient,) = gradients_by([pixels], lambda at: network.maps(at, network.classes).flatten(1).sum(dim=1))
    step = torch.zeros_like(pixels)
    place = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
    step[place] = 1e-6
    high, low = (network.maps(pixels + sign * step, network.classes).sum() for sign in (1, -1))
    assert float(gradient[place]) == pytest.approx(float(high - low) / 2e-6, rel=1e-3)


class SharedActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.activation, self.last = nn.Softplus(), nn.Linear(4, 3)

    def forward(self, images):
        hidden = self.activation(self.first(images))
        return self.last(self.activation(self.second(hidden)).mean(dim=(2, 3)))


def test_last_run_of_a_shared_layer_is_explained():
    torch.manual_seed(0)
    net = SharedActivation().eval()
    network = in_pixels(net, torch.rand(3, 1, 8, 8), net.activation)
    wanted = compute_cams(net, network.inputs, target_layer=net.activation)["gradcam"]
    torch.testing.assert_close(network.maps(network.pixels, network.classes), wanted, rtol=1e-5, atol=1e-6)


def test_transformers_are_explained_and_differentiated_twice():
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    ).eval()
    nn.init.normal_(net.heads.head.weight, std=5.0)
    layer = net.encoder.layers.encoder_layer_1.ln_1
    network = in_pixels(net.double(), torch.rand(2, 3, 32, 32, dtype=torch.float64), layer)
    wanted = compute_cams(net, network.inputs, target_layer=layer)["gradcam"]
    found = network.maps(network.pixels, network.classes)
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    moved = CAMAttack(steps=2)(network.pixels, severity=3, randomness=streams(network.pixels), network=network)
    assert moved.isfinite().all()


def test_part_of_a_batch():
    network = digit_network(6)
    part = network.of_images(slice(2, 5))
    assert torch.equal(part.classes, network.classes[2:5])
    whole = network.maps(network.pixels, network.classes)
    torch.testing.assert_close(part.maps(part.pixels, part.classes), whole[2:5], rtol=1e-5, atol=1e-6)
    noisy = 1 - network.pixels
    torch.testing.assert_close(part.logits(noisy[2:5]), network.logits(noisy)[2:5], rtol=1e-5, atol=1e-5)


def test_maps_run_under_the_autocast_of_the_caller():
    net = trained().net.eval()
    pixels = digits()[0][:2]
    with torch.autocast("cpu", torch.bfloat16):
        network = in_pixels(net, pixels, net[LAYER])
        wanted = compute_cams(net, network.inputs, target_layer=net[LAYER])["gradcam"]
    found = network.maps(pixels, network.classes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)
    full = in_pixels(net, pixels, net[LAYER])
    assert not torch.equal(found, full.maps(pixels, full.classes))


def test_half_precision_networks_can_be_attacked():
    net = smooth_net().to(torch.bfloat16)
    inputs = torch.rand(2, 1, 8, 8, dtype=torch.bfloat16)
    classes = net(inputs).argmax(dim=1)
    network = network_in_pixels(net, inputs, target_layer=net[0], space=PixelSpace((0.0,), (1.0,)), classes=classes)
    for attack in (FGSM(), CAMAttack(steps=2)):
        noisy = attack(network.pixels, severity=5, randomness=streams(network.pixels), network=network)
        assert noisy.dtype == torch.float32
        assert (noisy != network.pixels).any()


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=2), PGD("l2", steps=2), CAMAttack(steps=2)], ids=repr)
def test_network_stays_as_it_is(attack):
    network = digit_network(4)
    frozen = network.model[0].weight.requires_grad_(False)
    marked = torch.ones_like(network.model[4].weight)
    network.model[4].weight.grad = marked
    before = pickle.dumps(network.model.state_dict())
    torch.manual_seed(5)
    stream = torch.get_rng_state()
    attack(network.pixels, severity=3, randomness=streams(network.pixels), network=network)
    assert pickle.dumps(network.model.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), stream)
    assert network.model[4].weight.grad is marked
    assert torch.equal(marked, torch.ones_like(marked))
    assert [name for name, each in network.model.named_parameters() if each.grad is not None] == ["4.weight"]
    assert [name for name, each in network.model.named_parameters() if not each.requires_grad] == ["0.weight"]
    assert not frozen.requires_grad
    assert all(not module._forward_hooks for module in network.model.modules())


def test_network_stays_as_it_is_after_a_failure():
    network = digit_network(2)
    broken = dataclasses.replace(network, target_layer=network.model[0])
    network.model.append(nn.Flatten(0))  # no logits any more
    with pytest.raises(ModelError):
        broken.maps(broken.pixels, broken.classes)
    assert all(not module._forward_hooks for module in network.model.modules())
    assert all(each.requires_grad for each in network.model.parameters())


def test_attacks_run_within_observe_only():
    network = digit_network(3)
    with isolation.observe_only(network.model):
        inside = FGSM()(network.pixels, severity=3, randomness=streams(network.pixels), network=network)
    outside = FGSM()(network.pixels, severity=3, randomness=streams(network.pixels), network=network)
    assert torch.equal(inside, outside)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = smooth_net()

    def forward(self, images):
        return self.net(images.detach())


def test_errors_of_the_network():
    network = digit_network(4)
    with pytest.raises(ArgumentError, match=r"one copy of each image, \(4, 1, 16, 16\), got \(2, 1"):
        network.logits(network.pixels[:2])
    with pytest.raises(ArgumentError, match=r"must be \(4,\) integers"):
        network_in_pixels(
            network.model, network.inputs, target_layer=network.target_layer, space=SPACE, classes=torch.tensor([1])
        )
    pooled = dataclasses.replace(network, target_layer=network.model[8])
    with pytest.raises(ModelError, match="Flatten.*has no cells"):
        pooled.maps(network.pixels, network.classes)
    cut = in_pixels(Detached(), torch.rand(2, 1, 8, 8), nn.ReLU())
    with pytest.raises(LayerNotReachedError, match="No gradient gets"):
        FGSM()(cut.pixels, severity=1, randomness=streams(cut.pixels), network=cut)
    with pytest.raises(ModelError, match="did not run"):
        cut.maps(cut.pixels, cut.classes)


def test_gradients_that_are_no_numbers_count_as_zero():
    def loss(point):
        return point[:, 0].sqrt() + point[:, 1]

    (gradient,) = gradients_by([torch.tensor([[0.0, 1.0], [4.0, 1.0]])], loss)
    assert gradient.tolist() == [[0.0, 1.0], [0.25, 1.0]]


def test_unit_rows_have_length_one_however_small():
    vectors = torch.randn(3, 2, 5) * torch.tensor([1e-30, 1.0, 1e30])[:, None, None]
    lengths = unit_rows(vectors).double().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)
    vectors[1] = 0
    instead = torch.rand(3, 2, 5)
    filled = unit_rows(vectors, otherwise=instead)
    assert torch.equal(filled[1], instead[1])
    assert not torch.equal(filled[0], instead[0])


# --- FGSM and PGD


def slow_gradient(network, image, index):
    """Gradient of minus the log-probability of one image's class, with nothing but autograd."""
    leaf = image.clone().requires_grad_()
    row = network.model((leaf[None] - 0.4) / 0.3)[0]
    loss = torch.log(torch.exp(row).sum()) - row[network.classes[index]]
    loss.backward()
    network.model.zero_grad(set_to_none=True)
    return leaf.grad


@pytest.mark.parametrize("severity", [1, 4])
def test_fgsm_equals_a_slow_loop(severity):
    network = digit_network(6, torch.float64)
    noisy = FGSM()(network.pixels, severity=severity, randomness=None, network=network)
    level = {1: 1, 4: 8}[severity] / 255
    for index, image in enumerate(network.pixels):
        wanted = torch.clip(image + level * torch.sign(slow_gradient(network, image, index)), 0, 1)
        torch.testing.assert_close(noisy[index], wanted, rtol=0, atol=1e-12)


def test_fgsm_raises_the_loss_and_level_zero_is_the_image():
    network = digit_network()
    noisy = FGSM()(network.pixels, severity=5, randomness=None, network=network)

    def loss(pixels):
        return nn.functional.cross_entropy(network.logits(pixels), network.classes, reduction="none")

    assert (loss(noisy) > loss(network.pixels)).all()
    still = FGSM(levels=(0.0,) * 5)(network.pixels, severity=1, randomness=None, network=network)
    assert torch.equal(still, network.pixels)


def slow_pgd(network, index, start, level, *, norm, steps, step):
    image, noisy = network.pixels[index].numpy(), start.numpy()
    for _ in range(steps):
        gradient = slow_gradient(network, torch.from_numpy(noisy), index).numpy()
        direction = np.sign(gradient) if norm == "linf" else gradient / math.sqrt((gradient**2).sum())
        noisy = np.clip(noisy + step * direction, 0, 1)
        change = noisy - image
        if norm == "linf":
            change = np.minimum(np.maximum(change, -level), level)
        elif math.sqrt((change**2).sum()) > level:
            change = change * level / math.sqrt((change**2).sum())
        noisy = image + change
    return torch.from_numpy(noisy)


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize(("norm", "level"), [("linf", 8 / 255), ("l2", 2.0)])
def test_pgd_equals_a_slow_loop(norm, level, random_start):
    network = digit_network(5, torch.float64)
    attack = PGD(norm, steps=4, step_size=0.3 * level, random_start=random_start)
    noisy = attack(network.pixels, severity=4, randomness=streams(network.pixels), network=network)
    starts = network.pixels
    if random_start:
        draws = streams(network.pixels)
        if norm == "linf":
            starts = starts + level * (2 * draws.uniform((1, 16, 16)).double() - 1)
        else:
            normal = draws.normal((1, 16, 16)).double()
            radius = draws.uniform((1, 1, 1)).double() ** (1 / 256)
            starts = starts + level * radius * normal / normal.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    for index in range(5):
        start = starts[index].clip(0, 1)
        wanted = slow_pgd(network, index, start, level, norm=norm, steps=4, step=0.3 * level)
        torch.testing.assert_close(noisy[index], wanted, rtol=0, atol=1e-9)


def test_default_step_is_two_and_a_half_levels_over_the_steps():
    network = digit_network(3)
    how = {"severity": 3, "network": network}
    default = PGD(steps=5)(network.pixels, randomness=streams(network.pixels), **how)
    explicit = PGD(steps=5, step_size=2.5 * (4 / 255) / 5)(network.pixels, randomness=streams(network.pixels), **how)
    assert torch.equal(default, explicit)


def test_l2_projection_ends_on_the_ball_and_in_the_cube():
    network = digit_network()
    for severity, level in enumerate((0.25, 0.5, 1.0, 2.0, 4.0), start=1):
        noisy = PGD("l2")(network.pixels, severity=severity, randomness=streams(network.pixels), network=network)
        lengths = (noisy - network.pixels).double().flatten(1).norm(dim=1)
        assert float(lengths.max()) <= level * (1 + 1e-5)
        assert float(lengths.min()) > 0.5 * level  # clipping takes a part away
        assert float(noisy.min()) >= 0
        assert float(noisy.max()) <= 1


def test_linf_steps_stay_in_the_box_and_beat_a_single_step():
    network = digit_network(40)
    noisy = PGD()(network.pixels, severity=5, randomness=streams(network.pixels), network=network)
    assert float((noisy - network.pixels).abs().max()) <= 16 / 255 + 1e-6
    single = FGSM()(network.pixels, severity=5, randomness=None, network=network)

    def loss(pixels):
        return nn.functional.cross_entropy(network.logits(pixels), network.classes)

    assert loss(noisy) > loss(single) > loss(network.pixels)


def test_random_start_fills_the_l2_ball_evenly():
    images = torch.rand(4000, 1, 1, 2)
    start = PGD("l2")._start(images, 2.0, streams(images)).flatten(1)
    lengths = start.norm(dim=1) / 2
    assert float(lengths.max()) <= 1
    assert float((lengths < 0.5).float().mean()) == pytest.approx(0.25, abs=0.02)  # share of the area, in the plane
    assert start.mean(dim=0).abs().max() < 0.06


ATTACKS = [FGSM(), PGD(), PGD("l2"), CAMAttack(steps=5), CAMAttack("topk", steps=5)]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_attack_on_an_image_does_not_depend_on_the_batch(attack):
    network = digit_network(5, torch.float64)
    whole = streams(network.pixels)
    together = attack(network.pixels, severity=4, randomness=whole, network=network)
    for index in range(5):
        rows = slice(index, index + 1)
        alone = attack(
            network.pixels[rows], severity=4, randomness=whole.of_images(rows), network=network.of_images(rows)
        )
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_attacks_leave_the_images_alone_and_come_back_the_same(attack):
    network = digit_network(3)
    assert attack == pickle.loads(pickle.dumps(attack))
    assert len({attack, pickle.loads(pickle.dumps(attack))}) == 1
    before = network.pixels.clone()
    first, second = (
        attack(network.pixels, severity=5, randomness=streams(network.pixels), network=network) for _ in range(2)
    )
    assert torch.equal(network.pixels, before)
    assert torch.equal(first, second)
    assert first.data_ptr() != network.pixels.data_ptr()
    assert (first != before).any()
    assert not first.requires_grad


# --- the attack on maps


def top_overlap(clean, noisy, share=0.2):
    count = round(share * clean[0].numel())
    tops = [each.flatten(1).topk(count, dim=1).indices.tolist() for each in (clean, noisy)]
    return np.mean([len(set(a) & set(b)) / count for a, b in zip(*tops, strict=True)])


def sure_network(count):
    """As :func:`digit_network`, but trained on: how sure it is after a short training depends on torch's version."""
    net = trained().net.train()
    images, labels = digits()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for start in range(0, 1024, 32):
        optimiser.zero_grad()
        inputs = (images[start : start + 32] - 0.4) / 0.3
        nn.functional.cross_entropy(net(inputs), labels[start : start + 32]).backward()
        optimiser.step()
    net.zero_grad()
    return in_pixels(net.eval(), digits()[0][:count], net[LAYER])


@pytest.fixture(scope="module")
def attacked():
    network = sure_network(40)
    clean = compute_cams(network.model, network.inputs, target_layer=network.target_layer)["gradcam"]
    return network, clean


def explained(network, pixels):
    inputs = (pixels - 0.4) / 0.3
    cams = compute_cams(network.model, inputs, target_layer=network.target_layer, classes=network.classes)["gradcam"]
    return cams, network.model(inputs).argmax(dim=1)


@pytest.mark.parametrize(("loss", "patiences"), [("cosine", (0.2, 0.9)), ("topk", (0.9,))])
@pytest.mark.parametrize(("severity", "level"), [(3, 4 / 255), (5, 16 / 255)])
def test_map_attack_moves_maps_more_than_noise_of_its_size_and_keeps_every_class(
    attacked, severity, level, loss, patiences
):
    network, clean = attacked
    draws = streams(network.pixels, severity)
    noisy = CAMAttack(loss)(network.pixels, severity=severity, randomness=draws, network=network)
    maps, classes = explained(network, noisy)
    assert torch.equal(classes, network.classes)
    assert float((noisy - network.pixels).abs().max()) <= level + 1e-6
    assert float((noisy != network.pixels).flatten(1).any(dim=1).float().mean()) > 0.9
    signs = (streams(network.pixels, seed=9).uniform((1, 16, 16)) < 0.5) * 2 - 1
    random_maps, _ = explained(network, (network.pixels + level * signs).clamp(0, 1))
    assert 1 - top_overlap(clean, maps) > 2 * (1 - top_overlap(clean, random_maps))
    for p in patiences:
        lost, lost_to_noise = (
            1 - float(rank_biased_overlap(clean.flatten(1), each.flatten(1), p).mean()) for each in (maps, random_maps)
        )
        assert lost > 1.5 * lost_to_noise


def test_classes_would_be_lost_without_care(attacked):
    network, _ = attacked
    change = CAMAttack("topk")
    clean = network.maps(network.pixels, network.classes)
    noisy = network.pixels
    for _ in range(20):
        (gradient,) = gradients_by([noisy], lambda at: change.change(clean, network.maps(at, network.classes)))
        noisy = (noisy + 2 / 255 * gradient.sign() - network.pixels).clamp(-16 / 255, 16 / 255) + network.pixels
        noisy = noisy.clamp(0, 1)
    assert (network.logits(noisy).argmax(dim=1) != network.classes).any()


@pytest.mark.parametrize("loss", ["cosine", "topk"])
def test_strongest_iterate_is_returned(attacked, loss, monkeypatch):
    network, _ = attacked
    attack, seen = CAMAttack(loss, steps=4), []
    change = CAMAttack.change

    def recorded(self, clean, maps):
        seen.append(change(self, clean, maps).detach())
        return change(self, clean, maps)

    def downhill_at_last(points, losses):
        (gradient,) = gradients_by(points, losses)
        return [gradient if len(seen) < 4 else -gradient]

    with monkeypatch.context() as patched:
        patched.setattr(CAMAttack, "change", recorded)
        patched.setattr("lightning_camrobust.perturb.cam_attack.gradients_by", downhill_at_last)
        noisy = attack(network.pixels, severity=1, randomness=streams(network.pixels), network=network)
    assert len(seen) == 1 + 1 + 4  # the clean image, the start, and what each step led to
    clean = network.maps(network.pixels, network.classes)
    found = attack.change(clean, network.maps(noisy, network.classes))
    strongest = torch.stack(seen).amax(dim=0)
    # An image may lose its class on the way, and what it lost it with is not returned.
    assert (found <= strongest + 1e-6).all()
    assert float((found > strongest - 1e-6).double().mean()) >= 0.9
    assert float((strongest > seen[-1] + 1e-5).double().mean()) >= 0.9


def test_a_lost_class_is_won_back(attacked):
    network, _ = attacked
    second = network.logits(network.pixels).topk(2, dim=1).indices[:, 1]
    network = dataclasses.replace(network, classes=second)  # as if all images began on the wrong side
    noisy = CAMAttack()(network.pixels, severity=5, randomness=streams(network.pixels), network=network)
    found = (noisy != network.pixels).flatten(1).any(dim=1)
    assert float(found.float().mean()) > 0.5
    assert (network.logits(noisy).argmax(dim=1) == second)[found].all()


@pytest.mark.parametrize("loss", ["cosine", "topk"])
def test_a_map_that_dies_is_not_taken_for_one_that_moved(loss):
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2)).eval()
    for parameter, values in zip(net.parameters(), [[[[[1.0]]]], [-0.01], [[1.0], [-1.0]], [1.0, 0.0]], strict=True):
        nn.init.zeros_(parameter).data.add_(torch.tensor(values))
    pixels = 0.02 + torch.rand(40, 1, 1, 1) / 1000
    network = in_pixels(net, pixels, net[1], PixelSpace((0.0,), (1.0,)))
    starts = streams(torch.linspace(0, 1, 40).view(40, 1, 1, 1))  # these images look alike and would start alike
    noisy = CAMAttack(loss, steps=2)(pixels, severity=5, randomness=starts, network=network)
    assert (network.maps(torch.zeros_like(pixels), network.classes) == 0).all()  # within reach
    assert (network.maps(noisy, network.classes) > 0).all()


def test_images_without_a_qualifying_iterate_come_back_unchanged():
    network = digit_network(4)
    lost = dataclasses.replace(network, classes=network.logits(network.pixels).argmin(dim=1))
    noisy = CAMAttack(steps=3)(network.pixels, severity=1, randomness=streams(network.pixels), network=lost)
    assert torch.equal(noisy, network.pixels)
    dead = digit_network(2)
    nn.init.zeros_(dead.model[10].weight)
    noisy = CAMAttack(steps=3)(dead.pixels, severity=5, randomness=streams(dead.pixels), network=dead)
    assert torch.equal(noisy, dead.pixels)


def test_change_of_a_map_by_hand():
    clean = torch.tensor([[[4.0, 3.0, 0.0], [1.0, 0.0, 0.0]]])
    noisy = torch.tensor([[[1.0, 4.0, 0.0], [2.0, 8.0, 0.0]]])
    assert CAMAttack("topk", top_share=0.34).change(clean, noisy).item() == pytest.approx(-(1 + 4) / 15)
    cosine = (4 * 1 + 3 * 4 + 1 * 2) / math.sqrt(26 * 85)
    assert CAMAttack("cosine").change(clean, noisy).item() == pytest.approx(1 - cosine)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: PGD("l1"), "`norm` must be 'linf' or 'l2', got 'l1'"),
        (lambda: PGD(steps=0), "`steps` must be 1 or more .a whole number., got 0"),
        (lambda: PGD(step_size=0.0), "`step_size` must be above 0"),
        (lambda: CAMAttack("iou"), "`loss` must be 'cosine' or 'topk'"),
        (lambda: CAMAttack(top_share=0.0), "`top_share` must be above 0"),
        (lambda: CAMAttack(steps=0), "`steps` must be 1 or more"),
    ],
)
def test_wrong_settings_are_named(wrong, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        wrong()


# --- noise on gradients


def digit_trace(count=4):
    network = digit_network(count)
    return trace(network.model, network.inputs, target_layer=network.target_layer), network.pixels


@pytest.mark.parametrize(("severity", "level"), [(1, 0.1), (3, 0.5), (5, 2.0)])
def test_gradient_noise_equals_its_formula(severity, level):
    clean, pixels = digit_trace()
    before = clean.gradient.clone()
    noisy = GradientNoise().disturb_trace(clean, severity=severity, randomness=streams(pixels, severity))
    normal = streams(pixels, severity).normal(tuple(before.shape[1:])).numpy()
    for index in range(4):
        own = before[index].numpy()
        wanted = own + level * own.std() * normal[index]
        np.testing.assert_allclose(noisy.gradient[index].numpy(), wanted, rtol=1e-5, atol=1e-8)
    assert noisy.clean_gradient is clean.gradient
    assert torch.equal(clean.gradient, before)
    assert clean.clean_gradient is None
    assert noisy.activation is clean.activation


def test_gradient_noise_moves_maps_of_gradients_and_no_pixel():
    clean, pixels = digit_trace()
    noise = GradientNoise()
    assert torch.equal(noise(pixels, severity=5, randomness=streams(pixels)), pixels)
    assert noise(pixels, severity=5, randomness=streams(pixels)).data_ptr() != pixels.data_ptr()
    for method in (GradCAM(), LayerCAM()):
        moved = [
            float((method(noise.disturb_trace(clean, severity=each, randomness=streams(pixels))) - method(clean))
                  .norm() / method(clean).norm())
            for each in (1, 3, 5)
        ]  # fmt: skip
        assert 0 < moved[0] < moved[1] < moved[2]
    with pytest.raises(ArgumentError, match="severity"):
        noise(pixels, severity=6, randomness=None)
