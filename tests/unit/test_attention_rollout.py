"""Attention rollout against attention computed by hand from the weights of ViT, DeiT and their kin."""

import copy
import functools
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from lightning_camrobust import compute_cams
from lightning_camrobust.attention import AttentionListener
from lightning_camrobust.cams.attention_rollout import AttentionRollout
from lightning_camrobust.errors import ArgumentError, ModelError
from lightning_camrobust.trace import trace
from tests.contracts.test_cam_methods import explain_and_compare_with_before

timm = pytest.importorskip("timm")
HEADS = 2
PATCH, WIDTH, DEPTH = 8, 16, 3
ARGUMENTS = {
    "img_size": 32, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 5,
}  # fmt: skip


def lively(net):
    """Attention of an untrained transformer is all but uniform; larger weights make it choose."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "in_proj_weight" in name or "qkv.weight" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.8)
            elif "head" in name or "cls_token" in name or "pos_embed" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.eval()


def torchvision_vit():
    return lively(
        torchvision.models.VisionTransformer(
            image_size=32,
            patch_size=PATCH,
            num_layers=DEPTH,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            mlp_dim=32,
            num_classes=5,
        )  # fmt: skip
    )


def timm_vit(*, fused=True, **settings):
    net = timm.models.vision_transformer.VisionTransformer(**ARGUMENTS, **settings)
    for block in net.blocks:
        block.attn.fused_attn = fused
    return lively(net)


def distilled_deit():
    return lively(timm.models.deit.VisionTransformerDistilled(**ARGUMENTS))


NETWORKS = {
    "torchvision": (torchvision_vit, "conv_proj", 1),
    "timm_fused": (timm_vit, "patch_embed.proj", 1),
    "timm_by_hand": (lambda: timm_vit(fused=False), "blocks.2.norm1", 1),
    "deit_distilled": (distilled_deit, "blocks.1.norm1", 2),
    "registers": (lambda: timm_vit(reg_tokens=4), "patch_embed.proj", 5),
    "no_class_token": (lambda: timm_vit(class_token=False, global_pool="avg"), "blocks.2.norm1", 0),
}


def some_images(count=3, height=32, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def attentions_by_hand(net, images):
    """Softmax of each layer's scores (b, heads, n, n) from what goes into the layer and from its weights."""
    inputs = []
    layers = [each for each in net.modules() if type(each).__name__ in ("Attention", "MultiheadAttention")]
    handles = [each.register_forward_pre_hook(lambda _module, args: inputs.append(args[0].detach())) for each in layers]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    assert len(inputs) == DEPTH
    found = []
    for layer, tokens in zip(layers, inputs, strict=True):
        weight, bias = (
            (layer.in_proj_weight, layer.in_proj_bias)
            if hasattr(layer, "in_proj_weight")
            else (layer.qkv.weight, layer.qkv.bias)
        )
        query, key, _ = np.split(tokens.numpy() @ weight.detach().numpy().T + bias.detach().numpy(), 3, axis=-1)
        heads = []
        for head in np.split(np.arange(WIDTH), HEADS):
            scores = np.einsum("bic,bjc->bij", query[..., head], key[..., head]) / np.sqrt(len(head))
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            heads.append(powers / powers.sum(axis=-1, keepdims=True))
        found.append(np.stack(heads, axis=1))
    return found


def rollout_by_hand(layers, *, fuse=np.mean, discard=0.0):
    """One image at a time, one layer at a time, in float64."""
    rollouts = []
    for index in range(len(layers[0])):
        joint = np.eye(layers[0].shape[-1])
        for layer in layers:
            attention = fuse(layer[index].astype(np.float64), axis=0)
            count = int(discard * attention.size)
            faintest = np.argsort(attention, axis=None, kind="stable")[:count]
            attention = attention.copy()
            attention.flat[faintest] = 0
            mixed = 0.5 * attention + 0.5 * np.eye(len(attention))
            joint = (mixed / mixed.sum(axis=1)[:, None]) @ joint
        rollouts.append(joint)
    return np.stack(rollouts)


