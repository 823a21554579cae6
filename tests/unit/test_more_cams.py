"""Further CAM methods, each against its class in pytorch-grad-cam or a slow oracle of its own."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils import model_targets
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_camrobust import compute_cams
from lightning_camrobust.cams.eigengradcam import EigenGradCAM
from lightning_camrobust.cams.finercam import FinerCAM
from lightning_camrobust.cams.fullgrad import FullGrad, _full_gradients
from lightning_camrobust.cams.fusioncam import FusionCAM
from lightning_camrobust.cams.gradcam_elementwise import GradCAMElementWise
from lightning_camrobust.cams.occlusion import OcclusionSensitivity
from lightning_camrobust.cams.randomcam import RandomCAM
from lightning_camrobust.cams.rise import RISE
from lightning_camrobust.cams.shapleycam import ShapleyCAM
from lightning_camrobust.cams.smooth import SmoothCAM
from lightning_camrobust.content import content_keys
from lightning_camrobust.errors import ArgumentError, ModelError, UnknownNameError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.principal import principal_map
from lightning_camrobust.target_layer import find_target_layer
from lightning_camrobust.trace import trace
from tests.networks import VGGLike

LAYER = "features.3"


class Curved(nn.Module):
    """A head that is not piecewise linear, so that second derivatives do not vanish."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1)
        )
        self.head = nn.Sequential(nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 4 * 2, 6))

    def forward(self, images):
        return self.head(self.features(images))


def curved():
    torch.manual_seed(5)
    net = Curved().eval()
    # Logits that lie apart, so that softmax weights are not all alike.
    net.head[-1].weight.data.mul_(6)
    return net


def some_images(count=4, *shape):
    return torch.rand(count, *(shape or (3, 12, 8)), generator=torch.Generator().manual_seed(2)) * 2 - 0.5


def pass_of(net, images, layer=LAYER, classes=None, space=None):
    return trace(net, images, target_layer=net.get_submodule(layer), classes=classes, space=space)


def scaled(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + 1e-7)


def by_twin(name, net, images, layer=LAYER, target=ClassifierOutputTarget, classes=None, **settings):
    """Ask a class of pytorch-grad-cam for maps at the layer's resolution."""
    if not hasattr(pytorch_grad_cam, name):
        pytest.skip(f"this pytorch-grad-cam has no {name} yet")
    classes = net(images).argmax(dim=1) if classes is None else classes
    module = net.get_submodule(layer)
    size = module_output_size(net, images, module)
    with getattr(pytorch_grad_cam, name)(net, [module]) as cam:
        asked = cam.base_cam if name == "FinerCAM" else cam
        asked.get_target_width_height = lambda _images: size[::-1]
        targets = None if name == "FinerCAM" else [target(each) for each in classes.tolist()]
        maps = cam(input_tensor=images.clone().requires_grad_(), targets=targets, **settings)
    net.zero_grad(set_to_none=True)
    return torch.from_numpy(np.asarray(maps))


def module_output_size(net, images, module):
    sizes = []
    handle = module.register_forward_hook(lambda _module, _args, output: sizes.append(tuple(output.shape[2:])))
    net(images)
    handle.remove()
    return sizes[-1]


# Gradient times activation.


def vgg():
    torch.manual_seed(0)
    return VGGLike().eval()


@pytest.mark.parametrize(("build", "size"), [(vgg, (32, 32)), (curved, (12, 8))])
def test_elementwise_gradcam_equals_its_twin(build, size):
    net, images = build(), some_images(5, 3, *size)
    ours = GradCAMElementWise()(pass_of(net, images))
    # The twin adds 1e-7 to the largest value, and does so twice.
    torch.testing.assert_close(scaled(ours), by_twin("GradCAMElementWise", net, images), rtol=0, atol=5e-5)
    # A ReLU over the sum, as in HiResCAM, would be something else.
    pass_ = pass_of(net, images)
    assert not torch.allclose(ours, (pass_.gradient * pass_.activation).sum(dim=1).relu())


def test_eigengradcam_equals_its_twin_up_to_the_sign():
    net, images = curved(), some_images(6)
    pass_ = pass_of(net, images)
    ours = EigenGradCAM()(pass_)
    theirs = torch.from_numpy(get_2d_projection((pass_.gradient * pass_.activation).numpy()))
    for one, other in zip(ours, theirs, strict=True):
        errors = [(one - (sign * other).relu()).abs().max() for sign in (1, -1)]
        assert min(errors) < 1e-5 * other.abs().max()
        assert max(errors) > 0.1 * other.abs().max()


