"""When Ablation-CAM may do without running ablated copies, and that its maps are the same either way."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from lightning_camrobust import compute_cams
from lightning_camrobust.affine import AffineHead
from lightning_camrobust.cams.ablationcam import AblationCAM
from lightning_camrobust.errors import ModelError
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import find_target_layer
from lightning_camrobust.trace import trace

CHANNELS, CELLS, CLASSES = 6, 8, 5


class Head(nn.Module):
    """What is done to the features, as a function of them and of this module, then pooling and a linear layer."""

    def __init__(self, change, *, after=None):
        super().__init__()
        self.change, self.after = change, after
        self.linear = nn.Linear(CHANNELS, CLASSES)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.batch_norm = nn.BatchNorm2d(CHANNELS)
        self.batch_norm.running_mean.uniform_(-1, 1)
        self.batch_norm.running_var.uniform_(0.5, 2)
        self.batch_statistics = nn.BatchNorm2d(CHANNELS, track_running_stats=False)
        self.layer_norm = nn.LayerNorm([CHANNELS, CELLS, CELLS])
        self.group_norm = nn.GroupNorm(2, CHANNELS)
        self.scale = nn.Parameter(torch.rand(CHANNELS, 1, 1))
        self.gate = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.Sigmoid())

    def forward(self, x):
        logits = self.linear(self.change(self, x).mean(dim=(2, 3)))
        return logits if self.after is None else self.after(logits)


class Identity(torch.autograd.Function):
    """A custom step of which only its author knows that it is linear."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def sequence(*modules):
    return lambda: nn.Sequential(*[module() for module in modules])


def with_first_channel(x, value):
    written = x.clone()
    written[:, 0] = value
    return written


def with_doubled_gradient(x):
    if x.requires_grad:
        x.register_hook(lambda gradient: 2 * gradient)
    return x


