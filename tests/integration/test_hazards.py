"""Traps of explaining a network inside Lightning's loops, each met for real. Bitwise equality has a file of its own."""

import copy
import dataclasses
import math
import pickle
import typing
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from lightning_camrobust import CAMRobustnessCallback, compute_cams, perturb_images
from lightning_camrobust.errors import LayerNotReachedError, ModelError
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.trainers import refuse_sharded
from tests.networks import DigitModule, VGGLike, digit_loader, digits, small_cnn, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning_utilities"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def watch(**settings):
    return CAMRobustnessCallback(**{"segmenter": "grid", "num_samples": 24, "severities": (3,), **settings})


def make_trainer(folder, *callbacks, **settings):
    chosen = {**OFF, "accelerator": "cpu", "max_epochs": 2, "default_root_dir": folder, **settings}
    return pl.Trainer(callbacks=list(callbacks), **chosen)


def validate(folder, callback, module=None, loader=None, **settings):
    trainer = make_trainer(folder, callback, **settings)
    module = trained() if module is None else module
    trainer.validate(module, digit_loader(200, 40) if loader is None else loader, verbose=False)
    return trainer


def fit(folder, *callbacks, module=None, loader=None, **settings):
    trainer = make_trainer(folder, *callbacks, **settings)
    trainer.fit(DigitModule() if module is None else module, digit_loader(), loader or digit_loader(200, 40))
    return trainer


# 1 inference mode


def test_every_loop_on_one_trainer_and_one_callback(tmp_path):
    callback, module = watch(), DigitModule()
    trainer = make_trainer(tmp_path, callback)
    trainer.validate(module, digit_loader(200, 40), verbose=False)
    trainer.fit(module, digit_loader(), digit_loader(200, 40))
    trainer.test(module, digit_loader(200, 40), verbose=False)
    assert [row["stage"] for row in callback.history] == ["val", "val", "val", "test"]
    assert all(math.isfinite(row["robustness"]) for row in callback.history)


def test_tensor_kept_from_inference_mode_does_not_stop_the_gradient(tmp_path):
    class KeepsMask(DigitModule):
        mask = None

        def forward(self, images):
            if self.mask is None:
                self.mask = torch.ones(1, 12, 8, 8)  # an inference tensor when first run by `validate`
            return self.net[7:](self.net[:7](images) * self.mask)

    class Reader(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            self.was_inference = pl_module.mask.is_inference()

    callback, reader, module = watch(target_layer="net.6"), Reader(), KeepsMask()
    trainer = make_trainer(tmp_path, callback, reader)
    module.eval()
    with torch.inference_mode():
        module(torch.zeros(1, 1, 16, 16))
    trainer.validate(module, digit_loader(200, 40), verbose=False)
    assert reader.was_inference  # and it is still the one the user's own forward made
    assert callback.report["num_images"] == 24


# 2 leaking into training


def test_gradient_that_waits_in_accumulation_survives_a_third_party_explainer(tmp_path):
    net = small_cnn()
    net(torch.rand(4, 1, 16, 16)).sum().backward()
    before = [parameter.grad for parameter in net.parameters()]
    values = [grad.clone() for grad in before]
    compute_cams(net, torch.rand(2, 1, 16, 16), ("gradcam", "pytorch_grad_cam:GradCAM"))
    for parameter, grad, value in zip(net.parameters(), before, values, strict=True):
        assert parameter.grad is grad
        assert torch.equal(grad, value)


def test_parameter_hooks_do_not_fire():
    net, fired = small_cnn(), []
    for parameter in net.parameters():
        parameter.register_hook(fired.append)
    compute_cams(net, torch.rand(2, 1, 16, 16), ("gradcam", "layercam"))
    assert fired == []


def test_network_without_any_trainable_parameter(tmp_path):
    module = trained()
    module.requires_grad_(False)
    callback = watch(methods=("gradcam", "pytorch_grad_cam:GradCAM"))
    validate(tmp_path, callback, module)
    first, second = callback.report["pooled"]
    assert first["consistency"] == pytest.approx(second["consistency"], abs=0.02)


def test_in_place_relu_behind_the_layer_leaves_its_values():
    torch.manual_seed(1)
    inplace, plain = (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(inplace=flag), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        ).eval()
        for flag in (True, False)
    )
    plain.load_state_dict(inplace.state_dict())
    images = torch.rand(4, 3, 12, 12)
    methods = ("gradcam", "hirescam", "eigencam", "ablationcam")
    one, two = (compute_cams(net, images, methods, target_layer="0") for net in (inplace, plain))
    for method in methods:
        torch.testing.assert_close(one[method], two[method], rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_around_the_head(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, images):
            return checkpoint(self.net[7:], self.net[:7](images), use_reentrant=reentrant)

    net, images = Checkpointed().eval(), torch.rand(2, 1, 16, 16)
    if reentrant:
        with pytest.raises(LayerNotReachedError, match="reentrant activation checkpointing"):
            compute_cams(net, images, target_layer="net.6")
    else:
        plain = compute_cams(net.net, images, target_layer="6")["gradcam"]
        torch.testing.assert_close(compute_cams(net, images, target_layer="net.6")["gradcam"], plain, rtol=0, atol=0)


def test_backbone_under_the_users_own_no_grad():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, images):
            with torch.no_grad():
                features = self.net[:7](images)
            return self.net[7:](features)

    net, images = Frozen().eval(), torch.rand(3, 1, 16, 16)
    plain = compute_cams(net.net, images)["gradcam"]
    for layer in (None, "net.6"):
        torch.testing.assert_close(compute_cams(net, images, target_layer=layer)["gradcam"], plain, rtol=0, atol=1e-7)


