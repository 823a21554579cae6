"""With and without the callback, training ends bitwise equal: weights, buffers, optimiser, random streams, losses."""

import math
import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset

from lightning_camrobust import CAMRobustnessCallback
from tests.contracts.specimens import specimens
from tests.networks import DigitModule, digit_loader

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning_utilities"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning_fabric"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec.*"),
    pytest.mark.filterwarnings("ignore:Anomaly Detection.*"),
    pytest.mark.filterwarnings("ignore:.*swa_lrs.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*attribute of a Tensor that is not a leaf.*"),  # of dynamo, with or without us
]


class Recording(DigitModule):
    """Note each loss, each training batch, and each random stream after each validation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen += [loss.detach().clone(), batch[0].sum()]
        return loss

    def on_train_epoch_end(self):
        self.seen += [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))]
        self.seen.append(torch.tensor(random.getstate()[1]))


class FrozenBackbone(Recording):
    def __init__(self):
        super().__init__()
        self.net[:7].requires_grad_(False)


class Manual(Recording):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss / 3)  # three batches a step, so that gradients wait across a validation
        if batch_idx % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


class TwoOptimisers(Manual):
    def training_step(self, batch, batch_idx):
        loss = Recording.training_step(self, batch, batch_idx)
        self.manual_backward(loss)
        optimiser = self.optimizers()[batch_idx % 2]
        optimiser.step()
        optimiser.zero_grad()

    def configure_optimizers(self):
        parts = (self.net[:4], self.net[4:])
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts]


class Checkpointed(Recording):
    def forward(self, images):
        features = checkpoint(self.net[:4], images, use_reentrant=False)
        return self.net[4:](features)


class CompiledPart(Recording):
    def __init__(self):
        super().__init__()
        self.part = torch.compile(self.net[4:7], backend="eager")

    def forward(self, images):
        return self.net[7:](self.part(self.net[:4](images)))


class ChannelsLast(Recording):
    def __init__(self):
        super().__init__()
        self.net.to(memory_format=torch.channels_last)

    def forward(self, images):
        return super().forward(images.to(memory_format=torch.channels_last))


class MonteCarloDropout(Recording):
    def on_validation_epoch_start(self):
        self.net[9].train()


class SpectralNorm(Recording):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.net[4])


class FrozenNorm(Recording):
    """A user who keeps batch norm in eval mode during training."""

    def on_train_epoch_start(self):
        self.net[1].eval()


class EditsItsBatch(Recording):
    def validation_step(self, batch, batch_idx):
        batch[0].mul_(0.5)
        super().validation_step(batch, batch_idx)


class UsesItsOwnRandomness(Recording):
    def validation_step(self, batch, batch_idx):
        self.seen += [torch.rand(1), torch.tensor(np.random.rand()), torch.tensor(random.random())]
        super().validation_step(batch, batch_idx)


class SeveralLoaders(Recording):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))


class Stream(IterableDataset):
    def __iter__(self):
        yield from digit_loader(200, 40).dataset


def ema():
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="came with Lightning 2.6")
    return averaging.WeightAveraging(avg_fn=get_ema_avg_fn(0.9))


CNN_METHODS = [each for each in specimens("cams") if getattr(each, "needs", "") != "attention"]
CASES = {
    "plain": {},
    "accumulation, validation in mid-epoch": {"trainer": {"accumulate_grad_batches": 4, "val_check_interval": 3}},
    "sanity check": {"trainer": {"num_sanity_val_steps": 2}},
    "frozen backbone": {"module": FrozenBackbone},
    "manual optimisation": {"module": Manual, "trainer": {"val_check_interval": 2}},
    "two optimisers": {"module": TwoOptimisers},
    "gradient clipping": {"trainer": {"gradient_clip_val": 0.1}},
    "gradient checkpointing": {"module": Checkpointed},
    "compiled part": {"module": CompiledPart},
    "channels last": {"module": ChannelsLast},
    "dropout on in validation": {"module": MonteCarloDropout},
    "spectral norm": {"module": SpectralNorm},
    "batch norm kept in eval mode": {"module": FrozenNorm},
    "batch edited in place": {"module": EditsItsBatch},
    "own random draws in validation": {"module": UsesItsOwnRandomness},
    "bf16-mixed": {"trainer": {"precision": "bf16-mixed"}},
    "bf16-true": {"trainer": {"precision": "bf16-true"}},
    "16-mixed": {"trainer": {"precision": "16-mixed"}},
    "64-true": {"trainer": {"precision": "64-true"}},
    "averaged weights": {"callbacks": [ema]},
    "stochastic weight averaging": {"callbacks": [lambda: StochasticWeightAveraging(0.01, swa_epoch_start=1)]},
    "several validation loaders": {
        "module": SeveralLoaders,
        "loaders": lambda: [digit_loader(200, 40), digit_loader(300, 24)],
    },
    "shuffled validation loader": {"loaders": lambda: digit_loader(200, 40, shuffle=True)},
    "iterable validation loader": {"loaders": lambda: DataLoader(Stream(), batch_size=16)},
    "limited validation": {"trainer": {"limit_val_batches": 1}},
    "every second epoch": {"trainer": {"check_val_every_n_epoch": 2}},
    "probe every second epoch": {"probe": {"every_n_epochs": 2}},
    "detect anomaly": {"trainer": {"detect_anomaly": True}},
    "deterministic": {"trainer": {"deterministic": True}},
    "fast dev run": {"trainer": {"fast_dev_run": 3}},
    "barebones": {"trainer": {"barebones": True}},
    "two callbacks": {"second": True},
    "every CAM method": {"probe": {"methods": CNN_METHODS, "num_samples": 3}},
    "every perturbation": {"probe": {"perturbations": specimens("perturb"), "num_samples": 3, "align_geometric": True}},
    "two target layers": {"probe": {"target_layer": ["net.4", "net.1"]}},
    "several chunks, ablation, third-party explainer": {
        "probe": {"chunk_size": 5, "methods": ("gradcam", "ablationcam", "eigencam", "pytorch_grad_cam:GradCAM")}
    },
}


class Polluter(pl.Callback):
    """What a careless explainer does: zero the gradients and run a backward of its own."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        with torch.enable_grad():
            pl_module.zero_grad()
            pl_module(batch[0]).max().backward()


