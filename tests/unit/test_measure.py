"""Measuring offline: every similarity and disturbance from the same passes."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from lightning_camrobust import compute_cams, measure_stability
from lightning_camrobust.cams.smooth import SmoothCAM
from lightning_camrobust.errors import ArgumentError, ModelError, UnknownNameError
from lightning_camrobust.perturb.gaussian_noise import GaussianNoise
from lightning_camrobust.perturb.gradient_noise import GradientNoise
from lightning_camrobust.perturb.lvat import LVAT
from lightning_camrobust.perturb.transformed import Transformed
from lightning_camrobust.perturb.uniform_noise import UniformNoise
from lightning_camrobust.perturbation import perturb_images
from tests.networks import digits, small_cnn

NOISES = ("gaussian_noise", "elastic", "fgsm", "gradient_noise", "shot_noise")
HOW = {"segmenter": "grid", "severities": (2, 5)}


@pytest.fixture(scope="module")
def trained():
    """A small network that knows digits a little, so that noise flips some of its predictions."""
    torch.manual_seed(0)
    net, (images, labels) = small_cnn(), digits()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for start in range(0, 960, 32):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images[start : start + 32]), labels[start : start + 32]).backward()
        optimiser.step()
    return net.eval().requires_grad_(False), images[1000:1012]


def test_every_similarity_alone_equals_those_of_one_pass(trained):
    net, images = trained
    names = ["spearman", "ssim", "relative_l2"]
    together = measure_stability(net, images, ["gradcam", "layercam"], NOISES, similarities=names, **HOW)
    assert together.comparison.similarity.shape == (12, 20)
    for name in names:
        alone = measure_stability(net, images, ["gradcam", "layercam"], NOISES, similarity=name, **HOW)
        torch.testing.assert_close(
            alone.comparison.similarity, together.similarities[name], rtol=0, atol=1e-12, equal_nan=True
        )
        for row, wanted in zip(alone.table(), together.table(name), strict=True):
            assert row == pytest.approx(wanted, nan_ok=True)


def test_numbers_do_not_depend_on_the_chunk_size(trained):
    net, images = trained
    whole, parts = (
        measure_stability(net, images, "gradcam", NOISES, chunk_size=size, similarities=["cosine"], **HOW)
        for size in (12, 5)
    )
    torch.testing.assert_close(
        whole.comparison.similarity, parts.comparison.similarity, rtol=0, atol=1e-5, equal_nan=True
    )
    torch.testing.assert_close(whole.similarities["cosine"], parts.similarities["cosine"], atol=1e-5, rtol=0)
    assert torch.equal(whole.comparison.same_class, parts.comparison.same_class)


def test_table_and_report_count_every_pair(trained):
    net, images = trained
    found = measure_stability(net, images, ["gradcam", "eigencam"], NOISES, **HOW)
    rows = found.table()
    assert [(row["method"], row["perturbation"]) for row in rows[:3]] == [
        ("gradcam", "gaussian_noise"), ("eigencam", "gaussian_noise"), ("gradcam", "elastic")
    ]  # fmt: skip
    assert {row["same_count"] + row["changed_count"] + row["degenerate_count"] for row in rows} == {24}
    assert [row["perturbation"] for row in rows if row["geometric"]] == ["elastic", "elastic"]
    report = found.report()
    assert report["num_images"] == 12
    assert [(row["method"], row["geometric"]) for row in report["by_kind"]] == [
        ("gradcam", False), ("eigencam", False), ("gradcam", True), ("eigencam", True)
    ]  # fmt: skip
    assert {cell["perturbation"] for cell in report["cells"] if cell["geometric"]} == {"elastic"}
    moving = [row for row in rows if row["perturbation"] == "elastic"]
    assert [row["consistency"] for row in report["by_kind"][2:]] == [row["consistency"] for row in moving]
    assert found.report()["target_layer"] == "6"


def test_sensitivity_is_the_relative_change_of_the_map(trained):
    net, images = trained
    found = measure_stability(net, images, "hirescam", "shot_noise", similarities=["relative_l2"], **HOW)
    (clean,) = compute_cams(net, images, "hirescam").values()
    changes = []
    for severity in (2, 5):
        (noisy,) = compute_cams(net, perturb_images(images, "shot_noise", severity), "hirescam").values()
        changes.append((clean - noisy).double().flatten(1).norm(dim=1) / clean.double().flatten(1).norm(dim=1))
    wanted = torch.stack(changes)
    torch.testing.assert_close(found.sensitivity("hirescam"), wanted.amax(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sensitivity("hirescam", how="mean"), wanted.mean(dim=0), rtol=1e-4, atol=1e-6)


def test_gradient_noise_moves_only_maps_that_use_the_gradient(trained):
    net, images = trained
    found = measure_stability(net, images, ["layercam", "eigencam"], GradientNoise(), **HOW)
    layercam, eigencam = found.table()
    assert (layercam["changed_count"], eigencam["changed_count"]) == (0, 0)
    assert eigencam["consistency"] == pytest.approx(1, abs=1e-9)
    assert layercam["consistency"] < 0.95


class Blur(nn.Module):
    """A codec that loses much: it halves the image and enlarges it again."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 4)