AFFINE = {
    "pool, linear": sequence(
        lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, nn.Dropout, lambda: nn.Linear(CHANNELS, CLASSES)
    ),
    "conv, pool": sequence(lambda: nn.Conv2d(CHANNELS, CLASSES, 1), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten),
    "flatten, linear": sequence(nn.Flatten, lambda: nn.Linear(CHANNELS * CELLS**2, CLASSES)),
    "two linear": sequence(
        lambda: nn.AvgPool2d(2), nn.Flatten, lambda: nn.Linear(CHANNELS * 16, 7), lambda: nn.Linear(7, CLASSES)
    ),
    "conv": lambda: Head(lambda net, x: net.conv(x)),
    "batch norm": lambda: Head(lambda net, x: net.conv(net.batch_norm(x))),
    "residual": lambda: Head(lambda net, x: x + net.conv(x)),
    "two pools": lambda: Head(lambda net, x: torch.cat([x[:, :3, :4, :4], functional.avg_pool2d(x[:, 3:], 2)], dim=1)),
    "layer scale": lambda: Head(lambda net, x: (1 - x * net.scale) / net.scale.exp()),
    "written in place": lambda: Head(lambda net, x: x.clone().mul_(2).add_(1)),
    "channels last": lambda: Head(lambda net, x: net.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
    "upsampled": lambda: Head(lambda net, x: functional.interpolate(functional.pad(x, (1, 0, 2, 0)), scale_factor=2)),
    "matrix product": lambda: Head(lambda net, x: x @ x.new_ones(CELLS, CELLS).tril()),
    "binary logit": lambda: nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * CELLS**2, 1)),
    "temperature": lambda: Head(lambda net, x: x, after=lambda logits: logits.double() / 3),
}
SEEN = {
    "relu": lambda: Head(lambda net, x: x.relu()),
    "max pool": lambda: Head(lambda net, x: functional.max_pool2d(x, 2)),
    "square by hand": lambda: Head(lambda net, x: x * x),
    "square in place": lambda: Head(lambda net, x: x.clone().mul_(x)),
    "swish": lambda: Head(lambda net, x: x * x.sigmoid()),
    "softmax": lambda: Head(lambda net, x: x.softmax(dim=1)),
    "attention": lambda: Head(lambda net, x: functional.scaled_dot_product_attention(x, x, x)),
    "product of both": lambda: Head(lambda net, x: x @ net.conv(x)),
    "layer norm": lambda: Head(lambda net, x: net.layer_norm(x)),
    "group norm": lambda: Head(lambda net, x: net.group_norm(x)),
    "unit length": lambda: Head(lambda net, x: x / x.norm(dim=1, keepdim=True)),
    "one over": lambda: Head(lambda net, x: 1 / (2 + x)),
    "rounded": lambda: Head(lambda net, x: torch.div(x, 0.5, rounding_mode="floor") + 0.1 * x),
    "squeeze and excite": lambda: Head(lambda net, x: x * net.gate(x.mean(dim=(2, 3)))[:, :, None, None]),
    "custom step": lambda: Head(lambda net, x: Identity.apply(x)),
    "square written into": lambda: Head(lambda net, x: with_first_channel(x, x[:, 1].square())),
    "clamped logits": lambda: Head(lambda net, x: x, after=lambda logits: logits.clamp(min=0)),
}
# Of these autograd has no record.
HIDDEN = {
    "masked": lambda: Head(lambda net, x: x * (x > 0)),
    "detached gate": lambda: Head(lambda net, x: x * net.gate(x.mean(dim=(2, 3)))[:, :, None, None].detach()),
    "detached norm": lambda: Head(lambda net, x: x / x.detach().flatten(1).norm(dim=1)[:, None, None, None]),
    "scaled gradient": lambda: Head(lambda net, x: with_doubled_gradient(x)),
    "straight through": lambda: Head(lambda net, x: x + (x.relu() - x).detach()),
}
# Ablating one image alone cannot give back the logits of the batch, so these cannot be explained at all.
MIXING = {
    "batch statistics": lambda: Head(lambda net, x: net.batch_statistics(x)),
    "mean of batch taken off": lambda: Head(lambda net, x: x, after=lambda logits: logits - logits.mean(dim=0)),
    "a little of the batch": lambda: Head(lambda net, x: x + 0.01 * x.mean(dim=0)),
    "batch turned over": lambda: Head(lambda net, x: torch.stack(x.unbind()[::-1])),
    "random": lambda: Head(lambda net, x: functional.dropout(x)),
}


def make_network(head, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), head()).eval().to(dtype)


def make_images(count=4, dtype=torch.float32):
    return torch.randn(count, 3, CELLS, CELLS, generator=torch.Generator().manual_seed(1)).to(dtype)


def judged(network, images, layer=None):
    with observe_only(network):
        return trace(network, images, target_layer=network[0] if layer is None else layer).affine_head()


def slowly_ablated(network, images):
    """Zero one channel after another by hand, one image after another."""
    maps = []
    with torch.no_grad():
        for image in images:
            activation, logits = network[0](image[None])[0], two_logits(network(image[None]))
            explained = logits.argmax()
            total = torch.zeros_like(activation[0])
            for channel in range(CHANNELS):
                handle = network[0].register_forward_hook(zeroing(channel))
                total += (logits - two_logits(network(image[None])))[explained] * activation[channel]
                handle.remove()
            maps.append(total.relu())
    return torch.stack(maps)


def zeroing(channel):
    def hook(_module, _args, output):
        output = output.clone()
        output[:, channel] = 0
        return output

    return hook


def two_logits(logits):
    return logits[0] if logits.shape[1] > 1 else torch.cat([-logits[0], logits[0]])


def assert_same(maps, wanted, relative=1e-5):
    assert wanted.max() > 0
    torch.testing.assert_close(maps, wanted, rtol=0, atol=relative * float(wanted.max()))


def ablation_maps(network, images, **settings):
    (maps,) = compute_cams(network, images, AblationCAM(**settings), target_layer="0").values()
    return maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AFFINE)