def test_layer_that_runs_twice_is_explained_at_its_last_run():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(8, 4)
            self.relu, self.other = nn.ReLU(), nn.ReLU()

        def forward(self, images):
            features = self.last(self.second(self.relu(self.first(images))))
            return self.head(features.mean(dim=(2, 3)).view(len(images), -1))

    torch.manual_seed(0)
    shared, apart = Shared().eval(), Shared().eval()
    apart.load_state_dict(shared.state_dict())
    shared.last, apart.last = shared.relu, apart.other
    images = torch.rand(3, 1, 12, 12)
    methods = ("gradcam", "ablationcam", "eigencam", "pytorch_grad_cam:GradCAM")
    one, two = compute_cams(shared, images, methods), compute_cams(apart, images, methods)
    for method in methods:
        torch.testing.assert_close(one[method], two[method], rtol=0, atol=1e-6)


def test_flags_are_put_back_one_by_one_also_after_an_error():
    net = small_cnn().train()
    net[1].eval()
    flags = [module.training for module in net.modules()]
    with pytest.raises(ZeroDivisionError), observe_only(net):
        raise ZeroDivisionError
    assert [module.training for module in net.modules()] == flags


def test_buffers_written_in_eval_mode_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("replaced", torch.zeros(()))

        def forward(self, images):
            self.calls += 1
            self.replaced = self.replaced + 1
            return self.net(images)

    net = Counting()
    compute_cams(net, torch.rand(2, 1, 16, 16))
    assert net.calls == 0
    assert net.replaced == 0


def test_dropout_that_the_user_keeps_on_does_not_make_maps_noisy(tmp_path):
    class MonteCarlo(DigitModule):
        def on_validation_epoch_start(self):
            self.net[9].train()

    callback, module = watch(), trained(MonteCarlo())
    for _ in range(2):
        validate(tmp_path, callback, module)
    assert callback.history[0]["robustness"] == callback.history[1]["robustness"]


def test_step_that_edits_its_batch_in_place_does_not_reach_the_probe(tmp_path):
    class Edits(DigitModule):
        def validation_step(self, batch, batch_idx):
            batch[0].zero_()

    class Reader(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            assert not batch[0].any()
            assert not batch[0].requires_grad

    plain, edited = watch(), watch()
    validate(tmp_path, plain, trained())
    trainer = make_trainer(tmp_path, edited, Reader())
    trainer.validate(trained(Edits()), digit_loader(200, 40), verbose=False)
    assert edited.report["robustness"] == plain.report["robustness"]


def test_nothing_is_held_after_200_validations(tmp_path):
    import gc

    callback, module = watch(num_samples=4), trained()
    trainer = make_trainer(tmp_path, callback)
    loader, counts, memory = digit_loader(200, 8), [], []
    for index in range(200):
        trainer.validate(module, loader, verbose=False)
        if index in (49, 199):
            gc.collect()
            counts.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)
    print(f"resident memory grew by {memory[1] - memory[0]:.1f} MiB over 150 validations after a warm-up of 50")
    assert len(callback.history) == 200
    assert counts[1] <= counts[0]
    assert memory[1] - memory[0] < 8
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