def enlarge(code):
    return nn.functional.interpolate(code, scale_factor=4, mode="nearest")


def reconstruct_one(image):
    return enlarge(Blur()(image[None]))[0]


def test_latent_shifts_are_compared_with_the_reconstruction(trained):
    net, images = trained
    nothing = LVAT(encode=Blur(), decode=enlarge, levels=(0.0,) * 5)
    found = measure_stability(net, images, "gradcam", nothing, **HOW)
    (row,) = found.table()
    assert row["consistency"] == pytest.approx(1, abs=1e-9)
    assert row["changed_count"] == 0
    # Compared with the image itself, the loss of the codec would be booked as instability.
    lossy = measure_stability(net, images, "gradcam", Transformed(reconstruct_one), **HOW).table()[0]
    assert lossy["changed_count"] > 0 or lossy["consistency"] < 0.99


def test_the_network_is_left_as_it_was(trained):
    net, images = trained
    net = copy.deepcopy(net).train().requires_grad_(True)
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    measure_stability(net, images, "gradcam", NOISES, **HOW)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert net.training
    assert torch.equal(torch.get_rng_state(), generator)


def test_attack_without_a_network_is_refused():
    with pytest.raises(ArgumentError, match="perturb_images: 'fgsm' looks at the network .* Pass the classifier"):
        perturb_images(torch.rand(1, 3, 8, 8), "fgsm")


def test_attack_through_the_public_function_is_what_the_probe_does(trained):
    net, images = trained
    noisy = perturb_images(images, "fgsm", 5, model=net)
    assert float((noisy - images).abs().max()) == pytest.approx(16 / 255, abs=1e-6)
    found = measure_stability(net, images, "gradcam", "fgsm", severities=5, segmenter="grid")
    assert torch.equal(found.comparison.same_class[:, 0], net(noisy).argmax(dim=1) == net(images).argmax(dim=1))


def test_what_was_not_measured_cannot_be_asked_for(trained):
    net, images = trained
    found = measure_stability(net, images, "gradcam", similarities=["kendall"], **HOW)
    with pytest.raises(UnknownNameError, match="similarity 'ssim' was not measured"):
        found.table("ssim")
    with pytest.raises(UnknownNameError, match=r"similarity 'relative_l2' was not .* measure_stability\(similarities="):
        found.sensitivity("gradcam")
    with pytest.raises(UnknownNameError, match="no method is called 'gradcm'"):
        found.sensitivity("gradcm")
    with pytest.raises(ArgumentError, match="`chunk_size` must be a whole number of at least 1, got 0"):
        measure_stability(net, images, chunk_size=0)


def test_a_similarity_that_is_undefined_is_counted(trained):
    net, images = trained
    (row,) = measure_stability(net, images, "gradcam", similarity=Undefined(), **HOW).table()
    assert (row["degenerate_count"], row["consistency"]) == (24, None)
    assert dataclasses.is_dataclass(measure_stability(net, images, "gradcam", **HOW))


def test_gradient_noise_reaches_smoothed_maps_and_no_ablation(trained):
    net, images = trained
    methods = [SmoothCAM(method="layercam", sigma=0.0, copies=2), "layercam", "ablationcam"]
    smooth, layercam, ablation = measure_stability(net, images, methods, GradientNoise(), **HOW).table()
    assert smooth["consistency"] == pytest.approx(layercam["consistency"], abs=1e-9)
    assert ablation["consistency"] == pytest.approx(1, abs=1e-9)


