"""The target layer is found in networks of many kinds."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from lightning_camrobust import compute_cams
from lightning_camrobust.errors import ModelError, NoSpatialLayerError
from lightning_camrobust.layers import layer_name
from lightning_camrobust.target_layer import find_target_layer, find_target_layers
from lightning_camrobust.trace import trace


def names(net, *shape):
    net = net.eval()
    return [layer_name(net, each) for each in find_target_layers(net, torch.rand(2, *(shape or (3, 32, 32))))]


def vit(head=1.0, **settings):
    torch.manual_seed(0)
    net = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5, **settings
    )
    nn.init.normal_(net.heads.head.weight, std=head)
    return net


class Blocks(nn.Module):
    """A transformer as timm writes it, with its pooling and its extra tokens."""

    def __init__(self, *, prefix=1, pool="token", width=16, side=4):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, width, 32 // side, stride=32 // side)
        self.prefix, self.pool = nn.Parameter(torch.rand(1, prefix, width)), pool
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.q_norm = nn.Linear(width, 3 * width), nn.Identity()
        self.proj, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], dim=1)
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(self.q_norm(q), k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(mixed)
        tokens = self.norm(tokens + self.norm2(tokens).tanh())
        return self.head(tokens[:, 0] if self.pool == "token" else tokens.mean(dim=1))


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_behind_the_last_attention_patches_get_no_gradient(prefix):
    # Not the queries, which are of another width, nor anything that only the class token leaves.
    assert names(Blocks(prefix=prefix)) == ["norm1"]


def test_all_tokens_are_read_where_they_are_averaged():
    assert names(Blocks(prefix=0, pool="mean")) == ["norm"]
    assert names(Blocks(prefix=4, pool="mean")) == ["norm"]


def test_heads_of_attention_are_no_map_even_where_they_look_like_one():
    # 16 tokens in heads 16 wide: (b, heads, 16, 16) has the proportions of the image.
    assert names(Blocks(prefix=0, pool="mean", width=32)) == ["norm"]
    assert names(Blocks(prefix=1, width=34)) == ["norm1"]


def test_vit_of_torchvision():
    assert names(vit()) == ["encoder.layers.encoder_layer_1.ln_1"]


def test_a_head_of_zeros_does_not_hide_the_layer():
    assert names(vit(head=0.0)) == ["encoder.layers.encoder_layer_1.ln_1"]


def test_vit_is_explained_without_a_word_about_its_layer():
    net, images = vit().eval(), torch.rand(2, 3, 32, 32)
    maps = compute_cams(net, images, ("gradcam", "ablationcam", "eigencam"))
    assert {tuple(each.shape) for each in maps.values()} == {(2, 4, 4)}
    assert any(float(each.max()) > 0 for each in maps.values())


class ChannelsLast(nn.Module):
    """As in Swin: (b, h, w, c)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Conv2d(3, 8, 8, stride=8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.norm(self.embed(images).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


def test_channels_may_come_last():
    net = ChannelsLast().eval()
    assert names(net) == ["norm"]
    images = torch.rand(3, 3, 32, 32)
    pass_ = trace(net, images, target_layer=net.norm)
    assert pass_.activation.shape == pass_.gradient.shape == (3, 8, 4, 4)
    torch.testing.assert_close(pass_.activation, net.norm(net.embed(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    maps = compute_cams(net, images, ("gradcam", "ablationcam", "pytorch_grad_cam:GradCAM"))
    # Behind the layer come a mean and a linear layer: removing a channel takes away gradient times activation.
    drops = (pass_.gradient * pass_.activation).sum(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(maps["ablationcam"], (drops * pass_.activation).sum(dim=1).relu(), rtol=1e-3, atol=1e-5)
    twin, ours = maps["pytorch_grad_cam:GradCAM"], maps["gradcam"]
    alive = ours.amax(dim=(1, 2)) > 0
    low, high = (each(ours[alive], dim=(1, 2), keepdim=True) for each in (torch.amin, torch.amax))
    torch.testing.assert_close((ours[alive] - low) / (1e-7 + high - low), twin[alive], rtol=0, atol=1e-4)


class TwoEyes(nn.Module):
    def __init__(self, meet=None):
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus())
        self.right = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2, stride=2), nn.Softplus())
        self.meet = meet
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        left, right = self.left(images), self.right(images)
        if self.meet is not None:
            right = nn.functional.interpolate(right, size=left.shape[2:])
            return self.head(self.meet(torch.cat([left, right], dim=1)).mean(dim=(2, 3)))
        return self.head(torch.cat([left.mean(dim=(2, 3)), right.mean(dim=(2, 3))], dim=1))


def test_each_branch_gives_a_layer():
    assert names(TwoEyes()) == ["right.1", "left.1"]
    (maps,) = compute_cams(TwoEyes().eval(), torch.rand(2, 3, 32, 32)).values()
    assert maps.shape == (2, 32, 32)


def test_branches_that_meet_are_one():
    assert names(TwoEyes(meet=nn.Identity())) == ["meet"]


class Stack(nn.Module):
    """A sum of many branches."""

    def __init__(self, count):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, 2, 3) for _ in range(count))

    def forward(self, images):
        return sum(branch(images).tanh().mean(dim=(2, 3)) for branch in self.branches)


def test_too_many_branches_are_cut_to_the_last_four():
    assert names(Stack(6)) == ["branches.5", "branches.4", "branches.3", "branches.2"]


def test_of_a_residual_network_one_layer_is_taken():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

        def forward(self, images):
            inner = self.first(images)
            return (inner + self.second(inner.relu())).mean(dim=(2, 3))

    assert names(Residual()) == ["second"]


def test_spatial_layers_behind_the_prediction_are_passed_over():
    class WithDecoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
            self.decoder = nn.ConvTranspose2d(4, 3, 3)

        def forward(self, images):
            code = self.encoder(images)
            logits = self.head(code.mean(dim=(2, 3)))
            return {"logits": logits, "picture": self.decoder(code)}

    assert names(WithDecoder()) == ["encoder"]


def test_outputs_that_add_up_to_one_have_a_layer_as_well():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=1))
    assert names(net) == ["0"]


