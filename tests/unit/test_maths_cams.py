"""Formulas of CAM methods against plain loops, unscaled, where a comparison of scaled maps would not see a factor."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_camrobust.attention import AttentionListener
from lightning_camrobust.cams.ablationcam import AblationCAM
from lightning_camrobust.cams.attention_rollout import AttentionRollout
from lightning_camrobust.cams.fullgrad import FullGrad
from lightning_camrobust.cams.fusioncam import FusionCAM
from lightning_camrobust.cams.gradcam_plusplus import GradCAMPlusPlus
from lightning_camrobust.cams.occlusion import OcclusionSensitivity
from lightning_camrobust.cams.scorecam import ScoreCAM
from lightning_camrobust.cams.shapleycam import ShapleyCAM
from lightning_camrobust.cams.smooth import SmoothCAM
from lightning_camrobust.cams.xgradcam import XGradCAM
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.trace import trace


def given(seed=0, zeros=False):
    generator = torch.Generator().manual_seed(seed)
    activation, gradient = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    if zeros:
        gradient = gradient.masked_fill(torch.rand(gradient.shape, generator=generator) < 0.4, 0)
    return SimpleNamespace(activation=activation, gradient=gradient)


def weighted_map(activation, weight_of):
    """``ReLU(sum_k w_k A_k)``, one cell at a time."""
    channels, height, width = activation.shape
    weights = [weight_of(channel) for channel in range(channels)]
    found = np.zeros((height, width))
    for channel, row, column in itertools.product(range(channels), range(height), range(width)):
        found[row, column] += weights[channel] * activation[channel, row, column]
    return np.maximum(found, 0)


@pytest.mark.parametrize("epsilon", [1e-7, 0.5])
def test_xgradcam_equals_its_formula(epsilon):
    pass_ = given()
    maps = XGradCAM(epsilon=epsilon)(pass_)
    for found, activation, gradient in zip(maps, pass_.activation.numpy(), pass_.gradient.numpy(), strict=True):

        def weight(channel, activation=activation, gradient=gradient):
            total = sum(activation[channel].ravel()) + epsilon
            return (
                sum(g * a for g, a in zip(gradient[channel].ravel(), activation[channel].ravel(), strict=True)) / total
            )

        np.testing.assert_allclose(found, weighted_map(activation, weight), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0, 1e-6, 0.5])
def test_gradcam_plusplus_equals_its_formula(epsilon):
    pass_ = given(seed=1, zeros=True)
    maps = GradCAMPlusPlus(epsilon=epsilon)(pass_)
    for found, activation, gradient in zip(maps, pass_.activation.numpy(), pass_.gradient.numpy(), strict=True):

        def weight(channel, activation=activation, gradient=gradient):
            total = sum(activation[channel].ravel())
            # A cell without gradient has no share, whatever stands below it.
            rising = [g for g in gradient[channel].ravel() if g > 0]
            return sum(g * g**2 / (2 * g**2 + total * g**3 + epsilon) for g in rising)

        np.testing.assert_allclose(found, weighted_map(activation, weight), rtol=1e-10, atol=1e-12)


def test_fusioncam_calls_a_map_flat_by_its_own_height():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    pass_ = trace(network, torch.rand(2, 3, 8, 8), target_layer=network[0])
    # Dust of a part in 10^7, on one map far above 1 and on one far below; and a true picture of the same heights.
    dust = torch.tensor([0.0, 1.0]).repeat(18).reshape(6, 6)
    for height in (1e3, 1e-3):
        flat = (height * (1 + 1e-7 * dust)).double().expand(2, 6, 6)
        steep = (height * (1 + 1e-3 * dust)).double().expand(2, 6, 6)
        assert not FusionCAM(gradient=lambda _, maps=flat: maps, region=lambda _, maps=flat: maps)(pass_).any()
        assert FusionCAM(gradient=lambda _, maps=steep: maps, region=lambda _, maps=steep: maps)(pass_).any()


class Beside(nn.Module):
    """A convolution that learns beside one under ``no_grad``, both with a bias."""

    def __init__(self):
        super().__init__()
        self.learns, self.frozen = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.classify = nn.Linear(4, 3)

    def forward(self, images):
        with torch.no_grad():
            beside = self.frozen(images)
        return self.classify((self.learns(images).relu() + beside).mean(dim=(2, 3)))


def test_fullgrad_leaves_out_what_no_gradient_reaches():
    torch.manual_seed(0)
    network, images = Beside().eval(), torch.rand(2, 3, 8, 8)
    maps = FullGrad()(trace(network, images, target_layer=network.learns))
    # Without its part under `no_grad` the network has the same gradients, as that part only adds a constant.
    with torch.no_grad():
        constant = network.frozen(images)
    alone = nn.Sequential(network.learns, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classify).eval()
    classes = network(images).argmax(dim=1)
    assert constant.any()
    expected = FullGrad()(trace(alone, images, target_layer=alone[0], classes=classes))
    torch.testing.assert_close(maps, expected)


def test_shapleycam_of_a_linear_head_is_gradcam():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    # With and without parameters that learn, as the gradient then has a graph of its own or none.
    for learns in (True, False):
        pass_ = trace(network.requires_grad_(learns), torch.rand(2, 3, 8, 8), target_layer=network[0])
        torch.testing.assert_close(ShapleyCAM()(pass_), resolve_member("cams", "gradcam")(pass_))


@pytest.mark.parametrize("softmax", [lambda x: torch.softmax(x, -1), lambda x: functional.softmax(x, 3)])
def test_a_softmax_by_hand_is_heard_however_its_axis_is_given(softmax):
    heard = []
    scores = torch.rand(2, 3, 5, 5)
    with AttentionListener(lambda probabilities, _: heard.append(probabilities)):
        softmax(scores)
        torch.softmax(scores, 1)
    assert len(heard) == 1
    torch.testing.assert_close(heard[0].sum(dim=3), torch.ones(2, 3, 5))


def small_pass(size=8):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * size**2, 3)).eval()
    return trace(network, torch.rand(2, 3, size, size), target_layer=network[1])


def test_a_budget_too_small_for_one_copy_is_one_copy_at_a_time():
    pass_ = small_pass()
    torch.testing.assert_close(AblationCAM(chunk_bytes=1)._measured_drops(pass_), AblationCAM()._measured_drops(pass_))


def test_a_window_smaller_than_a_pixel_is_a_pixel():
    pass_ = small_pass(size=3)
    # A quarter and an eighth of three pixels: one pixel, moved by one pixel.
    wanted = OcclusionSensitivity(window=1 / 3, stride=1 / 3)(pass_)
    torch.testing.assert_close(OcclusionSensitivity(window=0.25, stride=0.125)(pass_), wanted)


def test_scorecam_shows_all_of_a_channel_of_range_one():
    channels = torch.zeros(2, 3, 3)
    channels[0, 1, 1], channels[1, 0, 2] = 1.0, 1.0
    masks = ScoreCAM(align_corners=True, top_channels=1, chunk_images=1)._masks(channels, size=torch.Size((3, 3)))
    torch.testing.assert_close(masks, channels[:, None])


def test_smoothcam_makes_noise_for_half_precision_in_single():
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).half()
    noisy = [each for each, _ in SmoothCAM(copies=3)._noisy(images)]
    wide = [each for each, _ in SmoothCAM(copies=3)._noisy(images.float())]
    for found, wanted in zip(noisy, wide, strict=True):
        assert found.dtype == torch.float16
        assert torch.equal(found, wanted.half())


@pytest.mark.parametrize("ratio", [-0.01, -0.5, 1, 1.5])
def test_a_rollout_discards_a_share_of_the_attention_or_refuses(ratio):
    with pytest.raises(ArgumentError, match="discard_ratio"):
        AttentionRollout(discard_ratio=ratio)
    assert AttentionRollout(discard_ratio=0).discard_ratio == 0


# What a bare name stands for. A default that moves would move the numbers of everybody who did not ask for it.
# A member without settings needs no line here, and neither does a new one.
NAMED = [
    ("cams", "ablationcam", "AblationCAM(chunk_bytes=None)"),
    (
        "cams",
        "attention_rollout",
        "AttentionRollout(head_fusion='mean', discard_ratio=0.0, gradient=False, query='auto')",
    ),
    (
        "cams",
        "cfcam",
        "CFCAM(norm_percentile=75, eps_percentile=25, min_fraction=0.05, filter='gaussian', sigma=1.0, "
        "weighting='linear', paper_code=False)",
    ),
    ("cams", "finercam", "FinerCAM(alpha=1.0, references=3, weighting='mean', method='gradcam')"),
    ("cams", "fullgrad", "FullGrad(rescale='channel')"),
    (
        "cams",
        "fusioncam",
        "FusionCAM(gradient='gradcam', region='scorecam', theta=10, theta_on='positive', "
        "clamp_gain=True, second_stage='gain', baseline='zero', seed=0)",
    ),
    ("cams", "gradcam_plusplus", "GradCAMPlusPlus(epsilon=1e-06)"),
    (
        "cams",
        "occlusion",
        "OcclusionSensitivity(window=0.25, stride=0.125, baseline='zero', score='probability', seed=0, chunk_size=128)",
    ),
    ("cams", "randomcam", "RandomCAM(weights='image', seed=0)"),
    (
        "cams",
        "rise",
        "RISE(masks=500, cells=7, keep=0.5, baseline='zero', score='probability', coverage='measured', "
        "seed=0, chunk_size=128)",
    ),
    ("cams", "scorecam", "ScoreCAM(top_channels=None, chunk_images=32, align_corners=False)"),
    ("cams", "shapleycam", "ShapleyCAM(score='logit')"),
    ("cams", "smooth", "SmoothCAM(method='gradcam', copies=4, sigma=0.1, seed=0, augment='noise')"),
    ("cams", "xgradcam", "XGradCAM(epsilon=1e-07)"),
    ("compare", "rbo", "RankBiasedOverlap(p=0.2, ties='b')"),
    ("compare", "rbo_corrected", "CorrectedRankBiasedOverlap(p=0.2, ties='b')"),
    ("compare", "topk", "TopKOverlap(k=None, share=0.2)"),
    ("segment", "grid", "Grid(rows=7, columns=7)"),
    ("segment", "quickshift", "Quickshift(kernel_size=5.0, max_dist=200.0, ratio=0.2, min_side=224)"),
    ("segment", "quickshift_skimage", "QuickshiftSkimage(kernel_size=5.0, max_dist=200.0, ratio=0.2, min_side=224)"),
    ("segment", "slic", "Slic(n_segments=50, compactness=10.0, sigma=1.0)"),
    ("perturb", "cam_attack", "CAMAttack(loss='cosine', top_share=0.2, steps=20, levels=None)"),
    ("perturb", "lvat", "LVAT(objective='kl', xi=0.01, iterations=1, levels=None)"),
    ("perturb", "occlusion", "Occlusion(baseline='grey', grid=None, levels=None)"),
    ("perturb", "pgd", "PGD(norm='linf', steps=10, step_size=None, random_start=True, levels=None)"),
    ("perturb", "transformed", "Transformed(geometric=False)"),
    ("perturb", "vat", "VAT(xi=0.01, iterations=1, levels=None)"),
]


@pytest.mark.parametrize(("stage", "name", "settings"), NAMED, ids=[name for _, name, _ in NAMED])
def test_a_bare_name_stands_for_the_documented_settings(stage, name, settings):
    assert repr(resolve_member(stage, name)) == settings