def test_sign_of_eigengradcam_follows_gradient_times_activation():
    net, images = curved(), some_images(8)
    pass_ = pass_of(net, images)
    features = pass_.gradient * pass_.activation
    components = principal_map(features)
    for component, total in zip(components, features.sum(dim=1), strict=True):
        assert np.corrcoef(component.flatten(), total.flatten())[0, 1] > 0
    assert not torch.allclose(EigenGradCAM()(pass_), resolve_member("cams", "eigencam")(pass_))


def test_tiny_gradients_have_an_eigengradcam():
    pass_ = pass_of(curved(), some_images())
    faint = EigenGradCAM()(replace(pass_, gradient=pass_.gradient * 1e-30))
    torch.testing.assert_close(scaled(faint * 1e30), scaled(EigenGradCAM()(pass_)))


@pytest.mark.parametrize("channels", [4, 40], ids=["more_cells", "more_channels"])
def test_components_with_nan_are_nan_and_leave_others_alone(channels):
    features = torch.randn(3, channels, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    broken = features.clone()
    broken[1, 2, 3, 1] = torch.inf
    maps = principal_map(broken)
    assert maps[1].isnan().all()
    torch.testing.assert_close(maps[[0, 2]], principal_map(features)[[0, 2]], rtol=0, atol=1e-12)


# ShapleyCAM.


@pytest.mark.parametrize(("score", "target"), [("logit", "ClassifierOutputTarget"), ("rest", "ClassifierOutputReST")])
def test_shapleycam_equals_its_twin(score, target):
    net, images, target = curved(), some_images(), getattr(model_targets, target, None)
    ours = ShapleyCAM(score=score)(pass_of(net, images))
    theirs = by_twin("ShapleyCAM", net, images, target=target)
    torch.testing.assert_close(scaled(ours), theirs, rtol=0, atol=2e-5)
    assert not torch.allclose(scaled(ours), by_twin("GradCAM", net, images), atol=1e-2)


def test_shapleycam_bends_by_finite_differences():
    net, images = curved().double(), some_images(2).double()
    pass_ = pass_of(net, images)
    step = 1e-5

    def gradient_at(factor):
        leaf = (pass_.activation * factor).requires_grad_()
        score = net.head(leaf).gather(1, pass_.classes[:, None]).sum()
        return torch.autograd.grad(score, leaf)[0]

    # Along A, the gradient changes by H A.
    bend = (gradient_at(1 + step) - gradient_at(1 - step)) / (2 * step)
    weights = (pass_.gradient - 0.5 * bend).mean(dim=(2, 3), keepdim=True)
    wanted = (weights * pass_.activation).sum(dim=1).relu()
    torch.testing.assert_close(ShapleyCAM()(pass_), wanted, rtol=1e-6, atol=1e-8)


def test_shapleycam_is_gradcam_where_nothing_bends():
    pass_ = pass_of(vgg(), some_images(3, 3, 32, 32))
    torch.testing.assert_close(ShapleyCAM()(pass_), resolve_member("cams", "gradcam")(pass_))
    assert not torch.allclose(ShapleyCAM(score="rest")(pass_), ShapleyCAM()(pass_))


def test_shapleycam_feels_a_disturbed_gradient():
    pass_ = pass_of(curved(), some_images())
    noise = torch.randn(pass_.gradient.shape, generator=torch.Generator().manual_seed(0)) * pass_.gradient.std()
    disturbed = replace(pass_, gradient=pass_.gradient + noise, clean_gradient=pass_.gradient)
    plain, shaken = ShapleyCAM(), resolve_member("cams", "gradcam")
    assert not torch.allclose(plain(disturbed), plain(pass_))
    # What bends is the same, so both methods move by the same amount before the ReLU.
    moved = [method(disturbed) - method(pass_) for method in (plain, shaken)]
    both = torch.stack([each > 0 for each in (plain(disturbed), plain(pass_), shaken(disturbed), shaken(pass_))]).all(0)
    assert both.any()
    torch.testing.assert_close(moved[0][both], moved[1][both], rtol=1e-3, atol=1e-5)


def test_shapleycam_explains_the_last_run_of_a_shared_layer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.bend = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Tanh()
            self.head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 6 * 2, 3))

        def forward(self, images):
            return self.head(self.bend(self.second(self.bend(self.first(images)))))

    torch.manual_seed(0)
    net, images = Shared().eval(), some_images(2)
    ours = ShapleyCAM()(pass_of(net, images, "bend"))
    unshared = nn.Sequential(net.first, nn.Tanh(), net.second, nn.Tanh(), net.head)
    torch.testing.assert_close(ours, ShapleyCAM()(pass_of(unshared, images, "3")))


