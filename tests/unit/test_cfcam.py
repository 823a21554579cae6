"""CF-CAM against scikit-learn's DBSCAN and a real convolution."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from sklearn.cluster import DBSCAN
from torch import nn
from torch.nn.functional import conv2d

from lightning_camrobust.cams.cfcam import CFCAM
from lightning_camrobust.cams.gradcam import GradCAM
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.trace import trace

SCRIPT = {"weighting": "softmax", "filter": "code"}


def make_network(channels, *, head="pool", seed=0):
    torch.manual_seed(seed)
    heads = {
        "pool": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)],
        "flatten": [nn.Flatten(), nn.LazyLinear(24), nn.ReLU(), nn.Linear(24, 10)],
    }
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, channels, 3, padding=1), nn.ReLU(),
        *heads[head],
    ).eval()  # fmt: skip


def make_trace(channels=32, *, head="flatten", size=(14, 12), seed=0, images=2, classes=None):
    network = make_network(channels, head=head, seed=seed)
    pictures = torch.randn(images, 3, *size)
    with torch.no_grad():
        network(pictures)
    return trace(network, pictures, target_layer=network[4], classes=classes)


def crafted_trace(activation, gradient=None):
    """A trace whose activation and gradient are what a test wants."""
    pass_ = make_trace(4)
    if gradient is None:
        gradient = torch.randn(activation.shape, generator=torch.Generator().manual_seed(5)).to(activation.dtype)
    return replace(pass_, activation=activation, gradient=gradient)


def coded_filter(slopes):
    """Filter one gradient ``(h, w)`` by the one kernel of the script."""
    height, width = slopes.shape
    y, x = np.mgrid[:height, :width]
    kernel = np.exp(-((y - height / 2) ** 2 + (x - width / 2) ** 2) / (2 * 5.0**2))
    kernel = kernel * np.exp(-((slopes - slopes.mean()) ** 2) / (2 * 0.1**2))
    kernel = torch.from_numpy(kernel / (kernel.sum() + 1e-6))
    with warnings.catch_warnings():
        # Even kernels need a copy, says PyTorch.
        warnings.simplefilter("ignore")
        return conv2d(torch.from_numpy(slopes)[None, None], kernel[None, None], padding="same")[0, 0].numpy()


def gaussian_filter(slopes, sigma):
    height, width = slopes.shape
    y, x = np.mgrid[1 - height : height, 1 - width : width]
    kernel = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    return convolve2d(slopes, kernel, mode="same") / convolve2d(np.ones_like(slopes), kernel, mode="same")


def reference(pass_, *, norm=75, eps=25, fraction=0.05, weighting="linear", filter="gaussian", sigma=1.0, found=None):
    """CF-CAM with scikit-learn and loops; what DBSCAN found is left in ``found``."""
    maps = []
    for activation, gradient in zip(pass_.activation.double().numpy(), pass_.gradient.double().numpy(), strict=True):
        points = activation.reshape(len(activation), -1)
        norms = np.sqrt((points**2).sum(axis=1))
        important = norms >= np.percentile(norms, norm)
        weights = {int(channel): gradient[channel].mean() for channel in np.flatnonzero(important)}
        rest = np.flatnonzero(~important)
        if len(rest) > 1:
            distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in points[rest]] for a in points[rest]])
            radius = max(np.percentile(distances[~np.eye(len(rest), dtype=bool)], eps), 1e-5)
            dbscan = DBSCAN(eps=radius, min_samples=max(2, int(len(rest) * fraction)), metric="precomputed")
            labels = dbscan.fit(distances).labels_
            if found is not None:
                found.append((distances <= radius, labels, dbscan.core_sample_indices_))
            for cluster in set(labels) - {-1}:
                mean = gradient[rest[labels == cluster]].mean(axis=0)
                smooth = coded_filter(mean) if filter == "code" else gaussian_filter(mean, sigma)
                weights.update({int(channel): smooth.mean() for channel in rest[labels == cluster]})
        values = np.array(list(weights.values()))
        if weighting == "softmax":
            values = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        maps.append(np.maximum(np.einsum("c,chw->hw", values, activation[list(weights)]), 0))
    return torch.from_numpy(np.stack(maps)).to(pass_.activation.dtype)


@pytest.mark.parametrize("head", ["pool", "flatten"])
@pytest.mark.parametrize("channels", [1, 2, 5, 16, 33, 64, 128])
@pytest.mark.parametrize("seed", [0, 1])
def test_preset_equals_the_sklearn_reference(seed, channels, head):
    # Maps of 7 x 6 cells, so that one axis of the kernel has no middle.
    pass_ = make_trace(channels, head=head, seed=seed)
    pass_ = replace(pass_, gradient=pass_.gradient * 20)  # else softmax and the kernel see hardly any difference
    expected = reference(pass_, **SCRIPT)
    torch.testing.assert_close(CFCAM(paper_code=True)(pass_), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5, 33, 128])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_default_equals_the_sklearn_reference(channels, sigma):
    pass_ = make_trace(channels)
    torch.testing.assert_close(CFCAM(sigma=sigma)(pass_), reference(pass_, sigma=sigma), rtol=0, atol=1e-6)


def test_border_channels_join_the_cluster_that_sklearn_gives_them_to():
    shared = noise = several = 0
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        # Channels of two cells: points in a plane, where clusters touch.
        activation = torch.rand(1, 40, 1, 2, generator=generator).double()
        pass_ = crafted_trace(activation, torch.randn(1, 40, 1, 2, generator=generator).double())
        found = []
        expected = reference(pass_, norm=90, eps=6, fraction=0.15, filter="code", found=found)
        method = CFCAM(norm_percentile=90, eps_percentile=6, min_fraction=0.15, filter="code")
        torch.testing.assert_close(method(pass_), expected, rtol=0, atol=1e-9)
        ((near, labels, cores),) = found
        borders = sorted(set(np.flatnonzero(labels >= 0)) - set(cores))
        shared += sum(len(set(labels[cores][near[border, cores]])) > 1 for border in borders)
        noise, several = noise + (labels < 0).sum(), several + (labels.max() > 0)
    # Else the loop above would not have asked.
    assert shared >= 10
    assert noise > 100
    assert several > 50


@pytest.mark.parametrize("channels", [4, 5, 6, 9])
def test_the_radius_is_numpys_percentile_of_all_distances(channels):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        activation = torch.rand(1, channels, 1, 2, generator=generator).double()
        pass_ = crafted_trace(activation, torch.randn(1, channels, 1, 2, generator=generator).double())
        for percentile in range(0, 101, 10):
            expected = reference(pass_, norm=90, eps=percentile)
            method = CFCAM(norm_percentile=90, eps_percentile=percentile)
            torch.testing.assert_close(method(pass_), expected, rtol=0, atol=1e-9)


def test_long_chains_of_channels_are_one_cluster():
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    activation = torch.zeros(1, 100, 1, 2, dtype=torch.float64)
    activation[0, :90, 0, 0] = order.double()
    activation[0, 90:, 0, 1] = 1000.0 + torch.arange(10)  # the important ones
    pass_ = crafted_trace(activation)
    settings = {"norm_percentile": 90, "eps_percentile": 2, "min_fraction": 0.0}
    expected = reference(pass_, norm=90, eps=2, fraction=0.0)
    torch.testing.assert_close(CFCAM(**settings)(pass_), expected, rtol=0, atol=1e-9)


def test_channels_nearer_than_the_least_radius_are_neighbours():
    activation = torch.zeros(1, 40, 1, 2, dtype=torch.float64)
    activation[0, :30, 0, 0] = 1e-7 * torch.arange(30.0) ** 2
    activation[0, 30:, 0, 1] = 1.0
    pass_ = crafted_trace(activation, torch.randn(1, 40, 1, 2).double())
    # The percentile alone would be 1e-7, so that most channels would be noise.
    settings = {"eps_percentile": 0, "min_fraction": 0.1}
    found = []
    expected = reference(pass_, eps=0, fraction=0.1, found=found)
    assert (found[0][1] == 0).mean() == 1
    torch.testing.assert_close(CFCAM(**settings)(pass_), expected, rtol=0, atol=1e-12)


def test_gradient_noise_changes_the_linear_map_and_never_the_presets():
    pass_ = make_trace(64)
    for sigma in (1e-3, 1.0, 10.0):
        noise = torch.randn(pass_.gradient.shape, generator=torch.Generator().manual_seed(1)) * sigma
        noisy = replace(pass_, gradient=pass_.gradient + noise, clean_gradient=pass_.gradient)
        change = (CFCAM()(noisy) - CFCAM()(pass_)).abs().amax(dim=(1, 2))
        assert (change > 1e-5).all()
        torch.testing.assert_close(CFCAM(paper_code=True)(noisy), CFCAM(paper_code=True)(pass_), rtol=0, atol=0)
        # Its parts, put together by hand, make no such promise.
        assert not torch.equal(CFCAM(**SCRIPT)(noisy), CFCAM(**SCRIPT)(pass_))


@pytest.mark.parametrize("method", [CFCAM(), CFCAM(paper_code=True)], ids=["default", "preset"])
@pytest.mark.parametrize("values", [0.0, 0.7, -0.7], ids=str)
def test_constant_maps_give_finite_maps(method, values):
    maps = method(crafted_trace(torch.full((2, 12, 5, 4), values)))
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    torch.testing.assert_close(maps, maps[:, :1, :1].expand_as(maps), rtol=0, atol=1e-12)
    # Channels that differ from each other, each of them flat.
    steps = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 5, 4)
    pass_ = crafted_trace(steps.clone())
    settings = SCRIPT if method.paper_code else {}
    torch.testing.assert_close(method(pass_), reference(pass_, **settings), rtol=0, atol=1e-5)


@pytest.mark.parametrize("weighting", ["linear", "softmax"])
def test_all_noise_keeps_the_important_channels_only(weighting):
    pass_ = make_trace(64)
    found = []
    # A radius that hardly any two channels share, and a crowd of half of all channels.
    expected = reference(pass_, eps=0, fraction=0.5, weighting=weighting, found=found)
    assert all((labels == -1).all() for _, labels, _ in found)
    maps = CFCAM(eps_percentile=0, min_fraction=0.5, weighting=weighting)(pass_)
    assert maps.isfinite().all()
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)


def test_all_important_is_gradcam():
    ones = torch.zeros(1, 16, 16)
    ones[0].fill_diagonal_(1)  # one cell each: norms equal to the last bit
    for pass_ in (crafted_trace(ones.view(1, 16, 4, 4)), crafted_trace(torch.full((1, 16, 4, 5), 0.5))):
        torch.testing.assert_close(CFCAM()(pass_), GradCAM()(pass_), rtol=0, atol=1e-6)
        assert CFCAM(paper_code=True)(pass_).isfinite().all()
    pass_ = make_trace(24)
    torch.testing.assert_close(CFCAM(norm_percentile=0)(pass_), GradCAM()(pass_), rtol=0, atol=1e-6)


def test_a_constant_gradient_is_left_as_it_is_by_the_gaussian():
    pass_ = make_trace(48, head="pool")
    (narrow, wide) = (CFCAM(sigma=sigma)(pass_) for sigma in (0.5, 50.0))
    torch.testing.assert_close(narrow, wide, rtol=0, atol=1e-6)


def test_trouble_in_one_image_shows_in_its_map_only():
    pass_ = make_trace(16, images=3)
    for name in ("activation", "gradient"):
        broken = getattr(pass_, name).clone()
        broken[1, 3, 2, 2] = torch.nan
        for method in (CFCAM(), CFCAM(paper_code=True)):
            maps = method(replace(pass_, **{name: broken}))
            assert maps[1].isnan().all()
            torch.testing.assert_close(maps[[0, 2]], method(pass_)[[0, 2]], rtol=0, atol=0)


def test_volumes_are_clustered_and_filtered_along_three_axes():
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(2, 24, 1, 5, 4, generator=generator).double()
    slopes = torch.randn(flat.shape, generator=generator).double()
    for method in (CFCAM(), CFCAM(paper_code=True)):
        # One slice: the third axis multiplies every kernel by a constant, which scaling takes out again.
        volume = method(crafted_trace(flat, slopes))[:, 0]
        picture = method(crafted_trace(flat[:, :, 0], slopes[:, :, 0]))
        torch.testing.assert_close(volume, picture, rtol=0, atol=1e-6)
        # The order of the axes has no say.
        turned = method(crafted_trace(flat.movedim(2, 4), slopes.movedim(2, 4)))[..., 0]
        torch.testing.assert_close(turned, picture, rtol=0, atol=1e-6)


def correlations(method, *, classes=10):
    """Correlate maps of class y with maps of class y + 1, over images and classes, on a 128-channel toy network."""
    network = make_network(128, head="pool")
    images = torch.randn(10, 3, 28, 28)
    maps = [
        method(trace(network, images, target_layer=network[4], classes=torch.full((10,), number)))
        for number in range(classes)
    ]
    pairs = [
        (a.flatten(), b.flatten())
        for one, two in zip(maps, maps[1:], strict=False)
        for a, b in zip(one, two, strict=True)
    ]
    return [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs if all(each.std() > 0 for each in pair)]


def test_the_presets_map_hardly_depends_on_the_class_and_the_defaults_does():
    preset, default = correlations(CFCAM(paper_code=True)), correlations(CFCAM())
    assert min(preset) > 0.999
    assert np.mean(default) < 0.6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"norm_percentile": 101}, r"`norm_percentile` must lie in 0\.\.100, got 101"),
        ({"eps_percentile": -1}, r"`eps_percentile` must lie in 0\.\.100, got -1"),
        ({"min_fraction": 5}, r"`min_fraction` must lie in 0\.\.1, got 5"),
        ({"filter": "bilateral"}, "`filter` must be one of"),
        ({"weighting": "mean"}, "`weighting` must be one of"),
        ({"sigma": 0.0}, "`sigma` must be above 0"),
        ({"sigma": float("nan")}, "`sigma` must be above 0"),
        ({"paper_code": True, "sigma": 2.0}, "fixes every other setting, but sigma came with it"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ArgumentError, match=message):
        CFCAM(**setting)