# 3 precision


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true", "32-true"])
def test_forward_follows_the_trainers_precision_and_maps_do_not(tmp_path, precision):
    kinds = []

    class Notes(DigitModule):
        def forward(self, images):
            output = super().forward(images)
            kinds.append((images.dtype, output.dtype, torch.is_autocast_enabled("cpu")))
            return output

        def validation_step(self, batch, batch_idx):
            super().validation_step((batch[0], batch[1]), batch_idx)

    callback = watch(methods=("gradcam", "eigencam", "ablationcam"))
    validate(tmp_path, callback, trained(Notes()), precision=precision)
    assert len(set(kinds)) == 1  # the probe's forwards ran exactly as the user's own
    report = callback.report
    assert all(math.isfinite(row["consistency"]) and row["consistency"] > 0.2 for row in report["pooled"])


def test_one_picture_draws_one_noise_in_any_precision_that_can_hold_it():
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    for noise in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"):
        wanted = perturb_images(pixels, noise, 3)
        for dtype, room in ((torch.float64, 1e-6), (torch.bfloat16, 2e-2)):
            found = perturb_images(pixels.to(dtype), noise, 3)
            assert found.dtype == dtype
            # Other noise would differ by tenths; a rounded input differs by its rounding.
            assert (found.float() - wanted).abs().max() < room
    double = perturb_images(((pixels - 0.45) / 0.22).double(), "gaussian_noise", 3, mean=0.45, std=0.22)
    single = perturb_images((pixels - 0.45) / 0.22, "gaussian_noise", 3, mean=0.45, std=0.22)
    assert (double - single).abs().max() < 1e-4


def test_gradient_too_small_for_half_precision_survives():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        net[4].weight.mul_(1e-5)  # behind 100 cells the gradient is 1e-8, less than float16 can hold
    images = torch.rand(4, 3, 12, 12)
    wanted = compute_cams(net, images, target_layer="1")["gradcam"]
    found = compute_cams(net.half(), images.half(), target_layer="1")["gradcam"]
    assert found.dtype == torch.float32
    for one, other in zip(wanted, found, strict=True):
        if one.any():
            assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.95


# 4 logging


def test_two_callbacks_of_one_name_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="state_key"):
        make_trainer(tmp_path, watch(), watch())


def test_two_callbacks_log_under_their_own_names(tmp_path):
    trainer = make_trainer(tmp_path, watch(), watch(name="layercam_only", methods=("layercam",)))
    trainer.validate(trained(), digit_loader(200, 40), verbose=False)
    assert {"val_cam_robustness", "val_layercam_only_robustness"} <= trainer.callback_metrics.keys()


def test_one_of_several_loaders_is_probed_and_its_key_has_no_suffix(tmp_path):
    class Several(DigitModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    reports = []
    for index in (0, 1):
        callback = watch(dataloader_idx=index)
        loaders = [digit_loader(200, 40), digit_loader(300, 40)]
        trainer = validate(tmp_path, callback, trained(Several()), loaders)
        assert "val_cam_robustness" in trainer.callback_metrics
        reports.append(callback.report)
    alone = watch()
    validate(tmp_path, alone, trained(), digit_loader(300, 40))
    assert reports[1]["robustness"] == alone.report["robustness"]
    assert reports[0]["robustness"] != reports[1]["robustness"]


def test_logged_value_is_the_very_number_of_the_report(tmp_path):
    callback = watch()
    trainer = validate(tmp_path, callback)
    assert trainer.callback_metrics["val_cam_robustness"].item() == callback.report["robustness"]


def test_every_tensorboard_logger_gets_pictures(tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "a"), TensorBoardLogger(tmp_path / "b")]
    fit(tmp_path, watch(), logger=loggers, max_epochs=1)
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).rglob("events*")) for name in "ab"]
    assert min(sizes) > 50_000


@pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"max_steps": 1, "val_check_interval": 1.0}])
def test_run_without_validation_says_so_once(tmp_path, settings):
    with pytest.warns(UserWarning, match="no images came during `fit`"):
        fit(tmp_path, watch(), max_epochs=1, num_sanity_val_steps=0, **settings)


