"""Networks of users: checkpoints of all kinds are loaded wholly, or refused with advice that helps."""

import argparse
import collections
import hashlib
import struct
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_camrobust.errors import ArgumentError, ModelError, UnknownNameError
from lightning_camrobust.study.checkpoints import read_weights
from lightning_camrobust.study.model import StudyModel, check_labels, fingerprint, num_classes

SHARED = Path(__file__).parents[3] / "shared"


def small(classes=4, channels=3):
    return nn.Sequential(
        collections.OrderedDict(
            conv=nn.Conv2d(channels, 5, 3),
            norm=nn.BatchNorm2d(5),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(5, classes),
        )
    )


def trained(seed=1, **settings):
    torch.manual_seed(seed)
    network = small(**settings)
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def prefixed(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


class Lit(nn.Module):
    """Stands for a LightningModule, and for any network that holds the classifier."""

    def __init__(self, network=None):
        super().__init__()
        self.model = small() if network is None else network
        self.register_buffer("weight_of_classes", torch.ones(4))

    def forward(self, images):
        return {"loss": images.sum()}


IMAGES = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))


def assert_same(network, expected):
    assert not network.training
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES), expected(IMAGES), rtol=0, atol=0)
    assert fingerprint(network) == fingerprint(expected)


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("weights.pt", lambda weights: weights),
        ("weights.pth", lambda weights: {"state_dict": weights, "epoch": 3}),
        ("weights.bin", lambda weights: {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}),
        ("weights.pt", lambda weights: {"model_state_dict": weights, "best": torch.tensor(0.5)}),
        ("last.ckpt", lambda weights: {"state_dict": prefixed(weights, "model."), "pytorch-lightning_version": "2.6"}),
        ("last.ckpt", lambda weights: {"state_dict": prefixed(weights, "net."), "callbacks": {"a": {"best": 1}}}),
        ("weights.pt", lambda weights: prefixed(weights, "module.")),
        ("weights.pt", lambda weights: prefixed(weights, "model._orig_mod.")),
        ("weights.pt", lambda weights: prefixed(weights, "_orig_mod.module.")),
        ("weights.pt", lambda weights: {name: each for name, each in weights.items() if "num_batches" not in name}),
    ],
)
def test_checkpoints_of_all_kinds_are_loaded(tmp_path, file, wrap):
    expected = trained()
    torch.save(wrap(expected.state_dict()), tmp_path / file)
    assert_same(StudyModel(small, tmp_path / file).build(), expected)