def row_of(rollouts, prefix):
    return (rollouts[:, 0] if prefix else rollouts.mean(axis=1))[:, prefix:].reshape(-1, 4, 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_rollout_equals_one_by_hand(name):
    build, layer, prefix = NETWORKS[name]
    net, images = build(), some_images()
    (ours,) = compute_cams(net, images, "attention_rollout", target_layer=layer).values()
    wanted = row_of(rollout_by_hand(attentions_by_hand(net, images)), prefix)
    assert wanted.std(axis=(1, 2)).min() > 1e-3
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("discard", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("fusion", "fuse"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_heads_are_fused_and_the_faintest_discarded(fusion, fuse, discard):
    net, images = timm_vit(), some_images()
    (ours,) = compute_cams(net, images, AttentionRollout(head_fusion=fusion, discard_ratio=discard)).values()
    wanted = row_of(rollout_by_hand(attentions_by_hand(net, images), fuse=fuse, discard=discard), 1)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=2e-4, atol=1e-7)


def test_mean_row_of_the_patches():
    net, images = timm_vit(), some_images()
    (ours,) = compute_cams(net, images, AttentionRollout(query="mean")).values()
    wanted = rollout_by_hand(attentions_by_hand(net, images))[:, 1:, 1:].mean(axis=1).reshape(-1, 4, 4)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=2e-4, atol=1e-7)


class OpenAttention(nn.Module):
    """An attention that keeps its probabilities, so that an oracle may differentiate by them."""

    def __init__(self, attention):
        super().__init__()
        self.attention, self.kept = attention, None

    def forward(self, tokens, **_settings):
        b, n, c = tokens.shape
        query, key, value = self.attention.qkv(tokens).reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        self.kept = (query @ key.transpose(2, 3) / (c // HEADS) ** 0.5).softmax(dim=-1)
        self.kept.retain_grad()
        return self.attention.proj((self.kept @ value).transpose(1, 2).reshape(b, n, c))


def relevance_by_hand(net, images, classes):
    """Chefer et al. 2021 with attention modules that keep what is needed; works on timm's."""
    for block in net.blocks:
        block.attn = OpenAttention(block.attn)
    logits = net(images)
    logits.gather(1, classes[:, None]).sum().backward()
    relevance = np.eye(17)[None].repeat(len(images), axis=0)
    for block in net.blocks:
        kept = block.attn.kept
        relevance = relevance + (kept.grad * kept).clamp(min=0).mean(dim=1).detach().numpy() @ relevance
    return relevance[:, 0, 1:].reshape(-1, 4, 4)


@pytest.mark.parametrize("fused", [True, False])
def test_gradient_weighted_rollout_equals_one_by_hand(fused):
    net, images, classes = timm_vit(fused=fused), some_images(), torch.tensor([0, 3, 1])
    open_net = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    (ours,) = compute_cams(net, images, AttentionRollout(gradient=True), classes=classes).values()
    wanted = relevance_by_hand(open_net, images, classes)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-3, atol=1e-6 * wanted.max())
    other = compute_cams(net, images, AttentionRollout(gradient=True), classes=torch.tensor([1, 1, 2]))
    assert not torch.allclose(next(iter(other.values())), ours)


def test_gradient_weighted_rollout_through_torchs_own_attention():
    """The same weights in torchvision's network and in timm's give the same map."""
    ours, images = torchvision_vit(), some_images()
    theirs = timm_vit(norm_layer=functools.partial(nn.LayerNorm, eps=1e-6), mlp_ratio=2.0)
    with torch.no_grad():
        theirs.cls_token.copy_(ours.class_token)
        theirs.pos_embed.copy_(ours.encoder.pos_embedding)
        theirs.patch_embed.proj.load_state_dict(ours.conv_proj.state_dict())
        theirs.norm.load_state_dict(ours.encoder.ln.state_dict())
        theirs.head.load_state_dict(ours.heads.head.state_dict())
        for block, layer in zip(theirs.blocks, ours.encoder.layers, strict=True):
            block.norm1.load_state_dict(layer.ln_1.state_dict())
            block.norm2.load_state_dict(layer.ln_2.state_dict())
            block.attn.qkv.weight.copy_(layer.self_attention.in_proj_weight)
            block.attn.qkv.bias.copy_(layer.self_attention.in_proj_bias)
            block.attn.proj.load_state_dict(layer.self_attention.out_proj.state_dict())
            block.mlp.fc1.load_state_dict(layer.mlp[0].state_dict())
            block.mlp.fc2.load_state_dict(layer.mlp[3].state_dict())
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    method = AttentionRollout(gradient=True)
    maps = [next(iter(compute_cams(net, images, method).values())) for net in (ours, theirs)]
    assert maps[0].amax() > 0
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-5)


def test_transformer_layers_of_torch_leave_their_fast_path():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.encoder = nn.TransformerEncoder(layer, 2)
            self.linear = nn.Linear(WIDTH, 4)

        def forward(self, images):
            return self.linear(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(dim=1))

    torch.manual_seed(0)
    net, heard = Encoder().eval(), []
    images = some_images()
    with torch.no_grad():
        plain = net(images)
        with AttentionListener(lambda probabilities, _source: heard.append(probabilities)):
            listened = net(images)
    assert [tuple(each.shape) for each in heard] == [(3, HEADS, 16, 16)] * 2
    torch.testing.assert_close(listened, plain, rtol=1e-5, atol=1e-5)
    (maps,) = compute_cams(net, images, "attention_rollout").values()
    mixed = [0.5 * each.mean(dim=1) + 0.5 * torch.eye(16) for each in heard]
    torch.testing.assert_close(maps, (mixed[1] @ mixed[0]).mean(dim=1).reshape(3, 4, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_listening_changes_no_logit(name):
    net, images = NETWORKS[name][0](), some_images()
    with torch.no_grad():
        plain = net(images)
        with AttentionListener(lambda _probabilities, _source: None):
            torch.testing.assert_close(net(images), plain, rtol=1e-4, atol=1e-4)
    before = torch.backends.mha.get_fastpath_enabled()
    compute_cams(net, images, "attention_rollout")
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", ["torchvision", "timm_fused"])
def test_rollout_leaves_no_trace_on_the_network(name, gradient):
    net = NETWORKS[name][0]().train()
    next(net.parameters()).requires_grad_(False)
    assert not explain_and_compare_with_before(net, some_images(), AttentionRollout(gradient=gradient))
    assert pickle.loads(pickle.dumps(AttentionRollout(gradient=gradient))) == AttentionRollout(gradient=gradient)


@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_masks_scales_and_groups_are_heeded(mask):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 4, generator=generator) for heads in (4, 2, 2))
    settings = {"scale": 0.7, "enable_gqa": True, "is_causal": mask == "causal"}
    if mask == "bool":
        settings["attn_mask"] = torch.rand(5, 5, generator=generator) > 0.3
        settings["attn_mask"][:, 0] = True
    elif mask == "float":
        settings["attn_mask"] = torch.randn(2, 1, 5, 5, generator=generator)
    attend = nn.functional.scaled_dot_product_attention
    heard = []
    with AttentionListener(lambda probabilities, _source: heard.append(probabilities)):
        listened = attend(query, key, value, **settings)
    torch.testing.assert_close(listened, attend(query, key, value, **settings))
    torch.testing.assert_close(heard[0].sum(dim=-1), torch.ones(2, 4, 5))


def test_weights_asked_for_are_given():
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    tokens = torch.rand(2, 5, WIDTH)
    for settings in ({}, {"average_attn_weights": False}, {"need_weights": False}):
        plain = attention(tokens, tokens, tokens, **settings)
        with AttentionListener(lambda _probabilities, _source: None):
            listened = attention(tokens, tokens, tokens, **settings)
        torch.testing.assert_close(listened, plain)


@pytest.mark.parametrize("gradient", [False, True])
def test_one_image_does_not_sway_another(gradient):
    net, images = timm_vit(), some_images(5)
    method = AttentionRollout(gradient=gradient, discard_ratio=0.4)
    (together,) = compute_cams(net, images, method).values()
    alone = torch.cat([next(iter(compute_cams(net, image[None], method).values())) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(together.max()))
    images[1, 0, 3, 3] = torch.nan
    broken = method(trace(net, images, target_layer=net.patch_embed.proj))
    assert broken[1].isnan().all()
    torch.testing.assert_close(broken[[0, 2, 3, 4]], together[[0, 2, 3, 4]], rtol=0, atol=1e-5 * float(together.max()))


def test_grids_need_not_be_square_and_maps_have_the_layers_size():
    net = timm.models.vision_transformer.VisionTransformer(**{**ARGUMENTS, "img_size": (16, 32)})
    net, images = lively(net), some_images(2, 16, 32)
    (maps,) = compute_cams(net, images, "attention_rollout").values()
    assert maps.shape == (2, 2, 4)
    fine = nn.Sequential(nn.Conv2d(3, 3, 1), net).eval()
    (larger,) = compute_cams(fine, images, "attention_rollout", target_layer="0").values()
    (same,) = compute_cams(fine, images, "attention_rollout", target_layer="1.patch_embed.proj").values()
    torch.testing.assert_close(larger, same.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2))


def test_autocast_and_float64_are_possible():
    net, images = timm_vit(), some_images()
    (plain,) = compute_cams(net, images, "attention_rollout").values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (cast,) = compute_cams(net, images, "attention_rollout").values()
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=0.2, atol=0.02)
    (double,) = compute_cams(net.double(), images.double(), "attention_rollout").values()
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, rtol=1e-3, atol=1e-6)


