"""The training regulariser inside Lightning: two processes, accumulation, resuming, and what it is for."""

import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_camrobust import CAMConsistencyLoss, CAMRobustnessCallback, measure_stability
from tests.networks import DigitModule, digit_loader, digits, trained

# Lightning warns about much that is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]


class Regularised(DigitModule):
    """Two lines more than a plain module."""

    def __init__(self, *, weight=0.5, lr=0.05, batch_norm="batch"):
        super().__init__(lr)
        self.agree, self.weight = CAMConsistencyLoss(mean=0.0, std=1.0, target_layer="4", batch_norm=batch_norm), weight
        self.net[9].p = 0.0

    def training_step(self, batch, batch_idx):
        images, labels = batch
        step = self.agree(self.net, images)
        return cross_entropy(step.logits, labels) + self.weight * step.disagreement


def regularised(start=None, **settings):
    module = Regularised(**settings)
    module.load_state_dict(trained().state_dict() if start is None else start)
    return module


def fit(module, loader, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    settings = {"enable_checkpointing": False, "max_epochs": 1, **quiet, **settings}
    trainer = pl.Trainer(**settings)
    trainer.fit(module, loader)
    return trainer


def weights(module):
    return torch.cat([each.detach().flatten() for each in module.net.parameters()])


def in_eval_mode(module):
    # Batch statistics would differ between a whole batch and its halves.
    module.on_train_epoch_start = lambda: module.net.eval()
    return module


def test_accumulation_over_two_batches_is_the_mean_of_both():
    module = in_eval_mode(regularised())
    fit(module, digit_loader(0, 32), accumulate_grad_batches=2)
    other = in_eval_mode(regularised()).eval()
    other.agree.train()
    losses = [other.training_step(batch, index) / 2 for index, batch in enumerate(digit_loader(0, 32))]
    optimizer = other.configure_optimizers()
    sum(losses).backward()
    optimizer.step()
    torch.testing.assert_close(weights(module), weights(other))
    assert not torch.equal(weights(module), weights(trained()))


def test_resumed_run_ends_where_the_unbroken_one_does(tmp_path):
    unbroken, first, second = regularised(), regularised(), regularised()
    fit(unbroken, digit_loader(0, 48), max_epochs=2)
    fit(first, digit_loader(0, 48)).save_checkpoint(tmp_path / "half.ckpt")
    fresh = pl.Trainer(
        max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        enable_checkpointing=False,
    )  # fmt: skip
    fresh.fit(second, digit_loader(0, 48), ckpt_path=tmp_path / "half.ckpt")
    assert second.agree.steps == unbroken.agree.steps == 6
    assert torch.equal(weights(second), weights(unbroken))
    assert not torch.equal(weights(first), weights(unbroken))


def test_the_callback_still_only_watches():
    found = []
    for callbacks in ([], [CAMRobustnessCallback(num_samples=8, mean=0.0, std=1.0, target_layer="net.4")]):
        torch.manual_seed(3)
        module = regularised()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, callbacks=callbacks, **quiet)
        trainer.fit(module, digit_loader(0, 48), digit_loader(200, 8))
        found.append((weights(module), module.agree.steps))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == 6


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precisions(precision):
    module = regularised()
    before = weights(module).double()
    fit(module, digit_loader(0, 32), precision=precision)
    after = weights(module).double()
    assert after.isfinite().all()
    assert not torch.equal(before, after)


def share_of_process(rank):
    """Every other digit; moved a little, since in flat areas rounding decides which cell a pooling layer takes."""
    images, labels = digit_loader(0, 32).dataset.tensors
    moved = (images * 0.8 + 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(4))).clamp(0, 1)
    return DataLoader(Subset(TensorDataset(moved, labels), range(rank, 32, 2)), batch_size=16)


def test_two_processes_step_as_their_mean(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "start.pt")
    command = [sys.executable, "-m", "tests.integration.test_consistency_loss", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(found[0], found[1])
    # By hand: the step is that of the mean of both losses.
    module = in_eval_mode(regularised()).eval()
    module.agree.train()
    losses = []
    for rank in range(2):
        module.agree.steps = 0
        (batch,) = share_of_process(rank)
        losses.append(module.training_step(batch, 0) / 2)
    optimizer = module.configure_optimizers()
    sum(losses).backward()
    optimizer.step()
    torch.testing.assert_close(found[0], weights(module))
    assert (found[0] - weights(trained())).abs().max() > 1e-3


def consistency(net, images):
    measured = measure_stability(
        net, images, "gradcam", "gaussian_noise", severities=(3,), segmenter="grid", target_layer="4", mean=0.0,
        std=1.0, seed=99,
    )  # fmt: skip
    (row,) = measured.table()
    return row["consistency"]


def test_lower_disagreement_is_higher_consistency():
    """What it is for, on a toy: the same steps with and without it, judged by digits that were not trained on."""
    images, labels = (each[1600:1797] for each in digits())
    found = {}
    for weight in (0.0, 3.0):
        module = regularised(weight=weight, lr=0.02)
        fit(module, digit_loader(400, 960, batch_size=32), max_epochs=3)
        step = module.eval().agree(module.net, images)
        accuracy = float((step.logits.argmax(dim=1) == labels).float().mean())
        found[weight] = float(step.disagreement.detach()), consistency(module.net, images), accuracy
    print(f"disagreement, consistency and accuracy: plain {found[0.0]}, regularised {found[3.0]}")
    assert found[3.0][0] < 0.75 * found[0.0][0]
    assert found[3.0][1] > found[0.0][1] + 0.05
    assert found[3.0][2] > found[0.0][2] - 0.05


def main(folder):
    torch.set_num_threads(1)
    start = torch.load(Path(folder) / "start.pt", weights_only=True)
    module = in_eval_mode(regularised(start))
    module.train_dataloader = lambda: share_of_process(module.global_rank)
    trainer = fit(module, None, strategy="ddp", devices=2, use_distributed_sampler=False)
    torch.save(weights(module), Path(folder) / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