class Undefined:
    def __call__(self, clean, noisy, *, present):
        return torch.full((len(clean),), torch.nan, dtype=torch.float64)


def test_the_table_of_a_similarity_does_not_depend_on_the_main_one(trained):
    net, images = trained
    main = measure_stability(net, images, "gradcam", NOISES, **HOW)
    for other in ("spearman", Undefined()):
        beside = measure_stability(net, images, "gradcam", NOISES, similarity=other, similarities=["rbo"], **HOW)
        assert beside.table("rbo") == main.table()


def test_layers_get_gradient_noise_of_their_own(trained):
    net, images = trained
    layer = nn.Sequential(nn.Identity(), nn.Identity())
    twice = nn.Sequential(net[:7], layer, *net[7:]).eval()
    seen = []

    class Spy:
        def __call__(self, trace):
            if trace.clean_gradient is not None:
                seen.append(trace.gradient - trace.clean_gradient)
            return trace.activation.sum(dim=1).relu()

    measure_stability(
        twice, images, Spy(), GradientNoise(), target_layer=["1.0", "1.1"], segmenter="grid", severities=5
    )
    first, second = (each.flatten() for each in seen)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


class Onlooker:
    """Disturbs nothing and notes which classes it was shown."""

    needs_network = True

    def __init__(self):
        self.seen = []

    def __call__(self, images, *, severity, randomness, network):
        self.seen.append((network.classes, network.explained))
        return images.clone()


def test_attacks_are_told_the_predicted_class_and_the_explained_one(trained):
    net, images = trained
    onlooker = Onlooker()
    measure_stability(net, images, "gradcam", onlooker, severities=5, segmenter="grid", target=3)
    predicted, explained = (torch.cat(each) for each in zip(*onlooker.seen, strict=True))
    assert torch.equal(predicted, net(images).argmax(dim=1))
    assert explained.tolist() == [3] * len(images)
    assert predicted.tolist() != explained.tolist()


def test_cam_attack_keeps_the_predicted_class_while_another_is_explained(trained):
    net, images = trained
    how = {"segmenter": "grid", "severities": 5, "target": 3, "target_layer": "3", "similarity": "cosine"}
    noises = ("cam_attack", UniformNoise(levels=(16 / 255,) * 5))
    attacked, noise = (measure_stability(net, images, "gradcam", each, **how).table()[0] for each in noises)
    assert attacked["changed_count"] == 0
    assert attacked["consistency"] < noise["consistency"]


def test_attacks_reach_sure_networks_in_half_precision(trained):
    net, images = trained
    sure = copy.deepcopy(net)
    with torch.no_grad():
        sure[-1].weight *= 40
        sure[-1].bias *= 40
    noisy = perturb_images(images, "fgsm", 5, model=sure)
    with torch.autocast("cpu", torch.float16):
        half = perturb_images(images, "fgsm", 5, model=sure)
    moved, moved_in_half = ((each != images).double().mean() for each in (noisy, half))
    assert float(moved) > 0.5
    assert float(moved_in_half) > 0.8 * float(moved)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"target": "cat"}, "`target` must be None"),
        ({"severity_column": "cifr"}, "`severity_column` must be 'auto'"),
        ({"chunk_size": 2.5}, "`chunk_size` must be a whole number"),
    ],
)
def test_wrong_settings_are_named_before_anything_runs(trained, wrong, complaint):
    net, images = trained
    with pytest.raises(ArgumentError, match=complaint):
        measure_stability(net, images, **wrong)
    with pytest.raises(ArgumentError, match="`levels` must hold five values"):
        measure_stability(net, images, "gradcam", GaussianNoise(levels=(0.1,)), **HOW)
    with pytest.raises(ArgumentError, match="`how` must be 'max' or 'mean'"):
        measure_stability(net, images, "gradcam", similarities=["relative_l2"], **HOW).sensitivity("gradcam", how="all")


def test_an_attack_on_logits_needs_no_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(2, 1, 8, 8)
    assert (perturb_images(images, "pgd", model=net) != images).any()
    with pytest.raises(ModelError, match="no cells"):
        perturb_images(images, "cam_attack", model=net)
