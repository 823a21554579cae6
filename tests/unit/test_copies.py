import pytest
import torch
from torch import nn

from lightning_camrobust.copies import copies_that_fit
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import count_runs
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import make_plan
from lightning_camrobust.probe import probe
from lightning_camrobust.trace import trace
from tests.networks import digits, small_cnn


@pytest.mark.parametrize(
    ("images", "pass_bytes", "free_bytes", "copies"),
    [
        (32, 1, 10**9, 8),  # 256 images keep an accelerator busy
        (32, 100, 700, 3),  # half of the free memory
        (32, 100, 0, 1),
        (500, 1, 10**9, 1),
        (1, 0, 10**9, 256),
    ],
)
def test_copies_that_fit(images, pass_bytes, free_bytes, copies):
    assert copies_that_fit(images=images, pass_bytes=pass_bytes, free_bytes=free_bytes) == copies


class Deep(nn.Module):
    """Runs its layer once more for bright images."""

    def __init__(self):
        super().__init__()
        self.layer, self.linear = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 3)

    def forward(self, images):
        features = self.layer(images)
        if images.mean() > 0.5:
            features = self.layer(features)
        return self.linear(features.mean(dim=(2, 3)))


def test_a_layer_that_runs_less_often_than_before_is_explained():
    net, dark = Deep().eval(), torch.rand(2, 1, 8, 8) * 0.2
    with observe_only(net):
        assert count_runs(net, net.layer, torch.ones(1, 1, 8, 8)) == 2
        found = trace(net, dark, target_layer=net.layer, runs=2)
        wanted = trace(net, dark, target_layer=net.layer)
    assert found.runs == 1
    assert torch.equal(found.activation, wanted.activation)
    assert torch.equal(found.gradient, wanted.gradient)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("copies", [2, 3, 100])
def test_taking_copies_together_changes_no_number(copies, multilabel):
    torch.manual_seed(0)
    net = small_cnn().eval()
    images = digits()[0][:6]
    with torch.no_grad():
        # Centred, or every image would be of one class, and the order of copies would not show.
        net[10].bias.copy_(-net[10].weight @ net[:9](images).mean(dim=0))
    plan = make_plan(
        ("gradcam", "eigencam", "pytorch_grad_cam:GradCAM"),
        ("gaussian_noise", "impulse_noise"),
        severities=(1, 3, 5),
        segmenter="grid",
        multilabel=multilabel,
    )
    found = {}
    for together in (1, copies):
        with observe_only(net):
            found[together] = probe(
                net, images, plan=plan, target_layer=net[6], space=PixelSpace((0.0,), (1.0,)), copies=together,
                keep_noises=(1, 4),
            )  # fmt: skip
    alone, grouped = found[1], found[copies]
    changed = ~alone.comparison.same_class
    assert len(alone.clean.classes.unique()) > 1
    assert 0 < changed.sum() < changed.numel()
    torch.testing.assert_close(grouped.comparison.similarity, alone.comparison.similarity, equal_nan=True)
    assert torch.equal(grouped.comparison.same_class, alone.comparison.same_class)
    assert torch.equal(grouped.comparison.rankable, alone.comparison.rankable)
    for index in (1, 4):
        assert torch.equal(grouped.noisy[index].images, alone.noisy[index].images)
        torch.testing.assert_close(grouped.noisy[index].maps, alone.noisy[index].maps)
