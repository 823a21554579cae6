"""`max_time_share`: as many images as the training time allows, from the first run on."""

import time

import pytest
import torch

from lightning_camrobust import CAMRobustnessCallback
from lightning_camrobust.budget import TimeBudget, TrainingClock
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.plan import make_plan
from lightning_camrobust.rows import Spent, pack_rows, unpack_rows
from tests.integration.test_callback import fit, make_callback, pytestmark  # noqa: F401
from tests.networks import DigitModule, digit_loader


class SlowModule(DigitModule):
    """Trains for a quarter of a second an epoch."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.04)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("share", "training", "probing", "images"),
    [(0.05, 20, 0.5, 32), (0.05, 20, 2, 16), (0.05, 20, 1.001, 31), (0.05, 20, 100, 4), (0.05, 0, 1, 4)],
)
def test_affordable_images(share, training, probing, images):
    assert TimeBudget(share, training, probing).affordable(images=32) == images


def test_fewer_images_than_four_are_all_kept():
    assert TimeBudget(0.05, 1, 100).affordable(images=3) == 3


@pytest.fixture
def ten_seconds_of_training_two_of_probing(monkeypatch):
    monkeypatch.setattr(TrainingClock, "take", lambda self: 10.0)
    monkeypatch.setattr(Spent, "repeated", 2.0)


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_every_run_rests_on_the_same_affordable_images(tmp_path, caplog):
    callback = make_callback(max_time_share=0.1)
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, max_epochs=3)
    assert [row["num_images"] for row in callback.history] == [12, 12, 12]
    said = [text for text in caplog.messages if "max_time_share" in text]
    assert len(said) == 1
    assert "12 of 24 images are probed, about 10.00%" in said[0]

    fixed = make_callback(num_samples=12)
    fit(tmp_path, fixed, max_epochs=3)
    for row, expected in zip(callback.history, fixed.history, strict=True):
        assert row["robustness"] == expected["robustness"]
        assert row["consistency"] == expected["consistency"]


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_four_images_are_the_least_and_what_they_cost_is_said(tmp_path, caplog):
    callback = make_callback(max_time_share=0.01)
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, max_epochs=1)
    assert callback.report["num_images"] == 4
    assert any("about 3.33%" in text and "more than was allowed" in text for text in caplog.messages)


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_rarer_probes_may_cost_more(tmp_path):
    callback = make_callback(max_time_share=0.1, every_n_epochs=2)
    fit(tmp_path, callback, max_epochs=1)
    assert callback.report["num_images"] == 24


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_the_choice_survives_a_checkpoint(tmp_path):
    callback = make_callback(max_time_share=0.1)
    fit(tmp_path, callback, max_epochs=1)
    resumed = make_callback(max_time_share=0.9)
    resumed.load_state_dict(callback.state_dict())
    fit(tmp_path, resumed, max_epochs=1)
    assert resumed.report["num_images"] == callback.report["num_images"] == 12


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_outside_a_fit_all_images_are_probed(tmp_path):
    callback = make_callback(max_time_share=0.1)
    trainer, module = fit(tmp_path, callback, max_epochs=1)
    trainer.validate(module, digit_loader(200, 40), verbose=False)
    assert callback.report["num_images"] == 24


@pytest.mark.usefixtures("ten_seconds_of_training_two_of_probing")
def test_without_a_limit_an_earlier_choice_does_not_hold(tmp_path):
    callback = make_callback(max_time_share=0.1)
    fit(tmp_path, callback, max_epochs=1)
    unlimited = make_callback()
    unlimited.load_state_dict(callback.state_dict())
    fit(tmp_path, unlimited, max_epochs=1)
    assert unlimited.report["num_images"] == 24


def test_the_clock_does_not_count_what_lies_between_two_fits(tmp_path, monkeypatch):
    taken = []
    take = TrainingClock.take
    monkeypatch.setattr(TrainingClock, "take", lambda self: taken.append(take(self)) or taken[-1])
    callback = make_callback(max_time_share=0.5)
    with pytest.warns(UserWarning, match="no images came"):
        fit(tmp_path, callback, max_epochs=1, limit_val_batches=0)
    time.sleep(2)
    fit(tmp_path, callback, max_epochs=1)
    assert len(taken) == 1
    assert taken[0] < 1.9


def test_processes_settle_on_the_times_of_the_slowest():
    plan = make_plan(severities=1)
    tables = [
        pack_rows([torch.tensor([[position, 0.5, 1, 1]]).double()], plan, spent=spent)
        for position, spent in ((1, Spent(2.0, 0.5, 9.0)), (0, Spent(5.0, 1.0, 8.0)))
    ]
    comparison, spent = unpack_rows(torch.cat(tables), plan)
    assert spent == Spent(5.0, 1.0, 9.0)
    assert spent.repeated == 4.0
    assert comparison.similarity.shape == (2, 1)


def test_the_clock_counts_training_and_not_probing(tmp_path, monkeypatch):
    taken = []
    take = TrainingClock.take
    monkeypatch.setattr(TrainingClock, "take", lambda self: taken.append(take(self)) or taken[-1])
    start = time.perf_counter()
    fit(tmp_path, make_callback(max_time_share=0.5), module=SlowModule(), max_epochs=3)
    # Asked once, behind the first epoch: six steps of 40 ms, and less than a third of it all.
    assert len(taken) == 1
    assert 6 * 0.04 <= taken[0] <= time.perf_counter() - start - 2 * 6 * 0.04


@pytest.mark.parametrize("share", [0, 1, -0.1, 5, "much", True, float("nan")])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ArgumentError, match="max_time_share.*between 0 and 1"):
        CAMRobustnessCallback(max_time_share=share)
