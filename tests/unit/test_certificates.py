"""Certificates of the top cells: bounds, smoothing, the attack next to them, and what they may not claim."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from lightning_camrobust.certify.attack import TopKAttack
from lightning_camrobust.certify.certificate import certify_topk
from lightning_camrobust.certify.crown import LinearBounds
from lightning_camrobust.certify.graph import UnsupportedLayerError, read_network
from lightning_camrobust.certify.interval import IntervalBounds, IntervalCertifier
from lightning_camrobust.certify.linear_bounds import lower_bounds, tight_boxes
from lightning_camrobust.certify.max_pooling import MaxPooling
from lightning_camrobust.certify.metric import CertifiedTopK
from lightning_camrobust.certify.network_bounds import pixel_box
from lightning_camrobust.certify.noisy_maps import smoothed_maps, sparsify
from lightning_camrobust.certify.operations import Box, Convolution, Rectifier
from lightning_camrobust.certify.smoothing import certified_overlap, certified_radius
from lightning_camrobust.certify.smoothing_method import Smoothing
from lightning_camrobust.certify.topk import stays_on_top, top_count
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.pixels import PixelSpace
from tests.networks import ResNetCIFAR, VGGLike

PIXELS = PixelSpace((0.0,), (1.0,))
K = 6


def corgi_like(pool=nn.AvgPool2d):
    """The net of the CORGI paper, in small: 12x12 pixels, a map of 6x6 cells."""
    torch.manual_seed(3)
    widths, layers = (3, 4, 4, 6, 6), []
    for index in range(4):
        layers += [nn.Conv2d(widths[index], widths[index + 1], 3, padding=1), nn.ReLU(inplace=True)]
        if index == 1:
            layers += [pool(2), nn.Dropout(0.15)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()


def pictures(count=4, size=12, channels=3):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(11))


def cams_by_hand(net, images, classes):
    """Vanilla CAM of a sequential net, cell by cell in reading order, straight from its layers in float64."""
    net = copy.deepcopy(net).double()
    head = net[-1]
    maps = net[:-3](images.double())
    return (head.weight[classes][:, :, None, None] * maps).sum(dim=1).flatten(1).detach()


def top_sets(cams, k):
    """The k largest cells of each row, as a mask."""
    order = np.argsort(-cams.numpy(), axis=1)
    mask = np.zeros(cams.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :k], True, axis=1)
    return mask


def settings(name):
    return {
        "interval": IntervalBounds(),
        "crown": LinearBounds(max_radius=0.02, halvings=7),
        "pairwise": LinearBounds(pairwise=True, max_radius=0.02, halvings=7),
    }[name]


# What is certified holds, and the methods are ordered


@pytest.mark.parametrize("name", ["interval", "crown", "pairwise"])
def test_samples_and_descent_inside_the_radius_never_change_the_top_set(name):
    net, images = corgi_like(), pictures()
    certificate = certify_topk(net, images, k=K, method=settings(name))
    assert (certificate.radius > 0).all()
    generator = torch.Generator().manual_seed(0)
    for image, label, radius in zip(images.double(), certificate.classes, certificate.radius, strict=True):
        wanted = top_sets(cams_by_hand(net, image[None], label[None]), K)
        shifts = torch.rand(2500, *image.shape, generator=generator, dtype=torch.float64) * 2 - 1
        shifts[1250:] = shifts[1250:].sign()
        tried = torch.cat([(image + radius * shifts).clamp(0, 1), *descent(net, image, label, radius)])
        assert (top_sets(cams_by_hand(net, tried, label.expand(len(tried))), K) == wanted).all()


def descent(net, image, label, radius):
    """Walk the lowest top cell down and the highest other cell up, inside the ball."""
    net = copy.deepcopy(net).double()
    weight = net[-1].weight[label].detach()

    def cam_of(x):
        return torch.einsum("c,bchw->bhw", weight, net[:-3](x)).flatten(1)

    order = cam_of(image[None])[0].argsort(descending=True)
    x = image[None].clone()
    for _ in range(60):
        x.requires_grad_()
        cam = cam_of(x)[0]
        (gradient,) = torch.autograd.grad(cam[order[:K]].min() - cam[order[K:]].max(), x)
        x = (x - radius / 10 * gradient.sign()).detach()
        x = torch.minimum(torch.maximum(x, image - radius), image + radius).clamp(0, 1)
        yield x


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_interval_below_crown_below_pairwise_below_attack_on_every_image(pool):
    net, images = corgi_like(pool), pictures(4 if pool is nn.AvgPool2d else 2)
    found = [certify_topk(net, images, k=K, method=settings(name)).radius for name in ("interval", "crown", "pairwise")]
    for objective in ("sum", "margin"):
        attack = TopKAttack(objective=objective, steps=30, step_share=0.1, halvings=7)
        found.append(certify_topk(net, images, k=K, attack=attack).attack_radius)
    interval, crown, pairwise, by_sum, by_margin = found
    assert (interval > 0).all()
    assert (interval < crown).all()
    assert (crown < pairwise).all()
    assert (pairwise < by_sum).all()
    assert (pairwise < by_margin).all()
    assert (by_margin / pairwise).median() < 1.3


def test_no_bound_certifies_a_radius_at_which_an_attack_succeeded():
    net, images = corgi_like(), pictures().double()
    network = read_network(net, images.float(), space=PIXELS)
    classes = net(images.float()).argmax(dim=1)
    broken = TopKAttack(steps=30, step_share=0.1, halvings=6).radius(network, images, classes, k=K, within=K)
    assert broken.isfinite().all()
    for row in range(4):
        problem = IntervalCertifier(network, images[[row]], classes[[row]], k=K, within=K)
        for radii in (broken[[row]], 2 * broken[[row]]):
            assert not problem(radii)
            with torch.no_grad():
                assert not LinearBounds().certifies(problem, radii)
                assert not LinearBounds(pairwise=True).certifies(problem, radii)


def test_interval_cam_holds_all_samples_and_is_reached():
    network = read_network(corgi_like(), pictures(), space=PIXELS)
    classes = torch.tensor([0, 3])
    lower = torch.rand(2, 6, 3, 3, dtype=torch.float64)
    box = Box(lower, lower + torch.rand(2, 6, 3, 3, dtype=torch.float64))
    found = network.cam_box(box, classes)
    weight = network.weight[classes][:, :, None, None]
    assert (weight < 0).any()
    assert (weight > 0).any()
    for ends, reached in ((box, found.lower), (box[::-1], found.upper)):
        worst = torch.where(weight > 0, *ends)
        torch.testing.assert_close((weight * worst).sum(dim=1).flatten(1), reached)
    assert (found.lower < found.upper).all()


@pytest.mark.parametrize(("gap", "stays"), [(0.0, False), (0.5, False), (1.5, True)])
def test_cells_closer_than_the_slack_are_not_told_apart(gap, stays):
    cells, top = torch.tensor([[3.0 + gap, 3.0, 1.0]]), torch.tensor([[True, False, False]])
    assert stays_on_top(cells, cells, top, slack=torch.ones(1)).tolist() == [stays]
    assert stays_on_top(cells, cells, top, slack=torch.zeros(1)).tolist() == [gap > 0]


def test_attack_that_loses_the_class_does_not_count():
    class Copies:
        def explain(self, pixels, classes):
            cells = pixels.flatten(1)
            return cells, torch.stack([0 * cells[:, 0], 1 + cells[:, 0]], dim=1)

    images = torch.tensor([[[[0.52, 0.5], [0.1, 0.0]]]], dtype=torch.float64).expand(2, -1, -1, -1)
    attack = TopKAttack(steps=10, step_share=0.3, halvings=4)
    found = attack.radius(Copies(), images, torch.tensor([0, 1]), k=1, within=1)
    assert found[0].isinf()
    assert 0.01 < found[1] < 0.015


def test_attack_stays_in_its_ball_and_in_the_range_of_pixels():
    seen = []

    class Spy:
        def explain(self, pixels, classes):
            seen.append(pixels.detach())
            cells = pixels.flatten(1)
            return cells, torch.stack([cells.sum(dim=1) + 9, -cells.sum(dim=1)], dim=1)

    # Both top cells are pushed down, also the one that lies at 0.01 already.
    images = torch.tensor([[[[0.9, 0.01], [0.0, 0.0]]]], dtype=torch.float64)
    attack = TopKAttack(steps=20, step_share=0.3, objective="sum", max_radius=0.2, halvings=1)
    found = attack.radius(Spy(), images, torch.tensor([0]), k=2, within=2)
    tried = torch.cat(seen)
    assert tried.min() == 0
    assert (tried - images).abs().max() <= 0.2
    assert found.isinf().all() or found <= 0.2


@pytest.mark.parametrize("name", ["interval", "crown", "pairwise"])
def test_radius_is_zero_where_two_boundary_cells_tie(name):
    net, image = copying_net(), torch.tensor([[[[0.9, 0.5], [0.5, 0.1]]]])
    assert certify_topk(net, image, k=2, method=settings(name)).radius.tolist() == [0.0]
    assert certify_topk(net, image, k=1, method=settings(name)).radius > 0


def test_smoothed_radius_is_zero_where_two_boundary_cells_tie():
    mean_map = torch.tensor([[0.9, 0.5, 0.5, 0.1]])
    assert certified_radius(mean_map, k=2, samples=10**9, sigma=0.1).tolist() == [0.0]
    assert certified_overlap(mean_map, k=2, samples=10**9, sigma=0.1, radius=0.0).tolist() == [0.5]


@pytest.mark.parametrize("name", ["interval", "pairwise"])
def test_radius_never_falls_when_the_top_cells_have_more_room(name):
    net, images = corgi_like(), pictures(2)
    radii = [certify_topk(net, images, k=K, within=k2, method=settings(name)).radius for k2 in (6, 7, 14, 36)]
    for tight, loose in zip(radii, radii[1:], strict=False):
        assert (loose >= tight).all()
    assert (radii[2] > radii[0]).all()
    assert (radii[-1] > 0.99 * settings(name).max_radius).all()


def test_top_cells_stay_inside_the_wider_top_set():
    net, images = corgi_like(), pictures(2)
    certificate = certify_topk(net, images, k=K, within=9, method="interval")
    strict = certify_topk(net, images, k=K, method="interval").radius
    assert (certificate.radius > strict).all()
    for image, label, radius in zip(images.double(), certificate.classes, certificate.radius, strict=True):
        wanted = top_sets(cams_by_hand(net, image[None], label[None]), K)
        shifts = (torch.rand(2000, *image.shape, dtype=torch.float64) * 2 - 1).sign()
        tried = (image + radius * shifts).clamp(0, 1)
        assert (wanted <= top_sets(cams_by_hand(net, tried, label.expand(2000)), 9)).all()


# One layer, by hand


def copying_net(scale=2.0, weight=3.0):
    """CAM = 6 x image."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[0].weight.fill_(scale)
        net[0].bias.zero_()
        net[4].weight.copy_(torch.tensor([[-weight], [weight]]))
        net[4].bias.zero_()
    return net.eval()