class NoSecond(torch.autograd.Function):
    """The backward of the one below, which has none of its own."""

    @staticmethod
    def forward(_context, slopes):
        return slopes * 2

    @staticmethod
    def backward(_context, _slopes):
        raise RuntimeError("derivative for double_backward is not implemented")


class Double(torch.autograd.Function):
    """Two times the input, once differentiable."""

    @staticmethod
    def forward(_context, values):
        return values * 2

    @staticmethod
    def backward(_context, slopes):
        return NoSecond.apply(slopes)


class WithHead(nn.Module):
    """A convolution and any function of its output."""

    def __init__(self, head):
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), head

    def forward(self, images):
        return self.linear(self.head(self.conv(images)))


def test_shapleycam_names_a_step_without_second_derivative():
    net = WithHead(lambda maps: Double.apply(maps).tanh().mean(dim=(2, 3)))
    with pytest.raises(ModelError, match="'shapleycam'.*WithHead.*no second.*double_backward"):
        compute_cams(net.eval(), some_images(), ShapleyCAM(), target_layer="conv")


def test_shapleycam_sees_through_fused_attention():
    def tokens(maps):
        # Contiguous, or the fused kernel would not be taken.
        return maps.flatten(2).transpose(1, 2)[:, None].contiguous()

    def fused(maps):
        return nn.functional.scaled_dot_product_attention(*[tokens(maps)] * 3)[:, 0].mean(dim=1)

    def by_hand(maps):
        some = tokens(maps)
        return ((some @ some.transpose(2, 3) / 2).softmax(dim=-1) @ some)[:, 0].mean(dim=1)

    net, images = WithHead(fused).eval(), some_images()
    ours = ShapleyCAM()(pass_of(net, images, "conv"))
    net.head = by_hand
    torch.testing.assert_close(ours, ShapleyCAM()(pass_of(net, images, "conv")), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ours, resolve_member("cams", "gradcam")(pass_of(net, images, "conv")), rtol=1e-3)


# Finer-CAM.