def test_monitor_on_a_score_that_grows_stale_is_warned_of(tmp_path):
    stop = EarlyStopping("val_cam_robustness", mode="max", patience=2)
    with pytest.warns(UserWarning, match="EarlyStopping reads a score that is renewed only every 3 epochs"):
        fit(tmp_path, watch(every_n_epochs=3), stop, max_epochs=1)


def test_progress_bar_shows_the_score_on_demand_only(tmp_path):
    for wanted in (True, False):
        trainer = fit(tmp_path, watch(prog_bar=wanted), max_epochs=1)
        assert ("val_cam_robustness" in trainer.progress_bar_metrics) is wanted
        assert not [key for key in trainer.progress_bar_metrics if "consistency" in key]


# 6 state, copies


def test_callback_survives_pickle_and_deepcopy_after_a_fit_without_the_model(tmp_path):
    callback = watch()
    trainer = fit(tmp_path, callback)
    text = pickle.dumps(callback)
    assert len(text) < 50_000
    for other in (pickle.loads(text), copy.deepcopy(callback)):
        assert other.history == callback.history
        trainer = validate(tmp_path, other)
        assert trainer.callback_metrics["val_cam_robustness"] == other.report["robustness"]


def test_checkpoints_with_and_without_the_callback_interchange(tmp_path):
    trainer = fit(tmp_path, watch())
    trainer.save_checkpoint(tmp_path / "with.ckpt")
    assert (tmp_path / "with.ckpt").stat().st_size < 200_000
    trainer = fit(tmp_path)
    trainer.save_checkpoint(tmp_path / "without.ckpt")
    resumed = watch()
    for name, callbacks in (("with", []), ("without", [resumed])):
        trainer = make_trainer(tmp_path, *callbacks, max_epochs=3)
        trainer.fit(DigitModule(), digit_loader(), digit_loader(200, 40), ckpt_path=tmp_path / f"{name}.ckpt")
        assert trainer.current_epoch == 3
    assert [row["epoch"] for row in resumed.history] == [2]


def test_estimated_range_is_taken_up_from_a_checkpoint(tmp_path):
    images, labels = digit_loader(200, 40).dataset.tensors
    loader = DataLoader(torch.utils.data.TensorDataset((images - 0.3) / 0.2, labels), batch_size=16)
    first, second = watch(), watch()
    with pytest.warns(UserWarning, match="normalised by constants"):
        validate(tmp_path, first, loader=loader)
    second.load_state_dict(first.state_dict())
    validate(tmp_path, second, loader=loader)  # warns no more
    assert second.history[1]["robustness"] == first.history[0]["robustness"]


