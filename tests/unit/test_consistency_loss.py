"""The training regulariser: its number by an independent formula, its gradients by finite differences."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lightning_camrobust import CAMConsistencyLoss
from lightning_camrobust.cams.cfcam import CFCAM
from lightning_camrobust.errors import ArgumentError, LayerNotReachedError, ModelError, UnknownNameError
from lightning_camrobust.members import member_names
from lightning_camrobust.soft_agreement import (
    cosine_agreement,
    find_degenerate,
    mean_disagreement,
    pearson_agreement,
)
from lightning_camrobust.training_members import differentiable_method
from tests.networks import digits, small_cnn, trained

METHODS = ("gradcam", "hirescam", "layercam", "xgradcam", "gradcam_plusplus", "gradcam_elementwise", "cfcam")
# Settings of theirs that take other ways through the code.
VARIANTS = (CFCAM(paper_code=True), CFCAM(weighting="softmax"))


class Tilt:
    """A disturbance without chance: darker on one side."""

    def __init__(self, strength=0.6):
        self.strength = strength

    def __call__(self, images, *, severity, randomness):
        return images * torch.linspace(1, 1 - self.strength, images.shape[-1], dtype=images.dtype)


class Inverted:
    """A disturbance that changes every prediction of `bright_or_dark`."""

    def __call__(self, images, *, severity, randomness):
        return 1 - images


class Untouched:
    def __call__(self, images, *, severity, randomness):
        return images.clone()


def tiny(dtype=torch.float32, *, inplace=False):
    """Convolution, bend, pooling, linear layer: its Grad-CAM can be written down."""
    relu = nn.ReLU(inplace=inplace)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).to(dtype)  # fmt: skip


def smooth(channels=2):
    """No kink between layer and logits, and a head whose second derivative is not zero."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(16 * channels, 4), nn.Tanh(),
        nn.Linear(4, 3),
    ).double()  # fmt: skip