@pytest.mark.parametrize(("base", "name"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_finercam_equals_its_twin(base, name, alpha):
    net, images = curved(), some_images(6)
    ours = FinerCAM(alpha=alpha, weighting="probability", method=base)(pass_of(net, images))
    if not hasattr(pytorch_grad_cam, "FinerCAM"):
        pytest.skip("this pytorch-grad-cam has no FinerCAM yet")
    module = net.get_submodule(LAYER)
    size = module_output_size(net, images, module)
    twin = pytorch_grad_cam.FinerCAM(net, [module], base_method=getattr(pytorch_grad_cam, name))
    with twin as cam:
        cam.base_cam.get_target_width_height = lambda _images: size[::-1]
        theirs = torch.from_numpy(cam(input_tensor=images.clone(), targets=None, alpha=alpha))
    torch.testing.assert_close(scaled(ours), theirs, rtol=0, atol=2e-5)
    assert not torch.allclose(scaled(ours), scaled(resolve_member("cams", base)(pass_of(net, images))), atol=1e-2)


@pytest.mark.parametrize("references", [1, 2, 5, 50])
def test_finercam_takes_the_mean_of_the_nearest_classes_away(references):
    net, images = curved(), some_images()
    classes = torch.tensor([0, 1, 5, 2])
    pass_ = pass_of(net, images, classes=classes)
    leaf = pass_.activation.clone().requires_grad_()
    logits = net.head(leaf)
    total = 0
    for row, wanted in zip(logits, classes.tolist(), strict=True):
        others = sorted(
            (c for c in range(6) if c != wanted), key=lambda c, row=row, wanted=wanted: abs(row[c] - row[wanted])
        )
        others = others[:references]
        total = total + row[wanted] - 0.6 * sum(row[c] for c in others) / len(others)
    (gradient,) = torch.autograd.grad(total, leaf)
    wanted = (gradient.mean(dim=(2, 3), keepdim=True) * pass_.activation).sum(dim=1).relu()
    torch.testing.assert_close(FinerCAM(alpha=0.6, references=references)(pass_), wanted, rtol=1e-4, atol=1e-6)


def test_finercam_without_references_is_the_method_itself():
    pass_ = pass_of(curved(), some_images())
    torch.testing.assert_close(FinerCAM(alpha=0.0)(pass_), resolve_member("cams", "gradcam")(pass_))


# SmoothCAM.


def test_smoothcam_by_augmentation_equals_its_twin(monkeypatch):
    # The twin scales each map before it takes the mean; without that, both are the same.
    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", lambda cam, _size=None: np.float32(cam))
    net, images = curved(), some_images()
    pass_ = pass_of(net, images)
    theirs = by_twin("LayerCAM", net, images, classes=pass_.classes, aug_smooth=True)
    torch.testing.assert_close(SmoothCAM(method="layercam", augment="tta")(pass_), theirs, rtol=1e-4, atol=1e-6)


def test_smoothcam_by_noise_is_the_mean_over_noisy_copies():
    net, images = curved(), some_images()
    images[1] *= 40
    pass_ = pass_of(net, images, classes=torch.tensor([5, 0, 2, 2]))
    generator = torch.Generator().manual_seed(7)
    noises = [torch.randn(3, 12, 8, generator=generator) for _ in range(3)]
    wanted = []
    for image, number in zip(images, pass_.classes.tolist(), strict=True):
        spread = float(image.max() - image.min())
        copies = torch.stack([image + 0.2 * spread * noise for noise in noises])
        leaf = net.features(copies).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(net.head(leaf)[:, number].sum(), leaf)
        wanted.append((gradient * leaf.detach()).sum(dim=1).relu().mean(dim=0))
    ours = SmoothCAM(method="hirescam", copies=3, sigma=0.2, seed=7)(pass_)
    torch.testing.assert_close(ours, torch.stack(wanted), rtol=1e-4, atol=1e-4)


def test_smoothcam_without_noise_is_the_method_itself():
    pass_ = pass_of(curved(), some_images())
    torch.testing.assert_close(SmoothCAM(sigma=0.0, copies=2)(pass_), resolve_member("cams", "gradcam")(pass_))
    assert not torch.allclose(SmoothCAM(seed=1)(pass_), SmoothCAM(seed=0)(pass_))


def test_smoothcam_asks_for_its_method_when_called():
    pass_ = pass_of(curved(), some_images())
    with pytest.raises(UnknownNameError, match="'gradcamm'"):
        SmoothCAM(method="gradcamm")(pass_)
    member = resolve_member("cams", "xgradcam")
    torch.testing.assert_close(SmoothCAM(method=member)(pass_), SmoothCAM(method="xgradcam")(pass_))


# FullGrad.


class Biased(nn.Module):
    """Piecewise linear, with biases of every kind, a batch norm without a weight and a convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.twice, self.linear = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6 * 6 * 4, 5)

    def forward(self, images):
        maps = self.twice(self.twice(self.features(images)).relu())
        return self.linear(maps.relu_().flatten(1))


def biased():
    torch.manual_seed(1)
    net = Biased()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return net.eval()


def test_full_gradients_sum_to_the_logit():
    net, images = biased().double(), some_images(3).double()
    pass_ = pass_of(net, images, "features.4")
    total = sum(part.flatten(1).sum(dim=1) for part in _full_gradients(pass_)) + net.linear.bias[pass_.classes]
    torch.testing.assert_close(total, pass_.logits.gather(1, pass_.classes[:, None])[:, 0])


def test_fullgrad_equals_its_twin():
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 4, 5),
    ).eval()  # fmt: skip
    for index in (1, 5):
        net[index].running_mean.normal_()
        net[index].bias.data.normal_()
    images = some_images(3)
    ours = FullGrad()(pass_of(net, images, "4"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = pytorch_grad_cam.FullGrad(net, [])
        targets = [ClassifierOutputTarget(each) for each in net(images).argmax(dim=1).tolist()]
        theirs = torch.from_numpy(twin(input_tensor=images.clone(), targets=targets))  # at the image's size
        twin.activations_and_grads.release()
    # Each cell of the 6 x 4 map lies over 2 x 2 pixels.
    theirs = theirs.reshape(3, 6, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(scaled(ours), scaled(theirs), rtol=0, atol=1e-4)


def test_fullgrad_scales_by_channel_or_by_layer():
    pass_ = pass_of(biased(), some_images(2), "features.4")
    parts = _full_gradients(pass_)
    wanted = torch.zeros(2, 12, 8)
    for part in parts:
        for index, values in enumerate(part.abs()):
            values = (values - values.min()) / (values.max() - values.min() + 1e-7)
            wanted[index] += nn.functional.interpolate(values[None], (12, 8), mode="bilinear")[0].sum(dim=0)
    cells = wanted.reshape(2, 6, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(FullGrad(rescale="layer")(pass_), cells, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(FullGrad()(pass_), cells, rtol=1e-2)


def test_fullgrad_needs_a_gradient_at_the_image():
    class Cut(VGGLike):
        def forward(self, images):
            return super().forward(images).detach()

    net, images = vgg(), some_images(2, 3, 32, 32)
    pass_ = replace(pass_of(net, images), model=Cut().eval())
    with pytest.raises(ModelError, match="'fullgrad'.*Cut"):
        FullGrad()(pass_)


# The control.


def test_randomcam_equals_its_twin_given_the_same_weights(monkeypatch):
    net, images = curved(), some_images()
    pass_ = pass_of(net, images)
    for member in (RandomCAM(), RandomCAM(weights="fixed", seed=3)):
        ones = replace(pass_, activation=torch.eye(8).reshape(1, 8, 8, 1).repeat(4, 1, 1, 1))
        # A map of channel k's own cell shows its weight, or its negative for activations of -1.
        weights = member(ones) - member(replace(ones, activation=-ones.activation))
        weights = weights.reshape(4, 8)
        monkeypatch.setattr(np.random, "uniform", lambda *_args, size, weights=weights: weights.numpy().reshape(size))
        torch.testing.assert_close(scaled(member(pass_)), by_twin("RandomCAM", net, images), rtol=0, atol=1e-5)


def random_weights(member, images, channels=64):
    """Read the weights off maps in which each cell shows one channel."""
    net = nn.Sequential(nn.Conv2d(1, channels, 1), nn.Flatten(), nn.Linear(channels, 2))
    pass_ = pass_of(net, images, "0")
    shown = torch.eye(channels).reshape(1, channels, channels, 1).repeat(len(images), 1, 1, 1)
    positive, negative = (member(replace(pass_, activation=sign * shown)) for sign in (1, -1))
    return (positive - negative)[..., 0]


def test_weights_of_randomcam_are_uniform():
    images = torch.rand(200, 1, 1, 1)
    weights = random_weights(RandomCAM(), images).flatten()
    assert weights.abs().max() < 1
    counts = torch.histc(weights, bins=10, min=-1, max=1)
    # Chi-squared with 9 degrees of freedom: 27.9 is passed by chance once in a thousand.
    assert ((counts - 1280) ** 2 / 1280).sum() < 27.9


def test_weights_of_randomcam_belong_to_the_image_or_to_all():
    images = torch.tensor([0.1, 0.2, 0.1]).reshape(3, 1, 1, 1)
    by_image = random_weights(RandomCAM(), images)
    assert torch.equal(by_image[0], by_image[2])
    assert not torch.equal(by_image[0], by_image[1])
    torch.testing.assert_close(by_image[1:2], random_weights(RandomCAM(), images[1:2]))
    fixed = random_weights(RandomCAM(weights="fixed"), images)
    assert torch.equal(fixed[0], fixed[1])
    assert not torch.equal(fixed, random_weights(RandomCAM(weights="fixed", seed=1), images))
    assert not torch.equal(by_image, random_weights(RandomCAM(seed=1), images))


def test_content_keys_see_what_eight_bits_do_not():
    inputs = torch.tensor([0.5, 0.5 + 2**-24, -3.0, 300.0, 301.0, torch.nan, torch.inf]).reshape(-1, 1, 1, 1)
    keys = content_keys(inputs)
    assert len({tuple(row) for row in keys.tolist()}) == len(inputs)
    assert keys.dtype == torch.int32
    torch.testing.assert_close(keys[2:4], content_keys(inputs[2:4]))


def test_content_keys_do_not_see_what_means_the_same():
    zeros = torch.tensor([0.0, -0.0]).reshape(2, 1, 1, 1)
    assert torch.equal(*content_keys(zeros))
    odd_nan = torch.tensor([0x7FC00000, 0x7FC00123], dtype=torch.int32).view(torch.float32).reshape(2, 1, 1, 1)
    assert torch.equal(*content_keys(odd_nan))
    halves = torch.rand(2, 3, 4, 4).half()
    assert torch.equal(content_keys(halves), content_keys(halves.float()))
    turned = torch.rand(2, 3, 4, 4)
    assert torch.equal(content_keys(turned), content_keys(turned.contiguous(memory_format=torch.channels_last)))


# RISE.


def bilinear_by_hand(grid, height, width):
    """Enlarge with half-pixel centres, repeating the edge; one pixel at a time."""
    rows, columns = grid.shape
    enlarged = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = grid[top, left] * (1 - x + left) + grid[top, right] * (x - left)
            lower = grid[bottom, left] * (1 - x + left) + grid[bottom, right] * (x - left)
            enlarged[i, j] = upper * (1 - y + top) + lower * (y - top)
    return enlarged


def rise_by_hand(net, image, number, member, hidden):
    """One mask at a time, after equation 6 of the paper, before the smallest value is taken away."""
    generator = torch.Generator().manual_seed(member.seed)
    s, (height, width) = member.cells, image.shape[1:]
    grids = (torch.rand(member.masks, s, s, generator=generator) < member.keep).double().numpy()
    shifts = torch.rand(member.masks, 2, generator=generator).numpy()
    cell_height, cell_width = -(-height // s), -(-width // s)
    total, shown = np.zeros((height, width)), np.zeros((height, width))
    for grid, shift in zip(grids, shifts, strict=True):
        wide = bilinear_by_hand(grid, (s + 1) * cell_height, (s + 1) * cell_width)
        top, left = int(shift[0] * cell_height), int(shift[1] * cell_width)
        mask = wide[top : top + height, left : left + width]
        shown_image = image.numpy() * mask + hidden.numpy() * (1 - mask)
        with torch.no_grad():
            logits = net(torch.from_numpy(shown_image).to(image.dtype)[None])[0].double()
        value = logits.softmax(dim=0)[number] if member.score == "probability" else logits[number]
        total += float(value) * mask
        shown += mask
    if member.coverage == "expected":
        total /= member.masks * member.keep
        return total.reshape(6, 2, 4, 2).mean(axis=(1, 3))
    return total.reshape(6, 2, 4, 2).mean(axis=(1, 3)) / shown.reshape(6, 2, 4, 2).mean(axis=(1, 3))


@pytest.mark.parametrize(
    "member",
    [
        RISE(masks=40, cells=5, keep=0.4, seed=3, coverage="expected"),
        RISE(masks=20, cells=3, score="logit", chunk_size=7),
        RISE(masks=20, cells=3, coverage="expected", baseline="white"),
    ],
    ids=repr,
)
def test_rise_equals_the_formula(member):
    net, images = curved().double(), some_images(3).double()
    pass_ = pass_of(net, images, classes=torch.tensor([0, 3, 1]), space=PixelSpace((0.25,), (0.5,)))
    # White in the model's units; inputs lie inside the range of pixels.
    hidden = torch.full((3, 12, 8), 1.5 if member.baseline == "white" else 0.0, dtype=torch.float64)
    for image, number, ours in zip(images, pass_.classes.tolist(), member(pass_), strict=True):
        wanted = rise_by_hand(net, image, number, member, hidden)
        np.testing.assert_allclose(ours.numpy(), wanted - wanted.min(), rtol=1e-5, atol=1e-7)


class Quadrant(nn.Module):
    """Sees one quarter of the image only: class 1 is its brightness."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images):
        corner = self.pool(images)[:, :, :2, 2:].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(corner), 4 * corner], dim=1)