def test_affine_heads_are_known_and_nothing_is_run(name, dtype):
    network, images = make_network(AFFINE[name], dtype), make_images(dtype=dtype)
    wanted = slowly_ablated(network, images)
    forwards = []
    network.register_forward_hook(lambda *_args: forwards.append(1))
    maps = ablation_maps(network, images)
    assert len(forwards) == 1
    assert_same(maps, wanted)


@pytest.mark.parametrize("name", SEEN | HIDDEN)
def test_other_heads_are_run(name):
    network, images = make_network((SEEN | HIDDEN)[name]), make_images()
    assert not judged(network, images)
    assert_same(ablation_maps(network, images), slowly_ablated(network, images))


@pytest.mark.parametrize("name", MIXING)
def test_heads_that_mix_images_or_are_random_are_refused_as_ever(name):
    network, images = make_network(MIXING[name]), make_images()
    assert not judged(network, images)
    with pytest.raises(ModelError, match="mixes the images of a batch"):
        ablation_maps(network, images)


@pytest.mark.parametrize("name", SEEN | HIDDEN)
def test_steps_alone_are_fooled_only_by_what_autograd_does_not_record(name):
    features = torch.randn(4, CHANNELS, CELLS, CELLS).requires_grad_()
    logits = (SEEN | HIDDEN)[name]().eval()(features.clone())
    assert AffineHead(logits, features).possible == (name in HIDDEN)
    assert not AffineHead(logits, features).holds()


def test_graph_is_kept_and_none_is_needed():
    features = torch.rand(2, CHANNELS, CELLS, CELLS).requires_grad_()
    logits = features.clone().mean(dim=(2, 3))
    assert AffineHead(logits, features).holds()
    logits.sum().backward()
    assert features.grad.sum() == pytest.approx(2 * CHANNELS)
    assert not AffineHead(logits.detach(), features).holds()
    assert not AffineHead(torch.rand(2, 3).requires_grad_() * 1, features).holds()


def test_products_know_which_inputs_are_multiplied():
    x, weight = torch.rand(2, 3, 4, 4).requires_grad_(), torch.rand(3, 3, 1, 1).requires_grad_()
    rows = x.flatten(1)
    assert not AffineHead(nn.BatchNorm2d(3, track_running_stats=False).eval()(x), x).possible
    kept, made = torch.rand(48, 4).requires_grad_(), rows[0].view(48, 1).expand(48, 4)
    assert AffineHead(torch.addmm(rows[:, :4], rows, kept), x).possible
    assert AffineHead(torch.addmm(rows[:, :4], torch.ones(2, 1), kept[:1]), x).possible
    assert not AffineHead(torch.addmm(rows[:, :4], rows, made), x).possible
    assert AffineHead(functional.conv2d(x, weight).sum(dim=(2, 3)), x).possible
    assert not AffineHead(functional.conv2d(x, weight * x.mean()).sum(dim=(2, 3)), x).possible
    assert AffineHead(rows / kept[:, 0], x).possible
    assert not AffineHead(kept[:, 0] / rows, x).possible


def test_very_deep_graph():
    features = torch.rand(2, CHANNELS, 2, 2).requires_grad_()
    logits = features.sum(dim=(2, 3))
    for _ in range(3000):
        logits = logits + 1
    assert AffineHead(logits, features).holds()


def test_rows_that_say_nothing():
    features = torch.rand(1, CHANNELS, 2, 2).requires_grad_()
    assert not AffineHead(features.mean(dim=(2, 3)), features).possible
    equal = features.detach().repeat(3, 1, 1, 1).requires_grad_()
    head = AffineHead(equal.mean(dim=(2, 3)), equal)
    assert head.possible
    assert not head.holds()


def test_memory_in_another_order():
    network, images = make_network(AFFINE["pool, linear"]), make_images().to(memory_format=torch.channels_last)
    assert judged(network, images)
    assert_same(ablation_maps(network, images), slowly_ablated(network, images))


def test_every_parameter_frozen():
    network, images = make_network(AFFINE["residual"]).requires_grad_(False), make_images()
    assert judged(network, images)
    assert_same(ablation_maps(network, images), slowly_ablated(network, images))