def test_a_network_without_cells_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))
    with pytest.raises(NoSpatialLayerError, match="or with patch tokens"):
        find_target_layer(net, torch.rand(1, 3, 32, 32))


class PooledByChannel(nn.Module):
    """As in the first Swin: tokens are transposed and pooled by a module, whose 64 channels look like 8 x 8 cells."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Conv2d(3, 64, 8, stride=8), nn.LayerNorm(64)
        self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(64, 5)

    def forward(self, images):
        tokens = self.norm(self.embed(images).flatten(2).transpose(1, 2))
        return self.head(self.pool(tokens.transpose(1, 2)).flatten(1))


def test_pooled_channels_are_no_tokens():
    assert names(PooledByChannel()) == ["norm"]


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.gate, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1), nn.Linear(6, 3)

    def forward(self, images):
        features = self.conv(images)
        return self.head((features * self.gate(features).sigmoid()).mean(dim=(2, 3)))


def test_a_gate_of_one_channel_is_passed_over():
    assert names(Gated()) == ["conv"]


class SharedBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.eye, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, images):
        seen = [self.eye(each).tanh().mean(dim=(2, 3)) for each in (images, images.flip(3))]
        return self.head(torch.cat(seen, dim=1))


def test_a_backbone_that_runs_twice_is_one_layer():
    assert names(SharedBackbone()) == ["eye"]


def test_patches_need_not_fill_the_image():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.norm, self.head = nn.Conv2d(3, 8, 16, stride=16), nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, images):
            return self.head(self.norm(self.embed(images).flatten(2).transpose(1, 2)).mean(dim=1))

    assert names(Cut(), 3, 64, 90) == ["norm"]
    (maps,) = compute_cams(Cut().eval(), torch.rand(2, 3, 64, 90)).values()
    assert maps.shape == (2, 4, 5)


def test_a_layer_with_rows_for_windows_is_refused():
    class Tiles(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, images):
            tiles = torch.cat([images[..., :16], images[..., 16:]])
            return self.head(self.conv(tiles).mean(dim=(2, 3)).unflatten(0, (2, -1)).mean(dim=0))

    with pytest.raises(ModelError, match="gives out 4 rows for 2 images"):
        compute_cams(Tiles().eval(), torch.rand(2, 3, 32, 32), target_layer="conv")


def test_classes_predicted_in_inference_mode_are_explained():
    net, images = Gated().eval(), torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        classes = net(images).argmax(dim=1)
    given, found = (compute_cams(net, images, classes=each)["gradcam"] for each in (classes, None))
    assert torch.equal(given, found)