@pytest.mark.parametrize("member", [RISE(masks=300, cells=4), OcclusionSensitivity()], ids=repr)
def test_hiding_finds_the_quarter_that_is_seen(member):
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    maps = member(pass_of(Quadrant(), images, "pool", classes=torch.ones(4, dtype=torch.int64)))
    assert maps.shape == (4, 4, 4)
    inside, outside = maps[:, :2, 2:].flatten(1), maps.clone()
    outside[:, :2, 2:] = 0
    assert (inside.amin(dim=1) > outside.flatten(1).amax(dim=1)).all()


def test_measured_coverage_keeps_luck_out_of_rise():
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    pass_ = pass_of(Quadrant(), images, "pool", classes=torch.ones(8, dtype=torch.int64))

    def repeatability(coverage):
        first, second = (RISE(masks=200, coverage=coverage, seed=seed)(pass_).flatten(1) for seed in (0, 1))
        return np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(first, second, strict=True)])

    assert repeatability("measured") > 0.9 > repeatability("expected")


def test_rise_with_more_images_than_a_chunk():
    net, images = curved(), some_images(5)
    pass_ = pass_of(net, images)
    torch.testing.assert_close(RISE(masks=30, chunk_size=2)(pass_), RISE(masks=30)(pass_), rtol=1e-3, atol=1e-6)


