"""Fusion-CAM against a straight NumPy version of its five steps."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from lightning_camrobust.cams.fusioncam import FusionCAM
from lightning_camrobust.cams.gradcam import GradCAM
from lightning_camrobust.cams.layercam import LayerCAM
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.members import member_names
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.trace import trace

SPACE = PixelSpace((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@dataclass(frozen=True)
class Given:
    """A CAM method that returns what it was given."""

    maps: Tensor

    def __call__(self, pass_):
        return self.maps


@dataclass(frozen=True)
class Tint:
    """A baseline: the image in reverse, nothing random."""

    def __call__(self, pixels, *, removed, randomness):
        assert removed.shape == (len(pixels), 1, *pixels.shape[2:])
        assert removed.dtype == torch.bool
        assert removed.all()
        return 1 - pixels


@dataclass(frozen=True)
class Static:
    """A baseline of random pixels."""

    def __call__(self, pixels, *, removed, randomness):
        return randomness.uniform(tuple(pixels.shape[1:])).to(pixels.dtype)


def make_trace(*, seed=0, images=4, size=(19, 16), dtype=torch.float32, sharp=4, only=slice(None), classes=None):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 10, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(40, 5),
    ).eval().to(dtype)  # fmt: skip
    network[-1].weight.data.mul_(sharp)
    mean, std = (torch.tensor(each).to(dtype).view(1, 3, 1, 1) for each in (SPACE.mean, SPACE.std))
    pictures = ((torch.rand(images, 3, *size).to(dtype) - mean) / std)[only]
    return trace(network, pictures, target_layer=network[4], space=SPACE, classes=classes)


def upsampled(values, size):
    for axis, target in enumerate(size, start=values.ndim - 2):
        count = values.shape[axis]
        place = np.clip((np.arange(target) + 0.5) * count / target - 0.5, 0, count - 1)
        left = np.minimum(place.astype(int), count - 2)
        share = (place - left).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
        values = np.take(values, left, axis) * (1 - share) + np.take(values, left + 1, axis) * share
    return values


def minmax(values):
    values = values - values.min()
    return values / values.max() if values.max() > 0 else values


def softmax(values):
    values = np.exp(values - values.max())
    return values / values.sum()


def straight(pass_, index, *, theta=10, on="all", clamp=False, second="paper", hidden=0.0):
    """The five steps for one image, in NumPy; Grad-CAM and Score-CAM included."""
    image, label = pass_.images[index].numpy().astype(float), int(pass_.classes[index])
    activation, gradient = (each[index].numpy().astype(float) for each in (pass_.activation, pass_.gradient))
    size = image.shape[1:]

    def logits(picture):
        with torch.no_grad():
            return pass_.model(torch.from_numpy(picture)[None].to(pass_.images.dtype))[0].numpy().astype(float)

    def gain(mask):
        shown = mask * image + (1 - mask) * hidden
        difference = softmax(logits(shown))[label] - softmax(logits(image * 0 + hidden))[label]
        return max(difference, 0.0) if clamp else difference

    def shares(first, second_):
        if clamp:
            return (first / (first + second_), second_ / (first + second_)) if first + second_ > 0 else (0.5, 0.5)
        return first / (first + second_ + 1e-8), second_ / (first + second_ + 1e-8)

    gradcam = np.maximum(np.einsum("c,chw->hw", gradient.mean(axis=(1, 2)), activation), 0)
    first = minmax(upsampled(gradcam, size))
    chosen = first[first > 0] if on == "positive" else first
    first = minmax(np.where(first < np.percentile(chosen, theta), 0, first))

    large = upsampled(activation, size)
    scores = softmax(np.array([logits(image * minmax(channel))[label] for channel in large]))
    region = minmax(np.maximum(np.einsum("c,chw->hw", scores, large), 0))

    u, v = shares(gain(first), gain(region))
    union = minmax(u * first + v * region)
    u2, v2 = shares(gain(union), v if second == "paper" else gain(region))
    p, q = u2 * union, v2 * region
    agreement = np.clip(1 - np.abs(p - q), 0, 1)
    return minmax(agreement * np.maximum(p, q) + (1 - agreement) * (p + q) / 2), agreement


def assert_equals_straight(method, pass_, **settings):
    fused = method.fuse(pass_)
    for index in range(len(pass_.images)):
        expected = straight(pass_, index, **settings)
        np.testing.assert_allclose(fused.map[index].numpy(), expected[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(fused.agreement[index].numpy(), expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_paper_options_equal_straight_numpy(seed):
    assert_equals_straight(FusionCAM.paper(), make_trace(seed=seed, dtype=torch.float64))


def test_paper_options_equal_straight_numpy_in_float32():
    assert_equals_straight(FusionCAM.paper(), make_trace(seed=3))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("theta", [0, 10, 35])
def test_each_option_equals_straight_numpy(seed, theta):
    pass_ = make_trace(seed=seed, dtype=torch.float64)
    options = {"on": "positive", "clamp": True, "second": "gain"}
    assert_equals_straight(FusionCAM(theta=theta), pass_, theta=theta, **options)
    for name, field, value in (
        ("on", "theta_on", "all"),
        ("clamp", "clamp_gain", False),
        ("second", "second_stage", "paper"),
    ):
        method = FusionCAM(theta=theta, **{field: value})
        assert_equals_straight(method, pass_, theta=theta, **{**options, name: value})


def test_the_defaults_are_not_the_papers():
    paper = FusionCAM.paper()
    assert (paper.theta, paper.theta_on, paper.clamp_gain) == (10, "all", False)
    assert (paper.second_stage, paper.baseline, paper.gradient, paper.region) == (
        "paper",
        "zero",
        "gradcam",
        "scorecam",
    )
    pass_ = make_trace(seed=1)
    assert not torch.allclose(FusionCAM()(pass_), paper(pass_))


def test_equal_maps_fuse_to_themselves_exactly():
    for dtype in (torch.float32, torch.float64):
        pass_ = make_trace(dtype=dtype)
        maps = LayerCAM()(pass_)
        large = interpolate(maps[:, None], size=pass_.images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        large = large - large.amin(dim=(1, 2), keepdim=True)
        region = large / large.amax(dim=(1, 2), keepdim=True)
        fused = FusionCAM(gradient="layercam", region=LayerCAM(), theta=0).fuse(pass_)
        torch.testing.assert_close(fused.map, region, rtol=0, atol=0)
        torch.testing.assert_close(fused.agreement, torch.ones_like(region), rtol=0, atol=0)
        torch.testing.assert_close(fused.mean_agreement, torch.ones(4, dtype=dtype), rtol=0, atol=0)


def test_equal_maps_fuse_to_another_one_with_the_papers_second_stage():
    # It compares a raw gain with a share: that equal maps stay as they are is what the default mends.
    pass_ = make_trace(dtype=torch.float64)
    method = FusionCAM(gradient="layercam", region="layercam", theta=0, second_stage="paper")
    same = FusionCAM(gradient="layercam", region="layercam", theta=0)
    assert (method.fuse(pass_).map - same.fuse(pass_).map).abs().max() > 1e-3


@pytest.mark.parametrize("strength", [0.1, 3.0, 50.0])
@pytest.mark.parametrize("clamp_gain", [True, False])
@pytest.mark.parametrize("second_stage", ["gain", "paper"])
def test_negative_gains_stay_finite_and_within_bounds(second_stage, clamp_gain, strength):
    pass_ = make_trace(classes=torch.zeros(4, dtype=torch.int64))
    energies = []

    def forward(inputs):
        # The more of the image one sees, the less does the network believe in class 0.
        energies.append(inputs.abs().mean(dim=(1, 2, 3)))
        return torch.stack([-strength * energies[-1], torch.zeros(len(inputs))], dim=1)

    method = FusionCAM(second_stage=second_stage, clamp_gain=clamp_gain)
    fused = method.fuse(replace(pass_, forward=forward))
    assert all((energy >= energies[-4]).all() for energy in energies[-3:]), "no gain was negative"
    for values in (fused.map, fused.agreement, method(replace(pass_, forward=forward))):
        assert values.isfinite().all()
        assert values.min() >= 0
        assert values.max() <= 1
    assert (fused.map.amax(dim=(1, 2)) == 1).all()


def test_gains_that_cancel_stay_finite():
    pass_ = make_trace(classes=torch.zeros(4, dtype=torch.int64))
    answers = iter([0.5, 0.75, 0.25, 0.5])  # baseline, G, S, D

    def forward(inputs):
        confidence = torch.full((len(inputs),), next(answers), dtype=torch.float64)
        return torch.stack([confidence.log(), (1 - confidence).log()], dim=1)

    method = FusionCAM(clamp_gain=False, region=GradCAM())
    fused = method.fuse(replace(pass_, forward=forward))
    assert fused.map.isfinite().all()
    assert fused.agreement.isfinite().all()


def test_output_does_not_depend_on_the_batch():
    for method in (FusionCAM(), FusionCAM.paper(), FusionCAM(baseline=Static())):
        together = method.fuse(make_trace(images=4))
        for index in range(4):
            alone = method.fuse(make_trace(images=4, only=slice(index, index + 1)))
            torch.testing.assert_close(alone.map[0], together.map[index], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.agreement[0], together.agreement[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(19, 16), (21, 20), (64, 50)])
def test_theta_on_positive_zeroes_its_share_of_the_positive_pixels(size):
    pass_ = make_trace(size=size, dtype=torch.float64)
    gradient = GradCAM()(pass_)
    gradient[:, : gradient.shape[1] // 3] = 0  # so that many pixels are zero to begin with
    method = FusionCAM(theta=20, theta_on="positive")
    large = interpolate(gradient[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    denoised = method._denoised(large / large.amax(dim=(1, 2), keepdim=True))
    everywhere = FusionCAM(theta=20, theta_on="all")._denoised(large / large.amax(dim=(1, 2), keepdim=True))
    for before, after, untouched in zip(large, denoised, everywhere, strict=True):
        positive = int((before > 0).sum())
        assert abs(positive - int((after > 0).sum()) - 0.2 * positive) <= 1
        # The pixels that fall are the lowest ones.
        assert before[(before > 0) & (after == 0)].max() < before[after > 0].min()
        # The finding about the paper's option: more than 20% of the pixels are zero already, so it does nothing.
        assert int((before == 0).sum()) > 0.2 * before.numel()
        assert int((untouched > 0).sum()) == positive


def test_cells_hold_the_mean_of_their_area():
    pass_ = make_trace(size=(20, 16))
    fused = FusionCAM().fuse(pass_)
    assert fused.map.shape == fused.agreement.shape == (4, 20, 16)
    assert pass_.activation.shape[2:] == (10, 8)
    by_hand = fused.map.view(4, 10, 2, 8, 2).mean(dim=(2, 4))
    torch.testing.assert_close(FusionCAM()(pass_), by_hand, rtol=0, atol=1e-6)
    uneven = make_trace(size=(19, 17))
    expected = adaptive_avg_pool2d(FusionCAM().fuse(uneven).map, uneven.activation.shape[2:])
    torch.testing.assert_close(FusionCAM()(uneven), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clamp", [True, False])
def test_a_baseline_lies_behind_the_masks(clamp):
    # A network that is not too sure, or gains would be clamped away.
    pass_ = make_trace(dtype=torch.float64, sharp=1)
    mean, std = (np.array(each).reshape(3, 1, 1) for each in (SPACE.mean, SPACE.std))
    fused = FusionCAM(baseline=Tint(), clamp_gain=clamp).fuse(pass_)
    for index, image in enumerate(pass_.images.numpy()):
        hidden = ((1 - (image * std + mean)) - mean) / std
        expected, _ = straight(pass_, index, on="positive", clamp=clamp, second="gain", hidden=hidden)
        np.testing.assert_allclose(fused.map[index].numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in member_names("baseline") if name != "custom"])
def test_any_baseline_goes_by_name(name):
    maps = FusionCAM(baseline=name)(make_trace())
    assert maps.isfinite().all()
    assert (maps.amax(dim=(1, 2)) > 0).all()


def test_the_seed_decides_a_random_baseline():
    pass_ = make_trace(sharp=20)
    first, again, other = (FusionCAM(baseline=Static(), seed=seed).fuse(pass_).map for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other, atol=1e-6)


@pytest.mark.parametrize("gradient", ["hirescam", LayerCAM(), FusionCAM(region="eigencam")], ids=repr)
@pytest.mark.parametrize("region", ["ablationcam", GradCAM()], ids=repr)
def test_any_two_methods_can_be_fused(gradient, region):
    maps = FusionCAM(gradient=gradient, region=region)(make_trace())
    assert maps.isfinite().all()
    assert (maps.amax(dim=(1, 2)) > 0).all()


def test_only_forward_runs_the_network():
    pass_ = make_trace()
    shown = []

    def forward(inputs):
        shown.append(len(inputs))
        return pass_.forward(inputs)

    maps = FusionCAM(region=GradCAM())(replace(pass_, forward=forward, model=None))
    # One for the baseline, one each for G, S and D.
    assert shown == [4] * 4
    torch.testing.assert_close(maps, FusionCAM(region=GradCAM())(pass_), rtol=0, atol=0)


def test_flat_maps_are_zero_and_not_float_dust():
    pass_ = make_trace(size=(24, 20))
    for value in (0.1, 0.7, 1 / 3, 123.4):
        flat = Given(torch.full((4, 7, 6), value))
        fused = FusionCAM(gradient=flat, region=flat).fuse(pass_)
        torch.testing.assert_close(fused.map, torch.zeros(4, 24, 20), rtol=0, atol=0)
    # Next to a flat map, the other one is all there is.
    fused = FusionCAM(gradient=flat, region=GradCAM(), theta=0, clamp_gain=True).fuse(pass_)
    alone = FusionCAM(gradient=GradCAM(), region=GradCAM(), theta=0).fuse(pass_)
    assert ((fused.map > 0) == (alone.map > 0)).all()


def test_trouble_in_one_map_stays_there():
    pass_ = make_trace()
    maps = GradCAM()(pass_)
    broken = maps.clone()
    broken[2, 1, 1] = torch.nan
    method = FusionCAM(gradient=Given(broken))
    fused = method.fuse(pass_)
    clean = replace(method, gradient=Given(maps)).fuse(pass_)
    assert fused.map[2].isnan().all()
    torch.testing.assert_close(fused.map[[0, 1, 3]], clean.map[[0, 1, 3]], rtol=0, atol=1e-6)


def test_members_given_are_left_as_they_are():
    method = FusionCAM(gradient=LayerCAM(), baseline=Tint())
    twin = copy.deepcopy(method)
    method(make_trace())
    assert method == twin
    assert hash(method) == hash(twin)


def test_volumes_are_refused():
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    pass_ = trace(network, torch.rand(2, 1, 5, 6, 7), target_layer=network[1])
    with pytest.raises(ArgumentError, match="FusionCAM explains pictures only"):
        FusionCAM()(pass_)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"theta": 100}, "`theta` must be a percentile from 0 to below 100, got 100"),
        ({"theta": -1}, "`theta` must be a percentile"),
        ({"theta_on": "some"}, "`theta_on` must be one of"),
        ({"second_stage": "share"}, "`second_stage` must be one of"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ArgumentError, match=message):
        FusionCAM(**setting)


@pytest.mark.parametrize("field", ["gradient", "region", "baseline"])
def test_unknown_names_are_refused(field):
    with pytest.raises(UnknownNameError, match="'gradcma'"):
        FusionCAM(**{field: "gradcma"})(make_trace())
