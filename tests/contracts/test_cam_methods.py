"""What every CAM method promises, and that explaining leaves no trace on the network."""

import copy
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from lightning_camrobust import compute_cams
from lightning_camrobust.cams.pytorch_grad_cam import from_name
from lightning_camrobust.errors import ModelError
from lightning_camrobust.trace import trace
from tests.contracts.specimens import specimens, unfinished

EVERY_METHOD = specimens("cams")
# Some explain attention only, and say so; they keep the same promises on a transformer.
OF_ATTENTION = [each for each in EVERY_METHOD if getattr(each, "needs", "") == "attention"]
METHODS = [each for each in EVERY_METHOD if each not in OF_ATTENTION]
# The adapter's classes have no example of their own; these two go about it differently (hooks, swapped layers).
ADAPTED = [from_name("GradCAM"), from_name("AblationCAM")]


class Boom(Exception):
    """Raised by a network on purpose; nobody has a reason to catch it."""


class LivelyNetwork(nn.Module):
    """Draws random numbers, keeps its parts in different modes, and fails in a forward of one's choice."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Conv2d(5, 6, 3)
        )
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Linear(6, 4)
        self.forwards = 0
        self.fails_at = None

    def forward(self, images):
        self.forwards += 1
        torch.rand(1), np.random.rand(), random.random()
        maps = self.features(images)
        if self.forwards == self.fails_at:
            raise Boom
        return self.classify(self.dropout(maps.mean(dim=(2, 3))))


def lively_network():
    """A network in the middle of a training: mixed modes, mixed gradients, frozen parts, hooks of the user's own."""
    torch.manual_seed(3)
    network = LivelyNetwork().train()
    network.features[1].eval()
    network.features[0].weight.requires_grad_(False)
    network.classify.weight.grad = torch.rand_like(network.classify.weight)
    network.features[3].bias.grad = torch.zeros_like(network.features[3].bias)
    network.features[3].register_forward_hook(lambda _module, _args, output: output * 1.0)
    return network


def modules_as_found(network):
    return [
        (name, id(module), module.training, "forward" in vars(module), hooks_as_found(module))
        for name, module in network.named_modules()
    ]


def hooks_as_found(module):
    return {name: tuple(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks") and hooks}


def parameters_as_found(network):
    return [
        (name, id(each), each.requires_grad, None if each.grad is None else id(each.grad))
        for name, each in network.named_parameters()
    ]


def values(network):
    grads = {f"{name}.grad": each.grad for name, each in network.named_parameters() if each.grad is not None}
    return copy.deepcopy({**network.state_dict(), **grads})


def random_streams():
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tolist(), rest), torch.get_rng_state().tolist()


def explain_and_compare_with_before(network, images, method):
    found = modules_as_found(network), parameters_as_found(network), random_streams(), values(network)
    image_before, graph_before, grad_mode = images.clone(), images.requires_grad, torch.is_grad_enabled()
    raised = False
    try:
        compute_cams(network, images, [method])
    except Boom:
        raised = True
    assert modules_as_found(network) == found[0]
    assert parameters_as_found(network) == found[1]
    assert random_streams() == found[2]
    torch.testing.assert_close(values(network), found[3], rtol=0, atol=0)
    torch.testing.assert_close(images, image_before, rtol=0, atol=0)
    assert (images.requires_grad, torch.is_grad_enabled()) == (graph_before, grad_mode)
    return raised


def small_network(dtype=torch.float32, channels=6):
    # A seed with which no map of no method is all zero.
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, channels, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 5),
    )  # fmt: skip
    return network.eval().to(dtype)


class Patches(nn.Module):
    """A transformer of two blocks over 4 x 3 patches, behind a class token."""

    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 2, stride=2)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(8, 5)

    def forward(self, images):
        tokens = self.cut(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1))
        return self.classify(tokens[:, 0])