# Occlusion.


@pytest.mark.parametrize(
    "member",
    [
        OcclusionSensitivity(),
        OcclusionSensitivity(window=0.4, stride=0.3, score="logit", chunk_size=3),
        OcclusionSensitivity(window=0.5, stride=0.5, baseline="black"),
    ],
    ids=repr,
)
def test_occlusion_equals_a_slow_loop(member):
    net, images = curved().double(), some_images(3).double()
    space = PixelSpace((0.25,), (0.5,))
    pass_ = pass_of(net, images, classes=torch.tensor([4, 2, 1]), space=space)
    hidden = -0.5 if member.baseline == "black" else 0.0

    def score(image, number):
        with torch.no_grad():
            logits = net(image[None])[0]
        return float(logits.softmax(dim=0)[number] if member.score == "probability" else logits[number])

    for image, number, ours in zip(images, pass_.classes.tolist(), member(pass_), strict=True):
        drops, counts = np.zeros((12, 8)), np.zeros((12, 8))
        for top in starts(12, member):
            for left in starts(8, member):
                bottom, right = top + max(1, round(12 * member.window)), left + max(1, round(8 * member.window))
                copy = image.clone()
                copy[:, top:bottom, left:right] = hidden
                drops[top:bottom, left:right] += score(image, number) - score(copy, number)
                counts[top:bottom, left:right] += 1
        assert counts.min() > 0
        wanted = (drops / counts).reshape(6, 2, 4, 2).mean(axis=(1, 3)).clip(min=0)
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-6, atol=1e-9)