def test_lone_image_and_equal_images_have_nothing_to_compare():
    network, images = make_network(AFFINE["pool, linear"]), make_images()
    assert judged(network, images)
    assert not judged(network, images[:1])
    assert not judged(make_network(AFFINE["pool, linear"]), images[:1].repeat(3, 1, 1, 1))
    alone = torch.cat([ablation_maps(network, image[None]) for image in images])
    assert_same(alone, ablation_maps(network, images))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["pool, linear", "relu"])
def test_broken_image_gets_no_map_and_leaves_the_others_theirs(name, value):
    network, images = make_network((AFFINE | SEEN)[name]), make_images()
    with observe_only(network):
        one_broken = images.clone()
        one_broken[0, 1, 2, 2] = value
        broken = trace(network, one_broken, target_layer=network[0])
        whole = trace(network, images, target_layer=network[0])
    assert broken.affine_head() == (name in AFFINE)
    maps, wanted = AblationCAM()(broken), AblationCAM()(whole)
    assert not maps[0].isfinite().any()
    torch.testing.assert_close(maps[1:], wanted[1:], rtol=0, atol=0)


@pytest.mark.parametrize("channel", range(CHANNELS))
def test_infinite_logit_tells_of_no_drop(channel):
    network, images = make_network(AFFINE["pool, linear"]), make_images()
    with observe_only(network):
        whole = trace(network, images, target_layer=network[0])
    activation, logits = whole.activation.clone(), whole.logits.clone()
    activation[0, channel, 2, 2], logits[0] = torch.inf, torch.inf
    assert AblationCAM()(replace(whole, activation=activation, logits=logits))[0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_judged_alike_and_comes_closer_than_runs_could(dtype):
    network, images = make_network(AFFINE["residual"]), make_images()
    wanted = slowly_ablated(network, images)
    with torch.autocast("cpu", dtype):
        assert judged(network, images)
        assert not judged(make_network(SEEN["relu"]), images)
        assert not judged(make_network(HIDDEN["masked"]), images)
        maps = ablation_maps(network, images)
        runs = slowly_ablated(network, images)
    assert_same(maps, wanted, relative=3e-2)
    assert (maps - wanted).abs().max() < (runs - wanted).abs().max()


@pytest.mark.parametrize(
    ("name", "affine"),
    [("resnet18", True), ("efficientnet_b0", True), ("mobilenet_v3_large", False), ("densenet121", False)],
)
def test_well_known_networks(name, affine):
    torch.manual_seed(0)
    network, images = getattr(torchvision.models, name)(weights=None).eval(), torch.randn(2, 3, 64, 64)
    assert judged(network, images, find_target_layer(network, images)) == affine


class Counting(nn.Conv2d):
    """Counts what it really computes."""

    computed = 0

    def forward(self, x):
        self.computed += len(x)
        return super().forward(x)


class Bypassed(nn.Module):
    """Features also go round the target layer, and the head may write into them."""

    def __init__(self, written):
        super().__init__()
        self.features, self.layer = Counting(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.head, self.written = nn.Linear(CHANNELS, CLASSES), written

    def forward(self, x):
        features = self.features(x)
        changed = self.layer(features).relu()
        changed = features.mul_(2) + changed if self.written else 2 * features + changed
        return self.head(changed.square().mean(dim=(2, 3)))


@pytest.mark.parametrize("written", [False, True])
def test_what_comes_before_the_layer_is_computed_once_for_each_image(written):
    torch.manual_seed(0)
    network, images = Bypassed(written).eval(), make_images()
    method = AblationCAM(chunk_bytes=2 * CHANNELS * CELLS**2 * 4)
    (maps,) = compute_cams(network, images, method, target_layer="layer").values()
    # All four in the trace, then each once more.
    assert network.features.computed == 8
    (wanted,) = compute_cams(network, images, AblationCAM(), target_layer="layer").values()
    assert_same(maps, wanted)