def train(folder, case, watchers):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    module = case.get("module", Recording)()
    settings = {"accelerator": "cpu", "max_epochs": 3, "default_root_dir": folder, "num_sanity_val_steps": 0}
    chosen = case.get("trainer", {})
    if not chosen.get("barebones"):
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        settings |= dict.fromkeys(quiet, False)
    callbacks = [*watchers, *(make() for make in case.get("callbacks", []))]
    trainer = pl.Trainer(**{**settings, **chosen}, callbacks=callbacks)
    trainer.fit(module, digit_loader(shuffle=True), case.get("loaders", lambda: digit_loader(200, 40))())
    return {
        "weights": module.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in trainer.optimizers],
        "losses, batches and random streams": module.seen,
        "flags and hooks": [(part.training, len(part._forward_hooks)) for part in module.modules()],
        "gradients": [parameter.grad for parameter in module.parameters()],
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def watch(**settings):
    return CAMRobustnessCallback(**{"segmenter": "grid", "num_samples": 24, "severities": (3,), **settings})


@pytest.mark.parametrize("name", CASES)
def test_training_is_bitwise_equal(name, tmp_path):
    case = CASES[name]
    watchers = [watch(**case.get("probe", {}))]
    if case.get("second"):
        watchers.append(watch(methods=("layercam",), name="second"))
    plain, watched = train(tmp_path, case, []), train(tmp_path, case, watchers)
    for part in plain:
        assert same(plain[part], watched[part]), f"{part} differ"
    for watcher in watchers:
        assert watcher.history, "nothing was measured, so that nothing was shown"
        assert math.isfinite(watcher.history[-1]["robustness"])


@pytest.mark.parametrize("name", ["accumulation, validation in mid-epoch", "manual optimisation"])
def test_the_matrix_turns_red_for_a_polluting_callback(name, tmp_path):
    plain, watched = train(tmp_path, CASES[name], []), train(tmp_path, CASES[name], [Polluter()])
    assert not same(plain["weights"], watched["weights"])