class BrightOrDark(nn.Module):
    """Two classes by brightness, so that inverting an image surely changes the prediction."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        self.features.weight.data, self.features.bias.data = (
            torch.tensor([1.0, -1.0]).view(2, 1, 1, 1),
            torch.tensor([0, 1.0]),
        )

    def forward(self, images):
        return self.features(images).mean(dim=(2, 3))


def loss_of(net, perturbation=None, **settings):
    settings = {"mean": 0.0, "std": 1.0, "target_layer": "0", **settings}
    return CAMConsistencyLoss(perturbation=Tilt() if perturbation is None else perturbation, **settings)


def number(step):
    return float(step.disagreement.detach())


def grads(net):
    return [None if each.grad is None else each.grad.clone() for each in net.parameters()]


def grads_of(net, value):
    return torch.autograd.grad(value, [each for each in net.parameters() if each.requires_grad], allow_unused=True)


@pytest.fixture
def images():
    return digits()[0][:6]


def gradcam_by_hand(net, images, classes):
    convolution, linear = net[0], net[4]
    with torch.no_grad():
        features = convolution(images).numpy().astype(np.float64)
    weights = linear.weight.detach().numpy().astype(np.float64)
    height, width = features.shape[2:]
    maps = []
    for image, wanted in zip(features, classes, strict=True):
        slopes = weights[wanted][:, None, None] * (image > 0) / (height * width)  # of the logit by the convolution
        maps.append(np.maximum((slopes.mean(axis=(1, 2))[:, None, None] * image).sum(axis=0), 0))
    return np.stack(maps)


@pytest.mark.parametrize("agreement", ["pearson", "cosine"])
@pytest.mark.parametrize("classes", [None, torch.tensor([0, 1, 2, 0, 1, 2])])
def test_number_by_hand(images, agreement, classes):
    net = tiny()
    step = loss_of(net, agreement=agreement)(net, images, classes)
    noisy = Tilt()(images, severity=3, randomness=None)
    with torch.no_grad():
        first, second = net(images), net(noisy)
    assert torch.equal(step.logits, first)
    torch.testing.assert_close(step.noisy_logits, second)
    explained = first.argmax(dim=1) if classes is None else classes
    clean, disturbed = (gradcam_by_hand(net, each, explained.tolist()) for each in (images, noisy))
    expected = []
    for one, other, kept in zip(clean, disturbed, first.argmax(1) == second.argmax(1), strict=True):
        if kept and one.std() > 0 and other.std() > 0:
            a, b = one.ravel(), other.ravel()
            cosine = (a @ b) / np.sqrt((a @ a) * (b @ b))
            expected.append(1 - (np.corrcoef(a, b)[0, 1] if agreement == "pearson" else cosine))
    assert len(expected) > 1
    assert number(step) == pytest.approx(np.mean(expected), abs=1e-5)
    assert number(step) > 0.001


@pytest.mark.parametrize("channels", [2, 8])
@pytest.mark.parametrize("agreement", ["pearson", "cosine"])
@pytest.mark.parametrize("method", [*METHODS, *VARIANTS], ids=str)
def test_gradients_by_finite_differences(method, agreement, channels):
    torch.manual_seed(3)
    net, images = smooth(channels), torch.rand(3, 1, 4, 4, dtype=torch.float64)
    agree = loss_of(net, method=method, agreement=agreement, pairs="all").eval()
    names = [name for name, _ in net.named_parameters()]

    def value(*parameters):
        # Whole network in the place of a few parameters: what `functional_call` swaps in gets the derivatives.
        swapped = _Swapped(net, dict(zip(names, parameters, strict=True)))
        agree._asked_layer = (net[1],)
        return agree(swapped, images, torch.tensor([0, 1, 2])).disagreement

    given = [each.detach().clone().requires_grad_() for each in net.parameters()]
    assert float(value(*given).detach()) > 1e-4
    assert torch.autograd.gradcheck(value, given, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_every_accepted_method_trains(images, channels):
    accepted = []
    for name in member_names("cams"):
        try:
            differentiable_method(name)
        except ArgumentError:
            continue
        accepted.append(name)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196 * channels, 3))
        classes = torch.tensor([0, 1, 2, 0, 1, 2])
        loss_of(net, method=name, target_layer="1", pairs="all")(net, images, classes).disagreement.backward()
        assert 0 < net[0].weight.grad.abs().sum() < torch.inf, name
    assert set(accepted) >= {*METHODS, "randomcam"}


class _Swapped(nn.Module):
    def __init__(self, net, parameters):
        super().__init__()
        self.net, self.swapped = net, parameters

    def forward(self, images):
        return torch.func.functional_call(self.net, self.swapped, (images,))


@pytest.mark.parametrize("width", [None, 1, 3])
def test_logits_are_the_networks_own(images, width):
    """One number an image stays one number, or a loss on it would broadcast to something else."""
    net = tiny()
    net[4] = nn.Linear(4, width or 1)
    if width is None:
        net.append(nn.Flatten(0))
    step = loss_of(net, pairs="all")(net, images)
    assert torch.equal(step.logits, net(images))
    assert step.logits.shape == step.noisy_logits.shape == ((6, width) if width else (6,))
    positive = (net(images) > 0).flatten() if width != 3 else None
    if positive is not None:
        assert torch.equal(step.same_class, positive == (step.noisy_logits > 0).flatten())
    (step.logits.square().mean() + step.disagreement).backward()


def test_equal_copies_agree(images):
    net = tiny()
    step = loss_of(net, Untouched())(net, images)
    assert step.same_class.all()
    assert abs(number(step)) < 1e-6


def test_pairs_with_another_prediction_do_not_count():
    net, images = BrightOrDark(), torch.rand(4, 1, 4, 4)
    kept = loss_of(net, Inverted(), target_layer="features")(net, images)
    every = loss_of(net, Inverted(), target_layer="features", pairs="all", agreement="cosine")(net, images)
    assert not kept.same_class.any()
    assert number(kept) == 0
    assert kept.agreement.isnan().all()
    assert number(every) > 0


def test_nothing_left_is_an_exact_zero_with_gradients_of_zero(images):
    net = tiny()
    net[4].weight.data.abs_().neg_()  # every map is negative throughout, and empty after the ReLU
    net[0].weight.data.abs_()
    step = loss_of(net)(net, images)
    assert step.degenerate.all()
    assert number(step) == 0
    step.disagreement.backward()
    assert all((each.grad == 0).all() for each in net.parameters() if each.grad is not None)


def test_one_empty_map_leaves_the_others_alone(images):
    net = tiny()
    blank = torch.cat([images[:3], torch.zeros_like(images[:1])])
    net[0].bias.data.zero_()
    whole, part = loss_of(net)(net, blank), loss_of(net)(net, images[:3])
    assert whole.degenerate.tolist()[-1]
    assert number(whole) == pytest.approx(number(part), abs=1e-7)
    for one, other in zip(grads_of(net, whole.disagreement), grads_of(net, part.disagreement), strict=True):
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rule", ["running", "batch"])
def test_training_forward_and_running_statistics_are_those_of_plain_training(rule):
    images, labels = digits()[0][:16], digits()[1][:16]
    plain, watched = small_cnn(), None
    watched = copy.deepcopy(plain)
    torch.manual_seed(5)
    cross_entropy(plain(images), labels).backward()
    torch.manual_seed(5)
    step = CAMConsistencyLoss(mean=0.0, std=1.0, target_layer="4", batch_norm=rule)(watched, images)
    (cross_entropy(step.logits, labels) + 0.0 * step.disagreement).backward()
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-7)
    assert all(each.training for each in watched.modules())


def test_rules_of_batch_norm_differ():
    images = digits()[0][:16]
    found = {}
    for rule in ("running", "batch", "learn"):
        net = trained().net.train()
        net[9].p = 0.0
        step = CAMConsistencyLoss(mean=0.0, std=1.0, target_layer="4", batch_norm=rule)(net, images)
        found[rule] = number(step), net[1].running_mean.clone()
    assert found["running"][0] != found["batch"][0]
    assert found["batch"][0] == found["learn"][0]
    assert torch.equal(found["running"][1], found["batch"][1])
    assert not torch.equal(found["batch"][1], found["learn"][1])


def test_running_rule_normalises_as_a_test_does():
    images = digits()[0][:16]
    net = trained().net.train()
    net[9].p = 0.0
    step = CAMConsistencyLoss(perturbation=Untouched(), mean=0.0, std=1.0, target_layer="4", batch_norm="running")(
        net, images
    )
    torch.testing.assert_close(step.noisy_logits, net.eval()(images))


def test_batch_norm_is_put_back_after_an_error():
    class Stumbles(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.calls = nn.BatchNorm2d(1), 0

        def forward(self, images):
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError("in the pass of noisy copies")
            return self.norm(images).mean(dim=(2, 3)).repeat(1, 2)

    for rule in ("running", "batch"):
        net = Stumbles()
        kept = net.norm.running_mean
        with pytest.raises(ZeroDivisionError):
            loss_of(net, target_layer="norm", batch_norm=rule)(net, torch.rand(2, 1, 4, 4))
        assert net.norm.training
        assert net.norm.running_mean is kept
        assert not net.norm._forward_hooks


def test_gradients_of_parameters_are_left_to_backward(images):
    net = tiny()
    cross_entropy(net(images), torch.zeros(6, dtype=torch.long)).backward()
    before = grads(net)
    agree = loss_of(net)
    step = agree(net, images)
    assert all(torch.equal(one, other) for one, other in zip(before, grads(net), strict=True))
    assert not any(each._forward_hooks for each in net.modules())
    step.disagreement.backward()
    assert any(not torch.equal(one, other) for one, other in zip(before, grads(net), strict=True))


def test_accumulated_gradients_add_up(images):
    net = tiny()
    agree = loss_of(net)
    parts = [agree(net, part).disagreement for part in (images[:3], images[3:])]
    apart = [grads_of(net, part) for part in parts]
    net.zero_grad()
    for part in (images[:3], images[3:]):
        agree(net, part).disagreement.backward()
    for each, one, other in zip(net.parameters(), *apart, strict=True):
        if each.grad is not None and one is not None:
            torch.testing.assert_close(each.grad, one + other)


def test_in_place_steps_behind_the_layer_change_nothing(images):
    found = []
    for inplace in (False, True):
        torch.manual_seed(2)
        net = tiny(inplace=inplace)
        step = loss_of(net)(net, images)
        found.append([step.disagreement, *grads_of(net, step.disagreement)])
    for one, other in zip(*found, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_frozen_backbone_and_frozen_head(images):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(784, 8), nn.Tanh(), nn.Linear(8, 3))
    net[0].requires_grad_(False)
    loss_of(net, pairs="all")(net, images).disagreement.backward()
    assert net[0].weight.grad is None
    assert net[2].weight.grad.abs().sum() > 0
    net = tiny()
    net[4].requires_grad_(False)
    loss_of(net, pairs="all")(net, images).disagreement.backward()
    assert net[0].weight.grad.abs().sum() > 0


class Checkpointed(nn.Module):
    def __init__(self, *, active):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
        self.head, self.active = nn.Linear(4, 3), active

    def forward(self, images):
        features = checkpoint(self.body, images, use_reentrant=False) if self.active else self.body(images)
        return self.head(features.tanh().mean(dim=(2, 3)))


@pytest.mark.parametrize("layer", ["body.0", "body.2", "body"])
def test_activation_checkpointing_changes_nothing(images, layer):
    found = []
    for active in (False, True):
        torch.manual_seed(2)
        net = Checkpointed(active=active)
        step = loss_of(net, target_layer=layer, pairs="all")(net, images)
        step.disagreement.backward()
        found.append([step.disagreement.detach(), *grads(net)])
    for one, other in zip(*found, strict=True):
        assert one is other is None or torch.allclose(one, other, atol=1e-7)


class CheckpointedNorm(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.last, self.head, self.reentrant = nn.Conv2d(4, 4, 3), nn.Linear(4, 3), reentrant

    def forward(self, images):
        if self.reentrant is None:
            features = self.body(images)
        else:
            features = checkpoint(self.body, images.clone().requires_grad_(), use_reentrant=self.reentrant)
        return self.head(self.last(features).mean(dim=(2, 3)))


@pytest.mark.parametrize("rule", ["batch", "learn"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_batch_norm(images, reentrant, rule):
    found = []
    for how in (None, reentrant):
        torch.manual_seed(2)
        net = CheckpointedNorm(reentrant=how)
        loss_of(net, target_layer="last", pairs="all", batch_norm=rule)(net, images).disagreement.backward()
        found.append(grads(net))
    assert all(one is other is None or torch.allclose(one, other, atol=1e-7) for one, other in zip(*found, strict=True))
    with pytest.raises(ModelError, match="BatchNorm2d runs inside activation checkpointing.*batch_norm='batch'"):
        loss_of(net, target_layer="last", batch_norm="running")(net, images)
    assert net.body[1].training
    assert not net.body[1]._forward_pre_hooks


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="before torch 2.6 compiled networks are refused")
def test_compiled_network_gives_the_same(images):
    net = tiny()
    compiled = torch.compile(net, backend="eager")
    compiled(images)
    plain, step = loss_of(net)(net, images), loss_of(net, target_layer=net[0])(compiled, images)
    assert torch.equal(plain.disagreement, step.disagreement)
    step.disagreement.backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_autocast_to_bfloat16_stays_near(images):
    net = trained().net.train()
    net[9].p = 0.0
    agree = loss_of(net, target_layer="4").eval()
    exact = agree(net, images)
    with torch.autocast("cpu", torch.bfloat16):
        step = agree(net, images)
    assert step.logits.dtype == torch.bfloat16
    assert step.disagreement.dtype == torch.float32
    assert number(step) == pytest.approx(number(exact), abs=0.05)
    step.disagreement.backward()
    assert all(each.grad.isfinite().all() for each in net.parameters() if each.grad is not None)


def test_float16_behind_a_layer_that_returns_float32_is_scaled():
    """The gradient that gets back to such a layer was float16 on its way."""

    class Norm(nn.LayerNorm):
        def forward(self, tokens):  # as autocast does it on a GPU
            return super().forward(tokens.float())

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.patches, self.norm, self.mix, self.head = (
                nn.Conv2d(1, 8, 4, 4), Norm(8), nn.Linear(8, 8), nn.Linear(8, 3)
            )  # fmt: skip

        def forward(self, images):
            tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
            return self.head(self.mix(tokens).tanh().mean(dim=1)) * 2**-18

    net, images = Tokens(), torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2])
    exact = loss_of(net, target_layer="norm", pairs="all")(net, images, classes)
    with torch.autocast("cpu", torch.float16):
        step = loss_of(net, target_layer="norm", pairs="all")(net, images, classes)
    assert step.logits.dtype == torch.float16
    assert exact.agreement.isfinite().sum() > 1
    torch.testing.assert_close(step.agreement, exact.agreement, rtol=0, atol=0.01, equal_nan=True)


def test_attention_is_differentiated_twice():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(1, 8, 4, 4)
            self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, images):
            tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
            return self.head((tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(dim=1))

    net = Attends()
    loss_of(net, target_layer="norm", pairs="all")(net, torch.rand(3, 1, 16, 16)).disagreement.backward()
    assert net.attention.in_proj_weight.grad.abs().sum() > 0


def test_each_step_draws_other_noise_and_a_resumed_run_the_same(images):
    net = tiny()
    unbroken = loss_of(net, "gaussian_noise")
    drawn = [unbroken(net, images).noisy_logits.detach() for _ in range(4)]
    assert all(not torch.equal(drawn[0], each) for each in drawn[1:])
    first, resumed = loss_of(net, "gaussian_noise"), loss_of(net, "gaussian_noise")
    for _ in range(2):
        first(net, images)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(resumed(net, images).noisy_logits, drawn[2])
    other = loss_of(net, "gaussian_noise", seed=1)
    assert not torch.equal(other(net, images).noisy_logits, drawn[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_measures_and_counts_no_step(images, mode):
    net = tiny()
    agree = loss_of(net, "gaussian_noise")
    with mode():
        step = agree(net, images.clone())
        again = agree(net, images.clone())
        assert torch.equal(step.disagreement, again.disagreement)
        assert not torch.is_grad_enabled()
    assert not any(each.requires_grad for each in step)
    assert agree.steps == 0
    agree.eval()
    assert torch.equal(agree(net, images).disagreement, step.disagreement)
    assert agree(net, images).disagreement.requires_grad
    assert agree.steps == 0


def test_layer_is_found_once_and_again_in_a_copy():
    net = small_cnn().train()
    agree = CAMConsistencyLoss(mean=0.0, std=1.0)
    images = digits()[0][:8]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    stream = torch.get_rng_state()
    agree._layer(net, images)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(each.training for each in net.modules())
    assert agree._layer(net, images) is net[6]
    other, its_agree = copy.deepcopy((net, agree))
    assert its_agree._layer(other, images) is other[6]
    assert list(agree.parameters()) == []
    assert list(agree.children()) == []
    assert pickle.loads(pickle.dumps(agree))._layer(net, images) is net[6]


def test_layer_is_found_anew_for_another_network():
    agree, images = CAMConsistencyLoss(mean=0.0, std=1.0), digits()[0][:4]
    shallow, deep = tiny(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), *tiny()[2:4])
    assert agree._layer(shallow, images) is shallow[1]
    assert agree._layer(deep, images) is deep[3]


def test_maps_that_do_not_count_get_gradients_of_zero():
    values = [[0.0, 0.0], [1.0, 1.0], [torch.inf, 1.0], [1.0, 2.0]]
    clean, noisy = (torch.tensor(each)[:, None].requires_grad_() for each in (values, values[::-1]))
    counted = ~(find_degenerate(clean) | find_degenerate(noisy))
    assert find_degenerate(clean).tolist() == [True, True, True, False]
    assert not counted.any()
    mean_disagreement(clean, noisy, counted=counted, agreement=pearson_agreement)[0].backward()
    assert (clean.grad == 0).all()
    assert (noisy.grad == 0).all()


@pytest.mark.parametrize("agreement", [pearson_agreement, cosine_agreement])
def test_rounding_does_not_leave_the_range(agreement):
    stream = torch.Generator().manual_seed(0)
    maps, sizes = torch.rand(20000, 7, 7, generator=stream), 10 * torch.rand(20000, 1, 1, generator=stream)
    alike, opposite = agreement(maps, maps * sizes), agreement(maps, -maps * sizes)
    assert alike.max() == 1
    assert opposite.min() == -1
    counted = torch.ones(len(maps), dtype=torch.bool)
    for other in (maps * sizes, -maps * sizes):
        assert 0 <= mean_disagreement(maps, other, counted=counted, agreement=agreement)[0] <= 2


def test_keeping_to_the_range_changes_no_gradient():
    maps = torch.rand(500, 49, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = ((each / each.detach().amax(dim=1, keepdim=True)) for each in (maps, 0.7 * maps))
    plain = (first * second).sum(dim=1) / (first.square().sum(dim=1) * second.square().sum(dim=1)).sqrt()
    kept = cosine_agreement(first[:, None], second[:, None])
    assert (plain > 1).any()
    assert (kept <= 1).all()
    expected, came = (torch.autograd.grad(each.sum(), first, retain_graph=True)[0] for each in (plain, kept))
    torch.testing.assert_close(came, expected, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_a_map_does_not_matter(scale):
    first, second = torch.rand(2, 3, 4, 4)
    for agreement in (pearson_agreement, cosine_agreement):
        torch.testing.assert_close(agreement(first * scale, second), agreement(first, second))


def test_layer_given_as_a_module_is_copied_along():
    net = tiny()
    agree = loss_of(net, target_layer=net[0])
    other, its_agree = copy.deepcopy((net, agree))
    assert its_agree._layer(other, None) is other[0]
    assert set(agree.state_dict()) == {"_extra_state"}


def test_layer_that_runs_twice_is_explained_in_its_last_run(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(256, 3)

        def forward(self, images):
            return self.head(self.conv(self.conv(images)).flatten(1))

    torch.manual_seed(1)
    net = Twice()
    noisy = Tilt()(images, severity=3, randomness=None)
    step = loss_of(net, target_layer="conv", pairs="all", method="hirescam")(net, images)
    with torch.no_grad():
        classes = net(images).argmax(dim=1)
        maps = [
            (net.head.weight[classes].view(-1, 16, 16) * net.conv(net.conv(each))[:, 0]).relu().flatten(1).numpy()
            for each in (images, noisy)
        ]
    expected = [1 - np.corrcoef(one, other)[0, 1] for one, other in zip(*maps, strict=True)]
    assert number(step) == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("method", ["scorecam", "eigencam", "finercam", "attention_rollout", "rise"])
def test_methods_without_a_derivative_are_refused(method):
    with pytest.raises(ArgumentError, match=f"`method` '{method}' cannot be trained with.*'gradcam'.*'layercam'"):
        CAMConsistencyLoss(method)


def test_own_method_is_tried_as_well(images):
    def mean_activation(trace):
        return trace.activation.mean(dim=1).relu()

    net = tiny()
    assert loss_of(net, method=mean_activation)(net, images).disagreement.requires_grad
    with pytest.raises(ArgumentError, match="has no derivative by activation or gradient"):
        CAMConsistencyLoss(lambda trace: trace.activation.detach().mean(dim=1))
    with pytest.raises(ArgumentError, match="does not return maps"):
        CAMConsistencyLoss(lambda trace: trace.activation)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"perturbation": "pgd"}, "'pgd' cannot be trained with: it looks at the network"),
        ({"perturbation": "elastic"}, "it moves the object"),
        ({"perturbation": "gradient_noise"}, "it does not disturb the image alone"),
        ({"severity": 6}, "`severity` must be"),
        ({"agreement": "rbo"}, "`agreement` must be one of 'pearson', 'cosine'.*no gradient"),
        ({"pairs": "kept"}, "`pairs` must be 'same_class' or 'all'"),
        ({"batch_norm": "eval"}, "`batch_norm` must be 'running'"),
        ({"mean": 0.5}, "`std` is missing"),
    ],
)
def test_unusable_settings_are_refused(settings, words):
    with pytest.raises(ArgumentError, match=words):
        CAMConsistencyLoss(**settings)


def test_what_cannot_be_explained_is_said(images):
    net = tiny()
    with pytest.raises(UnknownNameError, match="no layer named 'layer4'"):
        loss_of(net, target_layer="layer4")(net, images)
    with pytest.raises(ModelError, match="Name a layer before pooling"):
        loss_of(net, target_layer="4")(net, images)
    detached = nn.Sequential(nn.Conv2d(1, 4, 3), _Detach(), nn.Flatten(), nn.Linear(784, 3))
    with pytest.raises(LayerNotReachedError, match="no gradient gets from the logits"):
        loss_of(detached)(detached, images)
    lazy = Checkpointed(active=False)
    lazy.forward = lambda images: torch.zeros(len(images), 3)
    with pytest.raises(LayerNotReachedError, match="'head' did not run"):
        loss_of(lazy, target_layer="head")(lazy, images)
    with pytest.raises(ArgumentError, match="`agreement` must return one number a pair"):
        loss_of(net, agreement=lambda one, other: (one * other).sum())(net, images)
    assert not any(each._forward_hooks for each in [*net.modules(), *detached.modules()])


class _Detach(nn.Module):
    def forward(self, features):
        return features.detach()


def test_images_are_not_changed(images):
    net, kept = tiny(), images.clone()
    loss_of(net, "gaussian_noise")(net, images)
    assert torch.equal(images, kept)