def test_averaged_weights_are_what_is_measured(tmp_path):
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="came with Lightning 2.6")

    class Reader(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            self.weights = copy.deepcopy(pl_module.state_dict())

    for order in (0, 1):
        callback, reader = watch(), Reader()
        average = averaging.WeightAveraging(avg_fn=get_ema_avg_fn(0.5))
        callbacks = [callback, average] if order else [average, callback]
        fit(tmp_path, *callbacks, reader)
        again, module = watch(), DigitModule()
        module.load_state_dict(reader.weights)
        validate(tmp_path, again, module)
        assert again.report["robustness"] == callback.report["robustness"]


# 7 batches and models


class Pair(typing.NamedTuple):
    label: torch.Tensor
    image: torch.Tensor


@dataclasses.dataclass
class Record:
    label: torch.Tensor
    scan: torch.Tensor


FORMATS = {
    "tuple": lambda image, label: (image, label),
    "list": lambda image, label: [image, label],
    "images only": lambda image, label: image,
    "dict": lambda image, label: {"label": label, "image": image},
    "Hugging Face": lambda image, label: {"labels": label, "pixel_values": image},
    "named tuple": lambda image, label: Pair(label, image),
    "dataclass": lambda image, label: Record(label, image),
    "nested": lambda image, label: {"meta": {"id": label}, "views": ({"scan": image}, label)},
    "label first": lambda image, label: (label, image),
}


@pytest.mark.parametrize("name", FORMATS)
def test_batches_as_people_have_them(name, tmp_path):
    class Items(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            images, labels = digits()
            return images[200 + index], labels[200 + index]

    def collate(items):
        return FORMATS[name](torch.stack([image for image, _ in items]), torch.stack([label for _, label in items]))

    class Silent(DigitModule):
        def validation_step(self, batch, batch_idx):
            """Whatever the batch is."""

    plain, callback = watch(), watch()
    validate(tmp_path, plain, trained(), digit_loader(200, 24, batch_size=8))
    validate(tmp_path, callback, trained(Silent()), DataLoader(Items(), batch_size=8, collate_fn=collate))
    assert callback.report["robustness"] == plain.report["robustness"]


@dataclasses.dataclass
class ModelOutput:
    logits: torch.Tensor
    loss: None = None


OUTPUTS = {
    "tensor": lambda logits: logits,
    "tuple": lambda logits: (logits, None),
    "dict": lambda logits: {"logits": logits, "features": 3},
    "record": lambda logits: ModelOutput(logits),
    "float64": lambda logits: logits.double(),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_as_people_have_them(name):
    class Wrapped(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, images):
            return OUTPUTS[name](self.net(images))

    net, images = small_cnn().eval(), torch.rand(3, 1, 16, 16)
    methods = ("gradcam", "ablationcam")
    plain, found = compute_cams(net, images, methods), compute_cams(Wrapped(net), images, methods)
    for method in methods:
        torch.testing.assert_close(found[method], plain[method], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classifier", ["net", lambda module, images: module.net(images)])
def test_module_whose_forward_is_not_the_classifier(classifier, tmp_path):
    class NoForward(DigitModule):
        def forward(self, images):
            raise NotImplementedError

        def validation_step(self, batch, batch_idx):
            self.net(batch[0])

    plain, callback = watch(), watch(classifier=classifier, target_layer="net.6")
    validate(tmp_path, plain, trained())
    validate(tmp_path, callback, trained(NoForward()))
    assert callback.report["robustness"] == plain.report["robustness"]


def test_single_logit_of_a_binary_head_predicts_by_its_sign():
    torch.manual_seed(0)
    one = small_cnn(classes=1).eval()
    two = copy.deepcopy(one)
    two[-1] = nn.Linear(12, 2)
    with torch.no_grad():
        two[-1].weight.copy_(torch.cat([-one[-1].weight, one[-1].weight]))
        two[-1].bias.copy_(torch.cat([-one[-1].bias, one[-1].bias]))
    images = torch.rand(6, 1, 16, 16)
    methods = ("gradcam", "gradcam_plusplus", "ablationcam")
    for method, maps in compute_cams(one, images, methods).items():
        torch.testing.assert_close(maps, compute_cams(two, images, methods)[method], rtol=1e-5, atol=1e-7)


def test_multilabel_head_explains_a_chosen_class_and_counts_its_own_decision(tmp_path):
    images, module, noises = digits()[0][200:224], trained().eval(), ("gaussian_noise", "impulse_noise")
    with torch.no_grad():
        clean = module(images) > 0
        noisy = [module(perturb_images(images, noise, 5, mean=0.0, std=1.0)) > 0 for noise in noises]
    flips = torch.stack([(clean != each).sum(dim=0) for each in noisy])  # (noise, class)
    chosen = int(flips.sum(dim=0).argmax())
    assert flips[:, chosen].sum() > 0
    callback = watch(perturbations=noises, severities=(5,), target=chosen, multilabel=True)
    validate(tmp_path, callback, module)
    for cell, wanted in zip(callback.report["cells"], flips[:, chosen].tolist(), strict=True):
        assert wanted - cell["degenerate_count"] <= cell["changed_count"] <= wanted


def test_callable_target(tmp_path):
    scores = []
    for target in (None, lambda logits: logits.argmax(dim=1), lambda logits: logits.argmin(dim=1)):
        callback = watch(target=target)
        validate(tmp_path, callback)
        scores.append(callback.report["consistency"])
    assert scores[0] == scores[1] != scores[2]


def test_volumes_have_maps_of_their_own_depth():
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(6, 3),
    ).eval()  # fmt: skip
    volumes = torch.rand(2, 1, 9, 10, 11)
    maps = compute_cams(net, volumes, ("gradcam", "hirescam", "xgradcam", "layercam", "gradcam_plusplus", "eigencam"))
    assert {tuple(each.shape) for each in maps.values()} == {(2, 5, 6, 7)}
    torch.testing.assert_close(maps["gradcam"], maps["hirescam"])  # global pooling and one linear layer


class ToyCircuit(nn.Module):
    """Two qubits: angles in, a CNOT between, expectation values of Z out, in float64 and in [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.angles = nn.Linear(6, 2).double()
        self.trained = nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))

    def forward(self, features):
        angle = torch.tanh(self.angles(features.double())) * math.pi
        first, second = (torch.stack([(a / 2).cos(), (a / 2).sin()], dim=1) for a in angle.unbind(1))
        state = torch.einsum("bi,bj->bij", first, second)
        state = torch.stack([state[:, 0], state[:, 1].flip(1)], dim=1)  # CNOT
        turn = self.trained / 2
        rotate = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])[..., 0]
        state = torch.einsum("ij,bjk->bik", rotate, state)
        chance = state.square()
        z = torch.tensor([1.0, -1.0], dtype=torch.float64)
        return torch.stack([chance.sum(dim=2) @ z, chance.sum(dim=1) @ z], dim=1)


def test_hybrid_head_with_expectation_values():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), ToyCircuit()).eval()
    images = torch.rand(4, 1, 10, 10)
    assert net(images).abs().max() <= 1
    maps = compute_cams(net, images, ("gradcam", "layercam", "ablationcam"), target_layer="1")
    activation = net[:2](images).detach().double().requires_grad_()
    logits = net[4](net[3](net[2](activation)))
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), activation)
    wanted = (gradient.mean(dim=(2, 3), keepdim=True) * activation).sum(dim=1).relu().float()
    torch.testing.assert_close(maps["gradcam"], wanted.detach(), rtol=1e-4, atol=1e-7)


# 9 models


@pytest.mark.parametrize("whole", [True, False])
def test_network_compiled_and_run_before(whole):
    net, images = small_cnn().eval(), torch.rand(2, 1, 16, 16)
    wanted = compute_cams(net, images, target_layer="6")["gradcam"]
    compiled = torch.compile(net, backend="eager") if whole else net
    if not whole:
        net.compile(backend="eager")
    compiled(images)
    layer = net[6]
    torch.testing.assert_close(compute_cams(compiled, images, target_layer=layer)["gradcam"], wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:FutureWarning")
def test_torchscript_is_refused_by_name():
    traced = torch.jit.trace(small_cnn().eval(), torch.rand(1, 1, 16, 16))
    with pytest.raises(ModelError, match="TorchScript"):
        compute_cams(traced, torch.rand(1, 1, 16, 16))


def test_layers_built_in_configure_model_are_found(tmp_path):
    class Late(DigitModule):
        def __init__(self):
            pl.LightningModule.__init__(self)
            self.net, self.lr = None, 0.1

        def configure_model(self):
            if self.net is None:
                self.net = small_cnn()

    callback = watch(target_layer="net.3")
    fit(tmp_path, callback, module=Late())
    assert callback.report["target_layer"] == "net.3"


@pytest.mark.parametrize("name", ["FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"])
def test_sharded_strategies_are_refused_by_name(name):
    with pytest.raises(ModelError, match=f"{name} spreads parameters"):
        refuse_sharded(type("Own", (type(name, (), {}),), {})())


def test_out_of_memory_halves_the_chunk_and_goes_on(tmp_path):
    sizes = []

    class Small(DigitModule):
        def forward(self, images):
            sizes.append(len(images))
            if len(images) > 6:
                raise torch.cuda.OutOfMemoryError("simulated")
            return super().forward(images)

        def validation_step(self, batch, batch_idx):
            """Nothing of its own."""

    plain, callback = watch(), watch()
    validate(tmp_path, plain, trained())
    with pytest.warns(UserWarning, match="out of memory with 24 images at once; going on with 12"):
        validate(tmp_path, callback, trained(Small()))
    assert callback.report["robustness"] == pytest.approx(plain.report["robustness"], abs=1e-6)
    assert sizes.count(24) == 1


def test_spatial_head_network_in_a_validation(tmp_path):
    class Pictures(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = VGGLike()

        def forward(self, images):
            return self.net(images)

        def validation_step(self, batch, batch_idx):
            self(batch)

    callback = watch(methods=("gradcam", "xgradcam", "hirescam"))
    validate(tmp_path, callback, Pictures(), DataLoader(torch.rand(24, 3, 32, 32), batch_size=8))
    assert callback.report["num_images"] == 24