def test_a_file_written_by_lightning_is_loaded(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.net = trained()

        def forward(self, images):
            return self.net(images)

    module = Module()
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert_same(StudyModel(small, tmp_path / "last.ckpt").build(), trained())
    whole = StudyModel(Module, tmp_path / "last.ckpt").build()
    with torch.no_grad():
        torch.testing.assert_close(whole(IMAGES), trained()(IMAGES), rtol=0, atol=0)
    assert_same(StudyModel(Module, tmp_path / "last.ckpt", classifier="net").build(), trained())


def test_safetensors_are_loaded_and_a_missing_package_is_named(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(trained().state_dict(), tmp_path / "weights.safetensors")
    assert_same(StudyModel(small, tmp_path / "weights.safetensors").build(), trained())
    (tmp_path / "broken.safetensors").write_bytes(b"\1" * 40)
    with pytest.raises(ArgumentError, match=r"broken.safetensors' is not a checkpoint .* It may be damaged"):
        StudyModel(small, tmp_path / "broken.safetensors").build()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ArgumentError, match=r"weights.safetensors' needs .* pip install safetensors"):
        StudyModel(small, tmp_path / "weights.safetensors").build()


def test_loading_leaves_the_users_network_alone(tmp_path):
    own = trained(seed=5).train()
    before, hooks = fingerprint(own), [module.training for module in own.modules()]
    for seed in (1, 2):
        torch.save(trained(seed).state_dict(), tmp_path / f"{seed}.pt")
    first, second = (StudyModel(own, tmp_path / f"{seed}.pt").build() for seed in (1, 2))
    assert_same(first, trained(1))
    assert_same(second, trained(2))
    assert fingerprint(own) == before
    assert [module.training for module in own.modules()] == hooks
    assert StudyModel(own).build() is not own


@pytest.mark.parametrize("prefix", ["model.", "", "backbone."])
def test_the_classifier_of_a_larger_network_is_taken(tmp_path, prefix):
    weights = Lit(trained()).state_dict() if prefix == "model." else prefixed(trained().state_dict(), prefix)
    torch.save(weights, tmp_path / "weights.pt")
    model = StudyModel(Lit, tmp_path / "weights.pt", classifier="model", target_layers=["relu"])
    assert_same(model.build(), trained())
    with pytest.raises(UnknownNameError, match=r"`classifier`: Lit has no layer named 'modle'. Nearest: 'model'"):
        StudyModel(Lit, classifier="modle").build()


def test_marks_of_compiling_are_taken_off_inside_names(tmp_path):
    weights = {name.replace("model.", "model._orig_mod."): each for name, each in Lit(trained()).state_dict().items()}
    torch.save(weights, tmp_path / "compiled.pt")
    assert fingerprint(StudyModel(Lit, tmp_path / "compiled.pt").build()) == fingerprint(Lit(trained()))


def test_what_is_left_over_is_named_and_a_prefix_chooses(tmp_path):
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": Lit(trained()).state_dict()}, file)
    with pytest.raises(
        ModelError, match=r"last.ckpt' do not fit Sequential: .*missing.*not in the network .*conv.bias"
    ):
        StudyModel(small, file).build()
    with pytest.raises(ModelError, match=r"Nothing is loaded in part.*pass prefix='model.'"):
        StudyModel(small, file).build()
    assert_same(StudyModel(small, file, prefix="model.").build(), trained())
    torch.save({**prefixed(trained(1).state_dict(), "net."), **prefixed(trained(2).state_dict(), "ema.")}, file)
    with pytest.raises(ModelError, match=r"prefix='net.' or prefix='ema.'"):
        StudyModel(small, file).build()
    assert_same(StudyModel(small, file, prefix="ema.").build(), trained(2))


def test_of_several_sets_of_weights_one_must_be_named(tmp_path):
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": trained(1).state_dict(), "model_ema": trained(2).state_dict(), "epoch": 2}, file)
    with pytest.raises(
        ArgumentError, match=r"checkpoint.pth' holds 2 sets of weights: model, model_ema.*entry='model'"
    ):
        StudyModel(small, file).build()
    assert_same(StudyModel(small, file, entry="model_ema").build(), trained(2))
    with pytest.raises(ArgumentError, match=r"no weights under entry='ema'.* it holds model, model_ema, epoch"):
        StudyModel(small, file, entry="ema").build()


@pytest.mark.parametrize("lost", [("conv.weight",), ("head.bias", "norm.running_var")])
def test_a_partial_checkpoint_is_refused_and_changes_nothing(tmp_path, lost):
    weights = {name: value for name, value in trained().state_dict().items() if name not in lost}
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(ModelError, match=rf"{len(lost)} missing in the file \({', '.join(lost)}\)"):
        StudyModel(small, tmp_path / "part.pt").build()
    torch.save(trained().state_dict() | {"extra.weight": torch.ones(1)}, tmp_path / "more.pt")
    with pytest.raises(ModelError, match=r"1 not in the network \(extra.weight\).*Build the network that was trained"):
        StudyModel(small, tmp_path / "more.pt").build()


def test_mismatched_shapes_are_told_apart(tmp_path):
    torch.save(trained(classes=10).state_dict(), tmp_path / "ten.pt")
    expected = r"class count mismatch: the checkpoint .*ten.pt' has 10 classes, the network 100"
    with pytest.raises(ModelError, match=expected):
        StudyModel(lambda: small(classes=100), tmp_path / "ten.pt").build()
    torch.save(trained(channels=1).state_dict(), tmp_path / "grey.pt")
    with pytest.raises(
        ModelError, match=r"conv.weight is \(5, 1, 3, 3\) in the file and \(5, 3, 3, 3\) in the network"
    ):
        StudyModel(small, tmp_path / "grey.pt").build()
    with pytest.raises(ModelError, match="do not fit ResNet: .* missing in the file .*same architecture"):
        StudyModel(__import__("torchvision").models.resnet18, tmp_path / "ten.pt").build()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = trained().state_dict()
    weights["head.bias"][1] = torch.nan
    torch.save(weights, tmp_path / "diverged.pt")
    with pytest.raises(ModelError, match=r"diverged.pt' holds NaN or infinity in head.bias.*earlier checkpoint"):
        StudyModel(small, tmp_path / "diverged.pt").build()


def write_script(file):
    # Tracing is deprecated, yet such files are around.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.ReLU(), torch.ones(1)), str(file))


BAD_FILES = {
    "empty": (lambda file: file.write_bytes(b""), r"is not a checkpoint .* The file is empty"),
    "text": (lambda file: file.write_text("hello"), r"is not a checkpoint .* may be damaged"),
    "pointer": (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "folder": (lambda file: file.mkdir(), "is a folder; name the file in it"),
    "missing": (lambda file: None, "does not exist; check the path"),
    "whole network": (lambda file: torch.save(small(), file), r"unpickling them could run any code.*\.state_dict\(\)"),
    "namespace": (lambda file: torch.save({"args": argparse.Namespace()}, file), r"holds Python objects.*Namespace"),
    "number": (lambda file: torch.save(3, file), r"holds no weights.*it holds a int"),
    "no tensors": (lambda file: torch.save({"epoch": 3}, file), r"holds no weights.*it holds epoch"),
    "script": (write_script, "is a TorchScript archive.*state dict"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_that_are_no_checkpoints_say_what_they_are(tmp_path, kind):
    write, message = BAD_FILES[kind]
    file = tmp_path / "weights.pt"
    write(file)
    with pytest.raises(ArgumentError, match=f"(?s)weights.pt'.*{message}|{message}.*weights.pt"):
        StudyModel(small, file).build()


def test_a_file_that_was_cut_short_is_not_a_checkpoint(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArgumentError, match=r"cut.pt' is not a checkpoint .* only partly copied"):
        StudyModel(small, tmp_path / "cut.pt").build()


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"state_dict": {}, "trap": Harmful()}, tmp_path / "trap.pt")
    with pytest.raises(ArgumentError, match="unpickling them could run any code"):
        read_weights(tmp_path / "trap.pt")


def test_factories_that_fail_are_named():
    def broken():
        raise KeyError("resnet")

    with pytest.raises(ModelError, match=r"the function given as `network` failed: KeyError.*functools.partial"):
        StudyModel(broken).build()
    with pytest.raises(ModelError, match=r"must return an nn.Module, got Tensor"):
        StudyModel(lambda: torch.ones(1)).build()
    with pytest.raises(ModelError, match=r"the function given as `network` failed: TypeError"):
        StudyModel(nn.Linear).build()


def test_a_network_that_cannot_be_copied_asks_for_a_function():
    network = small()
    network.lock = (each for each in ())
    with pytest.raises(ModelError, match=r"Sequential cannot be copied .*Pass a function that builds it"):
        StudyModel(network).build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "resnet18"}, "`network` must be an nn.Module, or a function.*got str"),
        ({"network": small, "weights": {"a": 1}}, "`weights` must be the path of a checkpoint or None, got dict"),
        ({"network": small, "target_layers": "relu"}, r"`target_layers` must be a list .*got 'relu'"),
        ({"network": small, "target_layers": []}, r"`target_layers` must be a list with one entry or more"),
        ({"network": small, "target_layers": [nn.ReLU()]}, "With a function as `network` only names can be used"),
        ({"network": small(), "target_layers": [nn.ReLU()]}, "a module of `network` itself.*got ReLU"),
        ({"network": small, "target_layers": [["relu", None]]}, r"an entry of `target_layers` must be .*got \['relu'"),
        ({"network": small, "mean": 0.5}, "`mean` and `std` belong together, `std` is missing"),
        ({"network": small, "size": 0}, "`size` must be a whole number of pixels above 0 or None, got 0"),
        ({"network": small, "size": 224.0}, r"`size` must be a whole number .*got 224.0"),
        ({"network": small, "entry": "model"}, "`entry` and `prefix` speak of a checkpoint"),
    ],
)
def test_settings_are_checked_before_anything_is_built(settings, message):
    with pytest.raises(ArgumentError, match=message):
        StudyModel(**settings)


