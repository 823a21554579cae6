"""Score-CAM against pytorch-grad-cam and against a slow loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lightning_camrobust.cams.pytorch_grad_cam import from_name
from lightning_camrobust.cams.scorecam import ScoreCAM
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.trace import trace


def make_trace(*, channels=7, activation=nn.ReLU, size=(12, 9), classes=None, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, channels, 3, padding=1),
        activation(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 5),
    ).eval()  # fmt: skip
    network[-1].weight.data.mul_(6)
    images = torch.randn(3, 3, *size)
    return trace(network, images, target_layer=network[4], classes=classes)


def upsampling(size, target):
    """Matrix of linear interpolation with half-pixel centres, one number at a time."""
    matrix = np.zeros((target, size))
    for row in range(target):
        place = min(max((row + 0.5) * size / target - 0.5, 0), size - 1)
        left = min(int(place), size - 2)
        matrix[row, left], matrix[row, left + 1] = 1 - (place - left), place - left
    return matrix


def slow_scorecam(pass_, *, top=None):
    maps = []
    for image, activation, label in zip(pass_.images, pass_.activation.double().numpy(), pass_.classes, strict=True):
        norms = [float(np.sqrt((channel**2).sum())) for channel in activation]
        kept = sorted(range(len(norms)), key=lambda each: -norms[each])[:top]
        rows, columns = (upsampling(a, b) for a, b in zip(activation.shape[1:], image.shape[1:], strict=True))
        scores = []
        for channel in kept:
            large = rows @ activation[channel] @ columns.T
            span = activation[channel].max() - activation[channel].min()
            mask = (large - large.min()) / (large.max() - large.min()) if span > 0 else np.zeros_like(large)
            with torch.no_grad():
                scores.append(float(pass_.model((image * torch.from_numpy(mask).float())[None])[0, label]))
        weights = np.exp(np.array(scores) - max(scores))
        weights /= weights.sum()
        maps.append(np.maximum(sum(w * activation[c] for w, c in zip(weights, kept, strict=True)), 0))
    return np.stack(maps)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_pytorch_grad_cam_after_its_scaling(seed, activation):
    pass_ = make_trace(seed=seed, activation=activation)
    maps = ScoreCAM(align_corners=True)(pass_)
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    assert (high > low).all()
    theirs = from_name("ScoreCAM")(pass_)
    torch.testing.assert_close((maps - low) / (high - low), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_equals_the_slow_loop(activation):
    pass_ = make_trace(activation=activation)
    np.testing.assert_allclose(ScoreCAM()(pass_).numpy(), slow_scorecam(pass_), rtol=0, atol=1e-5)


def test_flat_channels_show_nothing_and_are_weighted_by_that():
    pass_ = make_trace()
    activation = pass_.activation.clone()
    # Upsampling 0.7 leaves float dust, which must not become a mask.
    activation[:, 1], activation[:, 4] = 0.7, 0.0
    pass_ = replace(pass_, activation=activation)
    np.testing.assert_allclose(ScoreCAM()(pass_).numpy(), slow_scorecam(pass_), rtol=0, atol=1e-5)


def test_top_channels_are_those_of_the_largest_norm():
    pass_ = make_trace(channels=9, activation=nn.Tanh)
    maps = ScoreCAM(top_channels=3)(pass_)
    np.testing.assert_allclose(maps.numpy(), slow_scorecam(pass_, top=3), rtol=0, atol=1e-5)
    assert not torch.allclose(maps, ScoreCAM()(pass_))
    torch.testing.assert_close(ScoreCAM(top_channels=20)(pass_), ScoreCAM()(pass_), rtol=0, atol=0)


def test_only_a_chunk_of_masked_images_is_in_memory():
    pass_ = make_trace(channels=7)
    sizes = []

    def forward(inputs):
        sizes.append(len(inputs))
        return pass_.forward(inputs)

    # Nothing but `forward` may run the network: it knows the precision of the trace.
    watched = replace(pass_, forward=forward, model=None)
    maps = ScoreCAM(chunk_images=4)(watched)
    assert sizes == [4] * 5 + [1]
    torch.testing.assert_close(maps, ScoreCAM()(pass_), rtol=0, atol=1e-6)


def test_explains_the_class_of_the_trace():
    first, second = (make_trace(classes=torch.full((3,), number)) for number in (0, 1))
    difference = ScoreCAM()(first) - ScoreCAM()(second)
    assert (difference.abs().amax(dim=(1, 2)) > 1e-3).all()


def test_volumes_are_upsampled_along_three_axes():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(4 * 24, 3)
    )
    pass_ = trace(network, torch.rand(2, 1, 4, 6, 8), target_layer=network[2])
    maps = ScoreCAM()(pass_)
    for image, activation, label, found in zip(pass_.images, pass_.activation, pass_.classes, maps, strict=True):
        matrices = [upsampling(a, b) for a, b in zip(activation.shape[1:], image.shape[1:], strict=True)]
        large = np.einsum("cdhw,Dd,Hh,Ww->cDHW", activation.numpy(), *matrices)
        low, high = large.min(axis=(1, 2, 3), keepdims=True), large.max(axis=(1, 2, 3), keepdims=True)
        masks = torch.from_numpy((large - low) / (high - low)).float()
        weights = network(image * masks[:, None])[:, label].softmax(dim=0)
        expected = torch.einsum("c,cdhw->dhw", weights, activation).relu()
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("setting", [{"top_channels": 0}, {"chunk_images": 0}, {"chunk_images": -3}])
def test_settings_below_one_are_refused(setting):
    with pytest.raises(ArgumentError, match=f"ScoreCAM: `{next(iter(setting))}` must be 1 or more, got"):
        ScoreCAM(**setting)
