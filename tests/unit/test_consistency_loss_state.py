"""What the training regulariser keeps in checkpoints, and what it leaves alone in the network."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from lightning_camrobust import CAMConsistencyLoss, consistency_loss

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def net_of(norm=None):
    torch.manual_seed(0)
    first = spectral_norm(nn.Conv2d(1, 4, 3)) if norm == "spectral" else nn.Conv2d(1, 4, 3)
    return nn.Sequential(
        first, nn.Identity() if norm in (None, "spectral") else norm, nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def loss(**settings):
    return CAMConsistencyLoss(mean=0.0, std=1.0, **{"target_layer": "3", **settings})


class Quantiser(nn.Module):
    """Another module that keeps something of its own in checkpoints."""

    def get_extra_state(self):
        return torch.tensor(1)

    def set_extra_state(self, state):
        self.state = state


class Module(nn.Module):
    def __init__(self, *, regularised):
        super().__init__()
        self.net, self.quantiser = net_of(), Quantiser()
        if regularised:
            self.agree = loss()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_buffers_of_a_scripted_part_stay_as_well():
    stem = torch.jit.script(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    net = nn.Sequential(stem, nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    plain = copy.deepcopy(net)
    plain(IMAGES)
    loss(target_layer="1")(net, IMAGES).disagreement.backward()
    assert all(torch.equal(*pair) for pair in zip(net.buffers(), plain.buffers(), strict=True))


def test_checkpoint_without_the_loss_loads_strictly():
    plain, regularised = Module(regularised=False), Module(regularised=True)
    assert regularised.load_state_dict(plain.state_dict()).missing_keys == []
    assert set(regularised.state_dict()) - set(plain.state_dict()) == {"agree._extra_state"}
    assert loss().load_state_dict({}).missing_keys == []


@pytest.mark.parametrize("lost", ["net.0.weight", "quantiser._extra_state"])
def test_what_others_miss_is_still_said(lost):
    state = Module(regularised=False).state_dict()
    del state[lost]
    with pytest.raises(RuntimeError, match=lost.replace(".", r"\.")):
        Module(regularised=True).load_state_dict(state)


def test_checkpoint_with_the_loss_loads_without_it_unless_strict():
    """One number is one key; `strict=False` is what the page advises."""
    plain, regularised = Module(regularised=False), Module(regularised=True)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*agree\._extra_state"):
        plain.load_state_dict(regularised.state_dict())
    assert plain.load_state_dict(regularised.state_dict(), strict=False).unexpected_keys == ["agree._extra_state"]


NORMS = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "instance norm": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "spectral norm": lambda: "spectral",
}


@pytest.mark.parametrize("rule", ["batch", "running"])
@pytest.mark.parametrize("norm", NORMS)
def test_noisy_copies_leave_buffers_as_plain_training_does(norm, rule):
    plain, regularised = net_of(NORMS[norm]()), net_of(NORMS[norm]())
    for _ in range(2):
        plain(IMAGES)
    agree = loss(batch_norm=rule)
    for _ in range(2):
        step = agree(regularised, IMAGES)
    step.disagreement.backward()
    assert plain.state_dict().keys() == regularised.state_dict().keys()
    for (name, one), other in zip(plain.state_dict().items(), regularised.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    learns = net_of(NORMS[norm]())
    loss(batch_norm="learn")(learns, IMAGES)
    plain = net_of(NORMS[norm]())
    plain(IMAGES)
    assert any(not torch.equal(one, other) for one, other in zip(learns.buffers(), plain.buffers(), strict=True))


def test_layer_is_found_anew_for_a_network_at_the_address_of_one_that_is_gone(monkeypatch):
    monkeypatch.setattr(consistency_loss, "id", lambda _: 1, raising=False)
    agree = loss(target_layer=None)
    shallow = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert agree._layer(shallow, IMAGES) is shallow[0]
    network = net_of()
    assert agree._layer(network, IMAGES) is network[3]


def test_loss_that_has_found_a_layer_can_be_copied():
    net, agree = net_of(), loss(target_layer=None)
    assert agree._layer(net, IMAGES) is net[3]
    for other in (copy.deepcopy(agree), pickle.loads(pickle.dumps(agree))):
        assert other._layer(net, IMAGES) is net[3]