@pytest.mark.parametrize("name", ["interval", "crown", "pairwise"])
@pytest.mark.parametrize(("mean", "std"), [(None, None), (0.0, 0.25)])
def test_radius_of_one_layer_is_half_the_gap_in_pixel_units(name, mean, std):
    pixels = torch.tensor([[[[0.9, 0.64], [0.6, 0.1]]]])
    method = {"interval": IntervalBounds, "crown": LinearBounds}.get(name, LinearBounds)
    chosen = method(max_radius=0.5, **({"pairwise": True} if name == "pairwise" else {}))
    inputs = pixels if mean is None else (pixels - mean) / std
    found = certify_topk(copying_net(), inputs, k=2, method=chosen, attack=TopKAttack(steps=30), mean=mean, std=std)
    assert found.radius.item() == pytest.approx(0.02, rel=5e-3)
    assert found.radius.item() < 0.02 < found.attack_radius.item() < 0.0205


def test_edge_of_the_pixel_range_counts():
    # The top cell cannot rise above 1, nor the other fall below 0.
    box = pixel_box(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([0.25]))
    assert box.lower.tolist() == [[[[0.75, 0.0]]]]
    assert box.upper.tolist() == [[[[1.0, 0.25]]]]


def test_interval_of_one_convolution_by_hand():
    layer = Convolution(torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([0.5]))
    lower, upper = layer.interval(Box(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[1.0, 3.0]]]])))
    assert (lower.item(), upper.item()) == (0 - 6 + 0.5, 1 - 2 + 0.5)