def test_target_layers_are_kept_as_names_that_hold_in_the_copy():
    network = Lit()
    layers = [network.model.relu, "conv", [network.model.conv, "relu"], None]
    model = StudyModel(network, target_layers=layers, classifier="model")
    assert model.target_layers == ("relu", "conv", ["conv", "relu"], None)
    assert isinstance(dict(model.build().named_modules())["relu"], nn.ReLU)
    with pytest.raises(UnknownNameError, match=r"no layer named 'rleu'. Nearest: 'relu'"):
        StudyModel(small, target_layers=[["conv", "rleu"]]).build()


def test_fingerprint_sees_every_bit_and_nothing_else():
    network = trained()
    before = fingerprint(network)
    assert len(before) == 64
    assert fingerprint(trained().train().requires_grad_(False)) == before
    with torch.no_grad():
        network.head.bias[0] = torch.nextafter(network.head.bias[0], torch.tensor(9.0))
    assert fingerprint(network) != before
    renamed, wider = nn.Module(), nn.Module()
    renamed.register_buffer("b", torch.zeros(4))
    wider.register_buffer("a", torch.zeros(4))
    reshaped, typed = nn.Module(), nn.Module()
    reshaped.register_buffer("a", torch.zeros(2, 2))
    typed.register_buffer("a", torch.zeros(4, dtype=torch.int32))
    half = nn.Module()
    half.register_buffer("a", torch.zeros(8, dtype=torch.bfloat16))
    assert len({fingerprint(each) for each in (renamed, wider, reshaped, typed, half)}) == 5