def starts(size, member):
    window, stride = max(1, round(size * member.window)), max(1, round(size * member.stride))
    at = 0
    while at + window < size:
        yield at
        at += stride
    yield size - window


def test_occlusion_asks_baselines_with_the_window_it_hides():
    seen = []

    def spy(pixels, *, removed, randomness):
        seen.append((removed.clone(), randomness.uniform((2,))))
        return pixels

    net, images = curved(), some_images(2).clamp(0, 1)
    maps = OcclusionSensitivity(window=0.5, stride=0.5, baseline=spy)(pass_of(net, images))
    # The image itself in place of the image: nothing changes, to the last bit but for the batch's size.
    assert maps.abs().max() < 1e-6
    assert torch.stack([removed for removed, _ in seen]).sum(dim=0).eq(1).all()
    # Two images, and all windows, get the same random numbers.
    assert len({tuple(row) for _, drawn in seen for row in drawn.tolist()}) == 1


# What none of them does.


@pytest.mark.parametrize("name", ["rise", "occlusion", "fullgrad", "attention_rollout"])
def test_volumes_are_refused_by_name(name):
    net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with pytest.raises(ArgumentError, match=f"'{name}'.*volumes"):
        compute_cams(net, torch.rand(2, 1, 6, 7, 8), name, target_layer="1")