# Bounds against samples and exact optima


class Branches(nn.Module):
    """Residual sums, strides, groups, both poolings, batch norm in all places, slices and padding."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=2), nn.BatchNorm2d(8), nn.Identity())
        self.down, self.norm = nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.pool(functional.relu(self.stem(x)))
        y = self.body(x)
        y += x
        y = functional.avg_pool2d(torch.relu(y), 2, 1, padding=1)
        short = functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = functional.relu(self.norm(self.down(y)) + short, inplace=True)
        x = functional.dropout(x, 0.2, training=self.training)
        x = functional.avg_pool2d(x, x.size()[3])
        return self.fc(x.view(x.size(0), -1))


def branches():
    torch.manual_seed(5)
    net = Branches()
    try:
        torch.fx.symbolic_trace(net)
    except TypeError:
        pytest.skip("this version's torch.fx cannot read avg_pool2d(x, x.size()[3])")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


SPACE = PixelSpace((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def normalised(images, space=SPACE):
    return (images - torch.tensor(space.mean).view(1, -1, 1, 1)) / torch.tensor(space.std).view(1, -1, 1, 1)


def test_folding_batch_norm_equals_the_original_net():
    net, images = branches(), pictures()
    network = read_network(net, normalised(images), space=SPACE)
    double = copy.deepcopy(net).double()
    _, logits = network.explain(images.double(), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(logits, double(normalised(images.double())), rtol=1e-6, atol=1e-6)
    # The scaling of pixels, with the first batch norm, and three convolutions with theirs.
    assert sum(isinstance(step.operation, Convolution) for step in network.steps) == 4


@pytest.mark.parametrize("between", [nn.Identity(), None])
def test_batch_norm_is_not_folded_into_a_convolution_that_others_use(between):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
            self.same = between

        def forward(self, x):
            x = self.conv(x)
            return self.fc((self.norm(x if between is None else self.same(x)) + x).mean((2, 3)))

    torch.manual_seed(1)
    net = Shared()
    net.norm.running_mean.uniform_(1, 2)
    read_network(net.eval(), pictures(), space=PIXELS)


@pytest.mark.parametrize("tight", [False, True])
def test_boxes_hold_all_samples(tight):
    net, images = branches(), pictures(1).double()
    network = read_network(net, normalised(images.float()), space=SPACE)
    box = pixel_box(images, torch.tensor([0.02], dtype=torch.float64))
    with torch.no_grad():
        boxes = tight_boxes(network, box, rows=100) if tight else network.boxes(box)
        tried = box.lower + (box.upper - box.lower) * torch.rand(3000, *images.shape[1:], dtype=torch.float64)
        tried[1500:] = torch.where(torch.rand_like(tried[1500:]) < 0.5, box.lower, box.upper)
        values = [tried]
        for step in network.steps:
            values.append(step.operation(*(values[each] for each in step.inputs)))
    for value, (lower, upper) in zip(values, boxes, strict=True):
        assert (value >= lower - 1e-12).all()
        assert (value <= upper + 1e-12).all()


def test_lines_are_tighter_than_intervals():
    net, images = branches(), pictures(1).double()
    network = read_network(net, normalised(images.float()), space=SPACE)
    box = pixel_box(images, torch.tensor([0.02], dtype=torch.float64))
    loose, tight = network.boxes(box)[-1], tight_boxes(network, box, rows=64)[-1]
    assert (tight.lower >= loose.lower).all()
    assert (tight.upper <= loose.upper).all()
    assert (tight.upper - tight.lower).mean() < 0.9 * (loose.upper - loose.lower).mean()


def test_lines_are_exact_for_a_linear_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Conv2d(4, 3, 3, padding=1, groups=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    ).eval()  # fmt: skip
    images = pictures(1, 16, 2).double()
    network = read_network(net, images.float(), space=PIXELS)
    box = pixel_box(images, torch.tensor([0.1], dtype=torch.float64))
    wanted = torch.randn(7, 3, 4, 4, dtype=torch.float64)
    found = lower_bounds(network, len(network.steps), wanted, network.boxes(box))
    middle = ((box.lower + box.upper) / 2).requires_grad_()
    for row, bound in zip(wanted, found, strict=True):
        value = (row * network.last_map(middle)).sum()
        (gradient,) = torch.autograd.grad(value, middle)
        exact = value - (gradient.abs() * (box.upper - box.lower) / 2).sum()
        torch.testing.assert_close(bound, exact)


@pytest.mark.parametrize(
    "operation",
    [
        Rectifier(),
        MaxPooling((2, 2), (2, 2)),
        MaxPooling((3, 3), (2, 2), (1, 1)),
        MaxPooling((2, 2), (1, 1), (0, 0), (2, 2)),
    ],
    ids=["relu", "pool", "overlapping", "dilated"],
)
def test_pulled_back_lines_bound_from_below(operation):
    generator = torch.Generator().manual_seed(2)
    middle = torch.randn(1, 3, 7, 7, generator=generator, dtype=torch.float64)
    reach = torch.rand(1, 3, 7, 7, generator=generator, dtype=torch.float64)
    box = Box(middle - reach, middle + reach)
    tried = box.lower + 2 * reach * torch.rand(2000, 3, 7, 7, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(20, *operation(middle).shape[1:], generator=generator, dtype=torch.float64)
    (pulled,), constants = operation.pull_back(coefficients, box)
    below = tried.flatten(1) @ pulled.flatten(1).T + constants
    exact = operation(tried).flatten(1) @ coefficients.flatten(1).T
    assert (below <= exact + 1e-12).all()
    # And they touch where the box is a point.
    (pulled,), constants = operation.pull_back(coefficients, Box(middle, middle))
    touched = pulled.flatten(1) @ middle.flatten() + constants
    torch.testing.assert_close(touched, coefficients.flatten(1) @ operation(middle).flatten())


# Reading networks


def with_layer(layer):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), layer), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


class Doubling(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (with_layer(nn.GELU()), r"Layer '0\.1' \(GELU\)"),
        (with_layer(nn.LeakyReLU()), r"Layer '0\.1' \(LeakyReLU\)"),
        (with_layer(Doubling(4, 4, 1)), r"Layer '0\.1' \(Doubling\)"),
        (with_layer(nn.ReLU6()), r"Layer '0\.1' \(ReLU6\)"),
        (with_layer(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")), r"Layer '0\.1' \(Conv2d\)"),
        (with_layer(nn.BatchNorm2d(4, track_running_stats=False)), r"Layer '0\.1' \(BatchNorm2d\)"),
        (with_layer(nn.MaxPool2d(3, ceil_mode=True)), r"Layer '0\.1' \(MaxPool2d\)"),
        (with_layer(Calls(torch.sigmoid)), r"Function 'sigmoid', called in layer '0\.1'"),
        (with_layer(Calls(lambda x: torch.cat([x, x], dim=2))), r"Function 'cat', called in layer '0\.1'"),
        (with_layer(Calls(lambda x: x * 2)), r"Function 'mul', called in layer '0\.1'"),
        (with_layer(Calls(lambda x: x + 1)), r"Function 'add', called in layer '0\.1'"),
        (nn.Sequential(with_layer(nn.ReLU()), nn.Softmax(dim=1)), r"Layer '1' \(Softmax\)"),
        (nn.Sequential(with_layer(nn.ReLU()), nn.ReLU(), nn.Linear(2, 2)), r"Layer '1' \(ReLU\)"),
        (nn.Sequential(with_layer(nn.ReLU()), nn.Linear(2, 2)), r"Layer '1' \(Linear\)"),
    ],
    ids=lambda value: "" if isinstance(value, nn.Module) else value[:30],
)
def test_unsupported_layers_raise_with_the_layer_name(net, named):
    with pytest.raises(UnsupportedLayerError, match=named + ".*method='smoothing'"):
        certify_topk(net, pictures(), k=3)


def test_head_that_flattens_the_map_is_refused():
    with pytest.raises(UnsupportedLayerError, match="'flatten'.*behind global average pooling"):
        certify_topk(VGGLike(), pictures(2, 32), k=3)


def test_data_dependent_branch_is_refused():
    with pytest.raises(UnsupportedLayerError, match="torch.fx could not read"):
        certify_topk(with_layer(Calls(lambda x: x if x.sum() > 0 else -x)), pictures(), k=3)


def test_graph_that_says_something_else_is_found_out():
    class WritesInPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            x = self.conv(x)
            y = torch.relu_(x)
            return self.fc((x + y).mean((2, 3)))

    with pytest.raises(UnsupportedLayerError, match="'relu_'.*writes in place into a value that is used again"):
        certify_topk(WritesInPlace(), pictures(), k=3)


class ThreePixels(nn.Module):
    """One convolution of three pixels of which the mode says what follows; cells may be negative."""

    def __init__(self, mode):
        super().__init__()
        self.mode, self.conv, self.fc = mode, nn.Conv2d(1, 1, (1, 3)), nn.Linear(1, 2)
        self.other = nn.Linear(1, 2)
        self.conv.weight.data.fill_(1.0)
        self.conv.bias.data.fill_(-0.9)
        self.fc.weight.data = torch.tensor([[-1.0], [1.0]])
        self.fc.bias.data.zero_()

    def forward(self, x, extra=None, *, flip=False):
        x = self.conv(x)
        if self.mode == "view":
            y = nn.functional.dropout(x, training=self.training)
            torch.relu_(y)
        if self.mode == "iadd":
            y = x
            y += torch.relu(x)
        if extra is None and not flip:
            x = torch.relu(x)
        pooled = x.mean((2, 3))
        logits = self.fc(pooled)
        self.other(pooled)
        return logits


STRIP = torch.tensor([[[[0.4, 0.3, 0.3, 0.31]]]])


@pytest.mark.parametrize("mode", ["view", "iadd"])
def test_writes_into_values_that_are_used_again_are_refused(mode):
    with pytest.raises(UnsupportedLayerError, match="writes in place into a value that is used again"):
        certify_topk(ThreePixels(mode), STRIP, k=1)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("place", ["", "conv"])
def test_hooks_are_refused_with_the_name_of_the_layer(register, place):
    net = ThreePixels("plain")
    getattr(net.get_submodule(place), register)(lambda *_: None)
    with pytest.raises(UnsupportedLayerError, match=("Layer 'conv'" if place else "ThreePixels") + ".*forward hooks"):
        certify_topk(net, STRIP, k=1)


def test_replaced_forwards_are_refused():
    net = ThreePixels("plain")
    net.conv.forward = lambda x: nn.Conv2d.forward(net.conv, x).relu()
    with pytest.raises(UnsupportedLayerError, match="Layer 'conv'.*replaced"):
        certify_topk(net, STRIP, k=1)


def test_graph_is_read_with_the_defaults_of_the_forward():
    network = read_network(ThreePixels("plain").eval(), STRIP, space=PIXELS)
    assert network.last_map(torch.zeros(1, 1, 1, 4).double()).tolist() == [[[[0.0, 0.0]]]]


def test_head_is_the_one_whose_output_is_returned():
    net = ThreePixels("plain").eval()
    assert torch.equal(read_network(net, STRIP, space=PIXELS).weight, net.fc.weight.double())


class Scales(nn.Module):
    """Reads as a sum over cells, and has another map than the graph says: it looks at the numbers."""

    def __init__(self, scale):
        super().__init__()
        self.conv, self.fc, self.scale = nn.Conv2d(1, 2, 3), nn.Linear(2, 2), scale

    def forward(self, x):
        x = torch.relu(self.conv(x))
        if isinstance(x, torch.Tensor):
            x = self.change(x)
        return self.fc(x.mean((2, 3)))

    def change(self, x):
        return x + self.scale * (x.amax(dim=(1, 2, 3), keepdim=True) < 1) * x


@pytest.mark.parametrize("scale", [0.5, 1e-3])
def test_neither_a_large_image_nor_the_bias_hides_a_misread_image(scale):
    net = Scales(scale).eval()
    net.conv.weight.data.abs_()
    net.fc.bias.data.fill_(1e4)
    images = torch.cat([torch.full((1, 1, 6, 6), 1e-3), torch.ones(1, 1, 6, 6)])
    net.conv.bias.data.zero_()
    with pytest.raises(ModelError, match="another map or other logits"):
        read_network(net, images, space=PIXELS)


def test_map_is_compared_cell_by_cell_where_logits_are_equal():
    net = Scales(0.0).eval()
    net.change = lambda x: x.flip(3)
    with pytest.raises(ModelError, match="another map or other logits"):
        read_network(net, pictures(2, channels=1), space=PIXELS)


@pytest.mark.parametrize("divisor", [-4, -1])
def test_pooling_with_a_negative_divisor_is_refused(divisor):
    with pytest.raises(UnsupportedLayerError, match=r"Layer '0\.1' \(AvgPool2d\).*divisor above 0"):
        certify_topk(with_layer(nn.AvgPool2d(2, divisor_override=divisor)), pictures(), k=3)


def test_slack_grows_with_terms_that_cancel():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
    net[0].weight.data = torch.tensor([1e6, 1e6]).view(2, 1, 1, 1)
    net[3].weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    images = torch.full((1, 1, 2, 2), 0.5)
    slack = read_network(net, images, space=PIXELS).slack(images.double(), torch.tensor([0]))
    assert slack.item() == pytest.approx(1e6 * 16 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("first", [nn.Identity(), nn.ReLU(inplace=True)], ids=["plain", "writes into its input"])
def test_box_is_centred_at_the_image_in_float64(first):
    seen = []

    class Spy(IntervalBounds):
        def radius(self, network, pixels, classes, *, k, within):
            seen.append(pixels)
            return super().radius(network, pixels, classes, k=k, within=within)

    images = (pictures() - 0.45) / 0.3
    inputs = images.clone()
    certify_topk(nn.Sequential(first, *corgi_like()), inputs, k=3, method=Spy(), mean=0.45, std=0.3)
    assert torch.equal(inputs, images)
    torch.testing.assert_close(seen[0], images.double() * 0.3 + 0.45, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", ["interval", Smoothing(samples=2)])
def test_range_of_normalised_images_must_be_told(method):
    with pytest.raises(ArgumentError, match="`mean` and `std` must be given"):
        certify_topk(corgi_like(), pictures() - 0.5, k=3, method=method)
    with pytest.raises(ArgumentError, match="`mean` and `std` must be given"):
        certify_topk(corgi_like(), pictures() * 4, k=3, method=method)
    certify_topk(corgi_like(), (pictures() * 255).round(), k=3, method=method)


def test_smoothing_refuses_pixels_outside_the_range():
    with pytest.raises(ArgumentError, match=r"pixels in \[0, 1\]"):
        certify_topk(corgi_like(), pictures() + 1e-2, k=3, method=Smoothing(samples=2), mean=0.0, std=1.0)


def test_batch_without_a_correct_prediction_is_not_covered():
    net, images = corgi_like(), pictures(2)
    wrong = (net(images).argmax(dim=1) + 1) % 5
    for method in ("interval", "crown", "pairwise"):
        found = certify_topk(net, images, k=K, classes=wrong, method=method, attack=TopKAttack(steps=2, halvings=1))
        assert found.radius.isnan().all()
        assert found.attack_radius.isnan().all()
        assert not found.covered.any()


def test_pixels_outside_the_range_are_found_out():
    with pytest.raises(ArgumentError, match="wrong `mean` and `std`"):
        certify_topk(corgi_like(), pictures() * 3, k=3, mean=0.0, std=1.0)


def test_residual_nets_are_read():
    torch.manual_seed(0)
    found = certify_topk(ResNetCIFAR(1), pictures(2, 16), share=0.2, method=IntervalBounds(max_radius=0.01))
    assert found.k == 3
    assert found.radius.shape == (2,)


def test_single_logit_head():
    net = corgi_like()
    net[-1] = nn.Linear(6, 1)
    found = certify_topk(net, pictures(), k=K)
    assert (found.radius > 0).all()
    assert set(found.classes.tolist()) <= {0, 1}


# Smoothing


def test_overlap_formula_by_hand():
    mean_map = torch.tensor([[0.95, 0.5, 0.9, 0.3, 0.1, 0.6, 0.2]], dtype=torch.float64)
    k, samples, sigma, confidence = 3, 1000, 0.2, 0.9
    c = math.sqrt(math.log(2 * 7 / (1 - confidence)) / (2 * samples))
    ordered = sorted(mean_map[0].tolist(), reverse=True)
    for radius in (0.0, 0.02, 0.05, 0.08, 0.1, 0.2):
        holds = [
            stats.norm.cdf(stats.norm.ppf(ordered[i - 1] - c) - 2 * radius / sigma) - c > ordered[2 * k + 1 - i - 1]
            for i in range(1, k + 1)
        ]
        wanted = max((i for i in range(1, k + 1) if holds[i - 1]), default=0) / k
        found = certified_overlap(mean_map, k=k, samples=samples, sigma=sigma, radius=radius, confidence=confidence)
        assert found.item() == pytest.approx(wanted), radius


def test_smoothed_radius_is_where_the_overlap_drops():
    mean_map = torch.rand(5, 49, generator=torch.Generator().manual_seed(1))
    rest = {"k": 10, "samples": 5000, "sigma": 0.25}
    radius = certified_radius(mean_map, overlap=0.3, **rest)
    assert (radius > 0).all()
    for row in range(5):
        below = certified_overlap(mean_map[[row]], radius=radius[row].item() * (1 - 1e-9), **rest)
        above = certified_overlap(mean_map[[row]], radius=radius[row].item() * (1 + 1e-9), **rest)
        assert above.item() < 0.3 <= below.item()


def test_hoeffding_radius_of_the_notes():
    # For a 7x7 map c = .122, .062, .021 at 256, 1000 and 8192 samples; a cell has to be 2c above one at 0.
    for samples, c in ((256, 0.122), (1000, 0.062), (8192, 0.021)):
        for height, wanted in ((2 * c + 0.002, 1.0), (2 * c - 0.002, 0.0)):
            mean_map = functional.pad(torch.tensor([[height]]), (0, 48))
            found = certified_overlap(mean_map, k=1, samples=samples, sigma=0.1, radius=0.0)
            assert found.item() == wanted


def test_more_top_cells_than_rivals_are_certified_for_nothing():
    # Of 3 cells 2 are on top: at least one of them stays, whatever happens.
    mean_map = torch.tensor([[0.5, 0.5, 0.5]])
    assert certified_overlap(mean_map, k=2, samples=10, sigma=0.1, radius=100.0).tolist() == [0.5]
    assert certified_radius(mean_map, k=2, samples=10, sigma=0.1, overlap=0.5).tolist() == [math.inf]


@pytest.mark.parametrize(("samples", "radius"), [(256, 0.03), (1000, 0.1), (2000, 0.0)])
def test_smoothing_certificate_exceeds_the_observed_overlap_in_few_of_1000_repeats(samples, radius):
    # Every cell is a half space with one normal, [<w, x> > t] or its complement, so a shift along w moves top cells
    # down and the others up by exactly what the theorem allows: nothing is given away.
    k, cells, sigma = 10, 49, 0.25
    generator = np.random.default_rng(7)
    heights = np.sort(generator.uniform(0.02, 0.98, cells))[::-1]
    draws = generator.binomial(samples, heights, size=(1000, cells)) / samples
    certified = certified_overlap(torch.from_numpy(draws), k=k, samples=samples, sigma=sigma, radius=radius).numpy()
    exceeded = 0
    for row, claim in zip(draws, certified, strict=True):
        seen = np.argsort(-row, kind="stable")[:k]
        towards = np.full(cells, 1.0)
        towards[seen] = -1.0
        shifted = stats.norm.cdf(stats.norm.ppf(heights) + towards * radius / sigma)
        now = np.argsort(-shifted, kind="stable")[:k]
        exceeded += claim > len(set(seen) & set(now)) / k + 1e-12
    assert exceeded <= 50
    assert certified.max() > 0.1


def test_sparsify_against_a_loop():
    maps = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    found = sparsify(maps, keep=0.4, clip=0.1)
    for row in range(5):
        cells = maps[row].flatten().double().clamp(min=0).tolist()
        ordered = sorted(cells, reverse=True)
        kept, clipped = ordered[round(0.4 * 42) - 1], ordered[round(0.1 * 42) - 1]
        wanted = [min(each / clipped, 1.0) if each >= kept else 0.0 for each in cells]
        assert found[row].flatten().tolist() == pytest.approx(wanted)


def test_sparsify_of_strange_maps():
    few = torch.tensor([[[0.0, 0.5, float("nan"), -1.0]], [[0.0, 0.0, 0.0, 0.0]], [[float("inf"), 1.0, 1.0, 0.0]]])
    assert sparsify(few, keep=1.0, clip=0.5).tolist() == [[[0, 1, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 0]]]


def test_noise_has_the_variance_asked_for_and_its_own_stream():
    images, chosen = pictures(3), Smoothing(sigma=0.05, samples=40, keep=1.0, clip=0.01)
    noise = []

    def attribute(copies, row):
        noise.append(copies)
        return copies.mean(dim=1)

    together = smoothed_maps(attribute, images, space=PIXELS, settings=chosen)
    alone = smoothed_maps(attribute, images[1:2], space=PIXELS, settings=chosen)
    chunks = smoothed_maps(attribute, images[1:2], space=PIXELS, settings=Smoothing(**vars(chosen) | {"chunk": 7}))
    assert torch.equal(together[1:2], alone)
    torch.testing.assert_close(chunks, alone)
    other = smoothed_maps(attribute, images[1:2], space=PIXELS, settings=Smoothing(**vars(chosen) | {"seed": 1}))
    assert not torch.equal(other, alone)
    inside = (images[0] > 0.25) & (images[0] < 0.75)
    change = (noise[0] - images[0])[:, inside]
    assert change.std().item() == pytest.approx(0.05, rel=0.05)
    assert not torch.equal(noise[0][0], noise[0][1])


def test_smoothing_takes_any_network_and_any_cam():
    chosen = Smoothing(cam="hirescam", samples=400, sigma=0.02, overlap=0.1)
    found = certify_topk(VGGLike(), pictures(2, 32), k=8, method=chosen)
    assert found.norm == "l2"
    assert found.mean_map.shape == (2, 8, 8)
    assert (found.overlap_at(0.0) >= found.overlap_at(0.01)).all()
    assert ((found.radius > 0) == (found.overlap_at(0.0) >= 0.1)).all()


# The entry


@pytest.mark.parametrize("method", ["interval", "pairwise", "smoothing"])
def test_no_trace_is_left_on_the_network(method):
    net = corgi_like().train()
    net(pictures()).sum().backward()
    before = [each.clone() for each in (*net.state_dict().values(), *(p.grad for p in net.parameters()))]
    streams = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    chosen = Smoothing(samples=4) if method == "smoothing" else method
    certify_topk(net, pictures(1), k=K, method=chosen)
    after = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(module.training for module in net.modules())
    assert torch.equal(streams[0], torch.get_rng_state())
    assert streams[1:] == (random.getstate(), str(np.random.get_state()))
    assert not any(module._forward_hooks for module in net.modules())


def test_images_that_are_misjudged_are_not_covered():
    net, images = corgi_like(), pictures()
    predicted = net(images).argmax(dim=1)
    asked = predicted.clone()
    asked[1] = (asked[1] + 1) % 5
    found = certify_topk(net, images, k=K, classes=asked, attack=TopKAttack(steps=5, halvings=2))
    assert found.covered.tolist() == [True, False, True, True]
    for values in (found.radius, found.attack_radius, found.overlap_at(0.0)):
        assert values.isnan().tolist() == [False, True, False, False]
    alone = certify_topk(net, images, k=K).radius
    assert torch.equal(found.radius[found.covered], alone[found.covered])


def test_normalised_inputs_have_the_radius_of_their_pixels():
    net, images = corgi_like(), pictures()
    scaled = nn.Sequential(Unscale(), *net)
    plain = certify_topk(net, images, k=K).radius
    found = certify_topk(scaled, normalised(images), k=K, mean=SPACE.mean, std=SPACE.std).radius
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-7)


class Unscale(nn.Conv2d):
    """Back to pixels, as the first layer of a network."""

    def __init__(self):
        super().__init__(3, 3, 1, groups=3)
        self.weight.data = torch.tensor(SPACE.std).view(3, 1, 1, 1)
        self.bias.data = torch.tensor(SPACE.mean)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either `k` or `share`"),
        ({"k": 3, "share": 0.1}, "either `k` or `share`"),
        ({"k": 0}, "`k` must be"),
        ({"k": 36}, "`k` must be"),
        ({"k": 2.0}, "`k` must be"),
        ({"share": 1.5}, "`share` must lie"),
        ({"k": 3, "within": 2}, "`within` must be"),
        ({"k": 3, "within": 37}, "`within` must be"),
        ({"k": 3, "method": "intervall"}, "Nearest: 'interval'"),
        ({"k": 3, "method": "smoothing", "within": 4}, "belong to bounds"),
        ({"k": 3, "classes": torch.tensor([9, 0, 0, 0])}, "`classes` must lie"),
        ({"k": 3, "mean": 0.5}, "belong together"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        certify_topk(corgi_like(), pictures(), **arguments)


@pytest.mark.parametrize(
    ("member", "setting"),
    [
        (IntervalBounds, {"max_radius": 0.0}),
        (IntervalBounds, {"halvings": 0}),
        (LinearBounds, {"rows": 0}),
        (LinearBounds, {"max_radius": 2.0}),
        (TopKAttack, {"steps": 0}),
        (TopKAttack, {"step_share": 0.0}),
        (TopKAttack, {"objective": "mean"}),
        (Smoothing, {"sigma": 0.0}),
        (Smoothing, {"samples": 0}),
        (Smoothing, {"confidence": 1.0}),
        (Smoothing, {"overlap": 0.0}),
        (Smoothing, {"clip": 0.6}),
        (Smoothing, {"chunk": 0}),
    ],
)
def test_bad_settings_are_named(member, setting):
    with pytest.raises(ArgumentError, match=f"`{next(iter(setting))}`"):
        member(**setting)


def test_share_of_cells_is_rounded():
    assert top_count(None, 0.2, 49) == 10
    assert top_count(None, 0.001, 49) == 1


# The metric


def test_metric_averages_over_batches_and_processes():
    net, images = corgi_like(), pictures()
    asked = net(images).argmax(dim=1)
    asked[3] = (asked[3] + 1) % 5
    everything = certify_topk(net, images, k=K, classes=asked)
    radii = everything.radius[:3]
    at_radius = radii.median().item()
    parts = [CertifiedTopK(at_radius=at_radius) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 1), slice(1, 4)), strict=True):
        part.update(certify_topk(net, images[rows], k=K, classes=asked[rows]))
    # What torchmetrics does across processes: add the states up.
    gathered = CertifiedTopK(at_radius=at_radius)
    for name, reduction in gathered._reductions.items():
        setattr(gathered, name, reduction(torch.stack([getattr(part, name) for part in parts])))
    gathered._update_count = 2
    found = gathered.compute()
    assert found["mean_radius"].item() == pytest.approx(radii.mean().item())
    assert found["certified_at_radius"].item() == pytest.approx(2 / 3)
    assert (found["covered"].item(), found["left_out"].item()) == (3, 1)


def test_metric_refuses_to_mix_statements():
    net, images = corgi_like(), pictures(1)
    metric = CertifiedTopK(at_radius=1e-4)
    metric.update(certify_topk(net, images, k=K))
    with pytest.raises(ArgumentError, match="must state the same"):
        metric.update(certify_topk(net, images, k=K + 1))
    metric.reset()
    metric.update(certify_topk(net, images, k=K + 1))


def test_metric_refuses_to_mix_statements_in_forward():
    net, images = corgi_like(), pictures(2)
    metric = CertifiedTopK(at_radius=1e-4)
    first = metric(certify_topk(net, images[:1], k=K))
    for add in (metric, metric.update):
        with pytest.raises(ArgumentError, match="must state the same"):
            add(certify_topk(net, images, k=K + 1))
    second = metric(certify_topk(net, images[1:], k=K))
    assert metric.compute()["covered"].item() == 2
    mean = (first["mean_radius"] + second["mean_radius"]) / 2
    assert metric.compute()["mean_radius"].item() == pytest.approx(mean.item())


def test_metric_without_covered_images_warns():
    net, images = corgi_like(), pictures(1)
    metric = CertifiedTopK(at_radius=0.0)
    metric.update(certify_topk(net, images, k=K, classes=(net(images).argmax(dim=1) + 1) % 5))
    with pytest.warns(UserWarning, match="no image is covered"):
        found = metric.compute()
    assert found["mean_radius"].isnan()
    assert found["left_out"].item() == 1
