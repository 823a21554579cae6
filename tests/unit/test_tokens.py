"""Transformers: patch tokens `(b, n, c)` as cells of a map."""

import pytest
import pytorch_grad_cam
import torch
import torchvision

from lightning_camrobust import CAMRobustnessCallback, compute_cams
from lightning_camrobust.errors import ModelError
from lightning_camrobust.layout import Layout, find_layout
from tests.integration.test_callback import make_trainer, pytestmark  # noqa: F401
from tests.integration.test_parity import TWINS
from tests.networks import DigitModule, digit_loader

LAYER = "encoder.layers.encoder_layer_1.ln_1"
METHODS = ("gradcam", "gradcam_plusplus", "xgradcam", "hirescam", "layercam")


def small_vit(channels=3):
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    # Large enough that the 1e-7 which the twins add when they scale a map does not show.
    torch.nn.init.normal_(net.heads.head.weight, std=50.0)
    if channels != 3:
        net.conv_proj = torch.nn.Conv2d(channels, 16, 8, stride=8)
    return net.eval()


@pytest.mark.parametrize(
    ("tokens", "height", "width", "layout"),
    [
        (197, 224, 224, Layout(1, (14, 14))),
        (198, 224, 224, Layout(2, (14, 14))),  # class and distillation token
        (261, 256, 256, Layout(5, (16, 16))),  # class token and four registers
        (49, 224, 224, Layout(0, (7, 7))),
        (1 + 8 * 4, 128, 64, Layout(1, (8, 4))),
        (1 + 4 * 8, 64, 128, Layout(1, (4, 8))),
        (3 * 5, 48, 80, Layout(0, (3, 5))),
        (12, 224, 224, None),
        (1, 224, 224, None),
        (0, 224, 224, None),
    ],
)
def test_layouts_are_recognised(tokens, height, width, layout):
    assert find_layout(torch.rand(2, tokens, 3), torch.rand(2, 3, height, width)) == layout


def test_maps_are_layouts_as_they_are():
    maps = torch.rand(2, 3, 4, 5)
    layout = find_layout(maps, torch.rand(2, 3, 8, 10))
    assert layout.to_map(maps) is maps
    assert layout.from_map(maps, like=maps) is maps
    assert find_layout(torch.zeros(2, 16, 3, dtype=torch.int64), torch.rand(2, 3, 8, 8)) is None


def test_cells_are_in_raster_order():
    tokens = torch.arange(7.0).reshape(1, 7, 1)
    assert Layout(1, (2, 3)).to_map(tokens).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


@pytest.mark.parametrize("method", METHODS)
def test_gradient_methods_equal_their_twins(method):
    # In double precision: powers of nearly equal numbers, as in Grad-CAM++, keep few digits of single ones.
    net, images = small_vit().double(), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    layer = net.get_submodule(LAYER)
    with getattr(pytorch_grad_cam, TWINS[method])(
        net, [layer], reshape_transform=lambda x: x[:, 1:].reshape(3, 4, 4, 16).permute(0, 3, 1, 2)
    ) as cam:
        cam.get_target_width_height = lambda _images: (4, 4)
        theirs = torch.from_numpy(cam(images, targets=None))
    (ours,) = compute_cams(net, images, method, target_layer=LAYER).values()
    low, high = ours.amin(dim=(1, 2), keepdim=True), ours.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(((ours - low) / (1e-7 + high - low)).float(), theirs, rtol=0, atol=2e-6)
    (adapted,) = compute_cams(net, images, f"pytorch_grad_cam:{TWINS[method]}", target_layer=LAYER).values()
    torch.testing.assert_close(adapted.float(), theirs)


def test_ablation_zeroes_a_channel_of_the_patches_only():
    net, images = small_vit(), torch.rand(2, 3, 32, 32)
    layer = net.get_submodule(LAYER)
    (ours,) = compute_cams(net, images, "ablationcam", target_layer=LAYER).values()
    with torch.no_grad():
        logits = net(images)
        classes = logits.argmax(dim=1)
        wanted = torch.zeros(2, 4, 4)
        for channel in range(16):

            def ablate(_module, _args, output, channel=channel):
                output = output.clone()
                output[:, 1:, channel] = 0
                return output

            handle = layer.register_forward_hook(ablate)
            drop = (logits - net(images)).gather(1, classes[:, None])
            handle.remove()
            activation = layer.forward(tokens_before(net, layer, images))[:, 1:, channel].reshape(2, 4, 4)
            wanted += drop[..., None] * activation
    torch.testing.assert_close(ours, wanted.relu(), rtol=1e-4, atol=1e-5)


def tokens_before(net, layer, images):
    seen = []
    handle = layer.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    net(images)
    handle.remove()
    return seen[0]


def test_tokens_that_are_no_grid_are_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.linear = torch.nn.Identity(), torch.nn.Linear(7, 3)

        def forward(self, images):
            return self.linear(self.layer(images.flatten(1)[:, : 12 * 7].reshape(-1, 12, 7)).mean(dim=1))

    with pytest.raises(ModelError, match=r"patch tokens \(b, n, c\).*got shape \(2, 12, 7\)"):
        compute_cams(Odd(), torch.rand(2, 3, 32, 32), target_layer="layer")


def test_the_callback_explains_tokens(tmp_path):
    module = DigitModule()
    module.net = torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=10
    )
    module.net.conv_proj = torch.nn.Conv2d(1, 8, 4, stride=4)
    torch.nn.init.normal_(module.net.heads.head.weight)
    layer = "net.encoder.layers.encoder_layer_0.ln_1"
    callback = CAMRobustnessCallback(num_samples=4, segmenter="grid", severities=(5,), target_layer=layer)
    make_trainer(tmp_path, callback).validate(module, digit_loader(200, 8), verbose=False)
    assert callback.report["target_layer"] == layer
    assert callback.report["consistency"] is not None
