"""Activation checkpointing under the training regulariser: equal gradients, or a refusal by name."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from lightning_camrobust import CAMConsistencyLoss
from lightning_camrobust.errors import LayerNotReachedError, ModelError

needs_stances = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="before torch 2.6 compiled networks are refused"
)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def images():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(2))


class OwnAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.three, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, tokens):
        parts = self.three(self.norm(tokens)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return tokens + self.out(scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class TorchAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, tokens):
        return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Tokens(nn.Module):
    """Two blocks of attention over 16 patches."""

    def __init__(self, block, *, active=True, reentrant=False):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.blocks, self.head = (
            nn.Conv2d(1, 16, 4, 4),
            nn.ModuleList([block(), block()]),
            nn.Linear(16, 3),
        )
        self.active, self.reentrant = active, reentrant

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=self.reentrant) if self.active else block(tokens)
        return self.head(tokens.mean(dim=1))


def agree_on(net, images, layer):
    agree = CAMConsistencyLoss(mean=0.0, std=1.0, target_layer=layer, pairs="all")
    return agree(net, images)


def gradients(net, images, layer):
    step = agree_on(net, images, layer)
    (cross_entropy(step.logits, LABELS) + step.disagreement).backward()
    return [each.grad.clone() for each in net.parameters()]


@pytest.fixture
def plain_attention_everywhere():
    """What the refusal advises: the attention that can be differentiated twice, for the whole run."""
    switches = [
        (getattr(torch.backends.cuda, f"enable_{name}_sdp"), getattr(torch.backends.cuda, f"{name}_sdp_enabled")())
        for name in ("flash", "mem_efficient", "cudnn")
    ]
    for enable, _ in switches:
        enable(False)
    yield
    for enable, before in switches:
        enable(before)


@pytest.mark.parametrize("layer", ["patches", "blocks.0", "blocks.1"])
@pytest.mark.parametrize("block", [OwnAttention, TorchAttention])
def test_checkpointed_attention_is_refused_before_anything_is_lost(images, block, layer):
    net = Tokens(block)
    with pytest.raises(ModelError, match="attention runs inside activation checkpointing.*enable_flash_sdp"):
        agree_on(net, images, layer)
    assert not any(each._forward_hooks for each in net.modules())
    net(images).sum().backward()


class Masked(OwnAttention):
    """A learnt bias for each pair of patches, as in Swin; no kernel of a CPU fuses that."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(-1, 1, 256).reshape(16, 16))

    def forward(self, tokens):
        parts = self.three(self.norm(tokens)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(*parts, attn_mask=self.bias)
        return tokens + self.out(seen.transpose(1, 2).flatten(2))


class Dropping(nn.TransformerEncoderLayer):
    """Drops out in its attention and elsewhere; the second run draws as the first did."""

    def __init__(self):
        super().__init__(16, 2, dim_feedforward=16, batch_first=True)


@pytest.mark.parametrize("block", [Masked, Dropping])
def test_checkpointed_attention_that_is_never_fused(images, block):
    found = []
    for active in (False, True):
        net = Tokens(block, active=active)
        torch.manual_seed(5)
        found.append(gradients(net, images, "blocks.0"))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


@pytest.mark.usefixtures("plain_attention_everywhere")
@pytest.mark.parametrize("layer", ["patches", "blocks.0"])
@pytest.mark.parametrize("block", [OwnAttention, TorchAttention])
def test_checkpointed_attention_under_the_remedy(images, block, layer):
    found = [gradients(Tokens(block, active=active), images, layer) for active in (False, True)]
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_reentrant_checkpointing_before_the_layer_keeps_its_attention(images):
    class Mixed(Tokens):
        def forward(self, images):
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            tokens = checkpoint(self.blocks[0], tokens, use_reentrant=True) if self.active else self.blocks[0](tokens)
            return self.head(self.blocks[1](tokens).mean(dim=1))

    found = [gradients(Mixed(OwnAttention, active=active), images, "blocks.1.norm") for active in (False, True)]
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


class Body(nn.Module):
    def __init__(self, *, compiled=False, frozen=False):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.body = nn.Conv2d(1, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
        if compiled:
            self.body = torch.compile(self.body, backend="aot_eager")
        if frozen:
            self.first.requires_grad_(False)
            self.body[0].requires_grad_(False)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        return self.head(checkpoint(self.body, self.first(images), use_reentrant=False).tanh().mean(dim=(2, 3)))


@needs_stances
def test_compiled_part_inside_checkpointing_is_refused(images):
    net = Body(compiled=True)
    with pytest.raises(ModelError, match="compiled.*inside activation checkpointing.*[Cc]ompile"):
        agree_on(net, images, "first")
    assert not any(each._forward_pre_hooks for each in net.modules())
    net = Body()
    net.body.compile(backend="aot_eager")
    with pytest.raises(ModelError, match="compiled.*inside activation checkpointing"):
        agree_on(net, images, "first")


def test_compiled_part_is_refused_where_torch_knows_no_way_around_it(images, monkeypatch):
    if hasattr(torch.compiler, "set_stance"):
        monkeypatch.delattr(torch.compiler, "set_stance")
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(784, 3))
    agree_on(net, images, "0")
    for part in (torch.compile(net, backend="eager"), nn.Sequential(torch.compile(net, backend="eager"))):
        with pytest.raises(ModelError, match="compiled, and before torch 2.6.*Give it the network that went into"):
            agree_on(part, images, net[0])


def test_frozen_layer_inside_checkpointing_is_told_what_to_do(images):
    net = Body(frozen=True)
    with pytest.raises(LayerNotReachedError, match="frozen target layer") as caught:
        agree_on(net, images, "body.0")
    assert "use_reentrant=False" not in str(caught.value)
    # What the message advises.
    net.body[0].requires_grad_(True)
    agree_on(net, images, "body.0").disagreement.backward()
    assert net.body[2].weight.grad.abs().sum() > 0