@pytest.mark.parametrize(
    "name", ["eigengradcam", "gradcam_elementwise", "smooth", "shapleycam", "finercam", "randomcam"]
)
def test_volumes_are_explained(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    (maps,) = compute_cams(net, torch.rand(2, 1, 6, 7, 8), name, target_layer="1").values()
    assert maps.shape == (2, 4, 5, 6)
    assert maps.isfinite().all()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: SmoothCAM(copies=0), "SmoothCAM: `copies`"),
        (lambda: SmoothCAM(sigma=float("nan")), "SmoothCAM: `sigma`"),
        (lambda: SmoothCAM(augment="flip"), "SmoothCAM: `augment`"),
        (lambda: FullGrad(rescale="image"), "FullGrad: `rescale`"),
        (lambda: ShapleyCAM(score="loss"), "ShapleyCAM: `score`"),
        (lambda: FinerCAM(alpha=-1), "FinerCAM: `alpha`"),
        (lambda: FinerCAM(references=0), "FinerCAM: `references`"),
        (lambda: FinerCAM(weighting="max"), "FinerCAM: `weighting`"),
        (lambda: RandomCAM(weights="batch"), "RandomCAM: `weights`"),
        (lambda: RISE(masks=0), "RISE: `masks`"),
        (lambda: RISE(cells=0), "RISE: `cells`"),
        (lambda: RISE(chunk_size=0), "RISE: `chunk_size`"),
        (lambda: RISE(keep=1.0), "RISE: `keep`"),
        (lambda: RISE(score="loss"), "RISE: `score`"),
        (lambda: RISE(coverage="none"), "RISE: `coverage`"),
        (lambda: OcclusionSensitivity(window=1.5), "OcclusionSensitivity: `window`"),
        (lambda: OcclusionSensitivity(stride=0.5), "OcclusionSensitivity: `window` and `stride`"),
        (lambda: OcclusionSensitivity(chunk_size=0), "OcclusionSensitivity: `chunk_size`"),
        (lambda: OcclusionSensitivity(score="loss"), "OcclusionSensitivity: `score`"),
    ],
)
def test_bad_settings_are_refused(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


def test_unknown_baseline_is_refused():
    with pytest.raises(UnknownNameError, match="'blackk'"):
        RISE(masks=2, baseline="blackk")(pass_of(curved(), some_images().clamp(0, 1)))


class NormAct(nn.BatchNorm2d):
    """A normalisation that goes on with an activation, as in timm."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.act = act

    def forward(self, images):
        return self.act(super().forward(images))


def normalised_network(kind):
    torch.manual_seed(6)
    act = nn.ReLU(inplace=True)
    norm = {"apart": lambda: nn.Sequential(nn.BatchNorm2d(5), act), "inside": lambda: NormAct(5, act)}.get(
        kind, lambda: nn.Sequential(nn.SyncBatchNorm(5), act)
    )()
    net = nn.Sequential(nn.Conv2d(3, 5, 3), norm, nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            generator = torch.Generator().manual_seed(1)
            module.running_mean.copy_(torch.rand(5, generator=generator) - 0.5)
            module.bias.data.copy_(torch.rand(5, generator=generator) - 0.5)
    return net.eval()


@pytest.mark.parametrize("kind", ["inside", "synchronised"])
def test_full_gradients_know_every_normalisation(kind):
    images = torch.rand(2, 3, 8, 8)
    plain, other = (normalised_network(each) for each in ("apart", kind))
    torch.testing.assert_close(plain(images), other(images))
    wanted, found = (compute_cams(each, images, "fullgrad", target_layer="0")["fullgrad"] for each in (plain, other))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_fullgrad_refuses_a_normalisation_that_it_does_not_understand():
    class Odd(nn.BatchNorm2d):
        def forward(self, images):
            return super().forward(images).sin()

    net = nn.Sequential(nn.Conv2d(3, 5, 3), Odd(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ModelError, match=r"layer '1' \(Odd\) does more than normalise"):
        compute_cams(net, torch.rand(1, 3, 8, 8), "fullgrad")


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.first, self.second = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
        self.again = False

    def block(self, images):
        return self.second(self.first(images).relu()).relu()

    def forward(self, images):
        features = checkpoint(self.block, images, use_reentrant=False) if self.again else self.block(images)
        return features.mean(dim=(2, 3))


def test_fullgrad_of_checkpointed_blocks():
    net, images = Checkpointed().eval(), torch.rand(2, 3, 8, 8)
    wanted = compute_cams(net, images, "fullgrad", target_layer="second")
    net.again = True
    torch.testing.assert_close(compute_cams(net, images, "fullgrad", target_layer="second"), wanted)


@pytest.mark.parametrize("method", ["fullgrad", "shapleycam", "smooth", "finercam", "rise", "occlusion", "scorecam"])
def test_images_of_half_precision_under_autocast(method):
    net, images = normalised_network("apart"), torch.rand(2, 3, 8, 8)
    (wide,) = compute_cams(net, images, method).values()
    with torch.autocast("cpu", torch.bfloat16):
        (half,) = compute_cams(net, images.bfloat16(), method).values()
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert float(torch.corrcoef(torch.stack([wide.flatten(), half.flatten()]))[0, 1]) > 0.9


def test_fusion_hides_near_images_behind_the_same_random_baseline():
    net, images = VGGLike().eval(), torch.rand(1, 3, 32, 32)
    near = images.clone()
    near[0, 0, 0, 0] += 0.02
    space = PixelSpace((0.0,), (1.0,))
    layer = find_target_layer(net, images)
    first, second = (
        FusionCAM(baseline="uniform_noise")._hidden(trace(net, each, target_layer=layer, space=space))
        for each in (images, near)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    assert float(first.std()) > 0.1