# What it cannot explain.


def test_windowed_attention_is_refused_by_name():
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=3).eval()
    with pytest.raises(ModelError, match=r"SwinTransformer has attention \(32, 2, 4, 4\).*Windowed.*'gradcam'"):
        compute_cams(swin, some_images(2), "attention_rollout")


def test_pooling_attention_is_refused():
    net = timm_vit(class_token=False, global_pool="map")
    with pytest.raises(ModelError, match=r"has attention \(3, 2, 1, 16\).*attention pooling"):
        compute_cams(net, some_images(), "attention_rollout")


@pytest.mark.parametrize("gradient", [False, True])
def test_networks_without_attention_are_refused(gradient):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.Softmax(dim=1))
    with pytest.raises(ModelError, match="'attention_rollout': no attention was heard in Sequential.*'gradcam'"):
        compute_cams(net.eval(), some_images(), AttentionRollout(gradient=gradient))


def test_tokens_that_fill_no_grid_are_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 3)

        def forward(self, images):
            tokens = self.conv(images).flatten(2).transpose(1, 2)[:, None, :12]
            return self.linear(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(dim=(1, 2)))

    with pytest.raises(ModelError, match="the 12 tokens of Odd fill no grid"):
        compute_cams(Odd().eval(), some_images(), "attention_rollout", target_layer="conv")


def test_gradients_that_do_not_get_back_are_reported():
    class Cut(nn.Module):
        def __init__(self, vit):
            super().__init__()
            self.vit = vit

        def forward(self, images):
            with torch.no_grad():
                return self.vit(images)

    net, images = timm_vit(), some_images()
    pass_ = trace(net, images, target_layer=net.patch_embed.proj)
    with pytest.raises(ModelError, match="in Cut, no gradient gets back to the attention"):
        AttentionRollout(gradient=True)(replace(pass_, model=Cut(net).eval()))


def test_class_row_needs_a_class_token():
    build, layer, _ = NETWORKS["no_class_token"]
    with pytest.raises(ArgumentError, match="`query` is 'class', but all tokens are patches"):
        compute_cams(build(), some_images(), AttentionRollout(query="class"), target_layer=layer)


@pytest.mark.parametrize("setting", [{"head_fusion": "median"}, {"discard_ratio": 1.0}, {"query": "patch"}])
def test_bad_settings_are_refused(setting):
    (name,) = setting
    with pytest.raises(ArgumentError, match=f"AttentionRollout: `{name}`"):
        AttentionRollout(**setting)