def test_fingerprint_is_a_sum_that_others_can_compute():
    network = nn.Linear(2, 3)
    network.load_state_dict({"weight": torch.arange(6.0).view(3, 2), "bias": torch.ones(3)})
    bias, weight = struct.pack("<3f", 1, 1, 1), struct.pack("<6f", *range(6))
    content = b"bias\0(3,)\0torch.float32\0" + bias + b"weight\0(3, 2)\0torch.float32\0" + weight
    assert fingerprint(network) == hashlib.sha256(content).hexdigest()


def test_classes_are_counted_and_compared_with_labels():
    assert num_classes(trained(classes=7), IMAGES) == 7
    check_labels([0, 6, -1], 7, model="small", data="photos")
    with pytest.raises(ArgumentError, match=r"class count mismatch: 'photos' has label 7, but 'small' has 7 classes"):
        check_labels(torch.tensor([0, 7]), 7, model="small", data="photos")
    with pytest.raises(ModelError, match=r"Sequential does not take images of 1 x 9 x 9 .*channels="):
        num_classes(small(), torch.rand(1, 1, 9, 9))
    with pytest.raises(ModelError, match="must return logits"):
        num_classes(Lit().eval(), IMAGES)
    broken = trained()
    broken.head.bias.data.fill_(torch.inf)
    with pytest.raises(ModelError, match="returns NaN or infinity for the first image. Check the weights"):
        num_classes(broken, IMAGES)


@pytest.mark.skipif(
    not (SHARED / "models").is_dir(), reason="needs models in a folder named shared beside the checkout"
)
def test_real_weights_are_read_and_refused_by_another_network():
    file = SHARED / "models" / "cifar10-resnet20.pt"
    weights = read_weights(file)
    assert weights["linear.weight"].shape == (10, 64)
    with pytest.raises(ModelError, match=r"cifar10-resnet20.pt' do not fit Sequential"):
        StudyModel(small, file).build()