def trace_of_attention(dtype=torch.float32, images=None):
    torch.manual_seed(4)
    network = Patches().eval().to(dtype)
    images = torch.rand(3, 3, 8, 6).to(dtype) if images is None else images
    return trace(network, images, target_layer=network.blocks.layers[-1].norm1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", OF_ATTENTION, ids=repr)
def test_methods_of_attention_keep_the_same_promises(method, dtype):
    pass_ = trace_of_attention(dtype)
    maps = method(pass_)
    assert (maps.shape, maps.dtype, maps.requires_grad) == ((3, 4, 3), dtype, False)
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    assert (maps.amax(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(method(pass_), maps, rtol=0, atol=0)
    alone = torch.cat([method(trace_of_attention(dtype, image[None])) for image in pass_.images])
    torch.testing.assert_close(alone, maps, rtol=0, atol=1e-5 * float(maps.max()))
    assert pickle.loads(pickle.dumps(method)) == method
    network, images = Patches().train(), torch.rand(2, 3, 8, 6)
    assert not explain_and_compare_with_before(network, images, method)


@pytest.mark.parametrize("method", OF_ATTENTION, ids=repr)
def test_methods_of_attention_refuse_a_network_without_it(method):
    with pytest.raises(ModelError, match="attention"):
        method(make_trace())


def make_trace(dtype=torch.float32, channels=6, layer=4, classes=None):
    network = small_network(dtype, channels)
    return trace(network, torch.rand(3, 3, 9, 7).to(dtype), target_layer=network[layer], classes=classes)


def test_every_file_shows_examples():
    assert METHODS
    assert OF_ATTENTION
    assert unfinished("cams") == []


@pytest.mark.parametrize("channels", [6, 50], ids=["few_channels", "more_channels_than_cells"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_maps_have_the_layers_resolution_and_dtype(method, dtype, channels):
    maps = method(make_trace(dtype, channels))
    assert maps.shape == (3, 7, 5)
    assert maps.dtype == dtype
    assert not maps.requires_grad
    assert maps.isfinite().all()
    # A map of zeros would keep all promises above.
    assert (maps.amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("layer", [2, 4], ids=["activation_above_0", "signed_activation"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_maps_are_never_negative(method, layer):
    for number in range(5):
        maps = method(make_trace(layer=layer, classes=torch.full((3,), number)))
        assert maps.isfinite().all()
        assert (maps >= 0).all()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_one_image_does_not_sway_another(method):
    network, images = small_network(), torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    (together,) = compute_cams(network, images, [method]).values()
    alone = torch.cat([next(iter(compute_cams(network, image[None], [method]).values())) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(together.max()))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_broken_image_keeps_its_trouble_to_itself(method):
    pass_ = make_trace()
    broken = torch.tensor([False, True, False])[:, None, None, None]
    with_nan = copy.copy(pass_)
    for name in ("activation", "gradient"):
        tensor = getattr(pass_, name)
        object.__setattr__(with_nan, name, torch.where(broken, torch.full_like(tensor, torch.nan), tensor))
    torch.testing.assert_close(method(with_nan)[[0, 2]], method(pass_)[[0, 2]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_trace_stays_as_it_is(method):
    pass_ = make_trace()
    before = {name: getattr(pass_, name).clone() for name in ("images", "logits", "classes", "activation", "gradient")}
    method(pass_)
    torch.testing.assert_close({name: getattr(pass_, name) for name in before}, before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_same_trace_gives_same_maps(method):
    pass_ = make_trace()
    torch.testing.assert_close(method(pass_), method(pass_), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_pickles_and_has_a_stable_repr(method):
    again = pickle.loads(pickle.dumps(method))
    assert again == method
    assert repr(again) == repr(method)
    assert " at 0x" not in repr(method)


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, EVERY_METHOD)).items() if count > 1] == []


@pytest.mark.parametrize("method", METHODS + ADAPTED, ids=repr)
def test_explaining_leaves_no_trace_on_the_network(method):
    assert not explain_and_compare_with_before(lively_network(), torch.rand(2, 3, 8, 8), method)


@pytest.mark.parametrize("method", METHODS + ADAPTED, ids=repr)
def test_failing_leaves_no_trace_on_the_network(method):
    network, images = lively_network(), torch.rand(2, 3, 8, 8)
    compute_cams(network, images, [method])
    for fails_at in range(1, network.forwards + 1):
        failing = lively_network()
        failing.fails_at = fails_at
        assert explain_and_compare_with_before(failing, images, method), f"forward {fails_at} did not raise"


def test_explaining_under_inference_mode_leaves_no_trace():
    network = lively_network()
    with torch.inference_mode():
        images = torch.rand(2, 3, 8, 8)
        assert not explain_and_compare_with_before(network, images, "gradcam")
        assert torch.is_inference_mode_enabled()
