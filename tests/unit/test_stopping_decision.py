"""The decision of early stopping, as a pure function, against a slow oracle and against Lightning's own rule."""

import copy
import itertools
import math
import random
from decimal import Decimal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.freshness import FreshValues, Reading
from lightning_camrobust.monitored import agree
from lightning_camrobust.patience import Progress, Seen, judge
from lightning_camrobust.stopping import CAMRobustnessEarlyStopping
from lightning_camrobust.stopping_rule import StoppingRule, at_least

NAN = math.nan


def verdicts(rule, history):
    progress, found = Progress(), []
    for seen in history:
        verdict = judge(rule, progress, seen)
        progress = verdict.progress
        found.append(verdict)
    return found


def counts(rule, seen):
    number = seen.value is not None and -math.inf < seen.value < math.inf
    if not (seen.fresh and number and seen.epoch >= rule.start_epoch):
        return False
    floor = -math.inf if rule.guard_floor is None else rule.guard_floor
    ceiling = math.inf if rule.guard_ceiling is None else rule.guard_ceiling
    return rule.guard is None or (seen.guard is not None and floor <= seen.guard <= ceiling)


def expected(rule, history):
    """Decide on the last validation from the whole history, without anything remembered."""
    sign = 1 if rule.mode == "max" else -1
    counted = [seen for seen in history if counts(rule, seen)]
    records = []
    for position, seen in enumerate(counted):
        if all(sign * (seen.value - counted[record].value) > rule.min_delta for record in records):
            records.append(position)
    best = counted[records[-1]] if records else None
    waited = len(counted) - 1 - records[-1] if records else 0
    last = history[-1]
    reached = rule.stopping_threshold is not None and sign * ((last.value or 0) - rule.stopping_threshold) >= 0
    return {
        "best": None if best is None else best.value,
        "epoch": None if best is None else best.epoch,
        "waited": waited,
        "counted": counts(rule, last),
        "stop": counts(rule, last) and last.may_stop and (waited >= rule.patience or reached),
    }


@pytest.mark.parametrize("seed", range(60))
def test_random_histories_agree_with_the_oracle(seed):
    draw = random.Random(seed)
    guarded = draw.random() < 0.6
    rule = StoppingRule(
        patience=draw.randint(1, 4),
        min_delta=draw.choice([0.0, 0.125, 0.25]),
        mode=draw.choice(["max", "min"]),
        start_epoch=draw.choice([0, 0, 3]),
        guard="val_acc" if guarded else None,
        guard_floor=0.25 if guarded else None,
        guard_ceiling=draw.choice([None, 0.875]) if guarded else None,
        stopping_threshold=draw.choice([None, None, 0.5]),
    )
    # Eighths: sums and differences are exact, so that a tie is a tie.
    values = [NAN, math.inf, -math.inf, None, *(count / 8 for count in range(9))]
    history = [
        Seen(
            epoch,
            draw.choice(values),
            fresh=draw.random() < 0.7,
            guard=draw.choice([None, NAN, 0.0, 0.25, 0.5, 0.875, 1.0]),
            may_stop=draw.random() < 0.8,
        )
        for epoch in range(30)
    ]
    for length, verdict in enumerate(verdicts(rule, history), start=1):
        wanted = expected(rule, history[:length])
        got = {
            "best": verdict.progress.best_score,
            "epoch": verdict.progress.best_epoch,
            "waited": verdict.progress.wait_count,
            "counted": verdict.counted,
            "stop": verdict.stop,
        }
        assert got == wanted, (rule, history[:length])


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("min_delta", [0.0, 0.1])
def test_on_fresh_values_it_is_lightnings_rule(mode, min_delta):
    draw = random.Random(7)
    for _ in range(30):
        theirs = EarlyStopping("x", min_delta=min_delta, patience=3, mode=mode, stopping_threshold=0.05)
        rule = StoppingRule(patience=3, min_delta=min_delta, mode=mode, stopping_threshold=0.05)
        history = [Seen(epoch, draw.random()) for epoch in range(12)]
        for seen, verdict in zip(history, verdicts(rule, history), strict=True):
            stop, _ = theirs._evaluate_stopping_criteria(torch.tensor(seen.value, dtype=torch.float64))
            assert verdict.stop == stop
            if stop:
                break
            assert verdict.progress.best_score == theirs.best_score.item()
            assert verdict.progress.wait_count == theirs.wait_count


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("min_delta", ["0.1", "0.01", "0.05"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exactly_min_delta_is_no_improvement_however_numbers_are_rounded(mode, min_delta, dtype):
    """Decimal numbers, so that a tie is a tie; the rule sees them as a network logs them."""
    step, rule = Decimal(min_delta), StoppingRule(mode=mode, min_delta=float(min_delta))
    sign = 1 if mode == "max" else -1
    grid = [step * count for count in range(int(1 / step) + 1)]
    for best, value in itertools.product(grid, grid):
        single = [torch.tensor(float(each), dtype=dtype).item() for each in (best, value)]
        verdict = judge(rule, Progress(single[0], 0, 0), Seen(1, single[1]))
        assert (verdict.reason == "improved") == (sign * (value - best) > step), (best, value)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_without_min_delta_the_least_bit_is_an_improvement(mode):
    sign = 1 if mode == "max" else -1
    for value in (0.5, 76.0, -3.0):
        better = torch.nextafter(torch.tensor(value), torch.tensor(sign * math.inf)).item()
        assert judge(StoppingRule(mode=mode), Progress(value, 0, 0), Seen(1, better)).reason == "improved"
        assert judge(StoppingRule(mode=mode), Progress(better, 0, 0), Seen(1, value)).reason == "not improved"


# One row each: the settings, what came, and the reason of the last verdict.
ROWS = {
    "fresh and better": ({}, [0.5, 0.6], "improved"),
    "fresh and equal": ({}, [0.5, 0.5], "not improved"),
    "fresh and worse": ({}, [0.5, 0.4], "not improved"),
    "patience used up": ({"patience": 2}, [0.5, 0.4, 0.5], "patience exhausted"),
    "patience used up before min_epochs": ({"patience": 1}, [0.5, Seen(1, 0.4, may_stop=False)], "too early to stop"),
    "stale, though patience is used up": ({"patience": 1}, [0.5, Seen(1, 0.5, fresh=False)], "stale"),
    "missing": ({}, [None], "missing"),
    "warm-up": ({"start_epoch": 2}, [0.9, 0.8], "warm-up"),
    "first after warm-up": ({"start_epoch": 2}, [0.9, 0.8, 0.1], "improved"),
    "NaN": ({}, [0.5, NAN], "not finite"),
    "infinite": ({}, [0.5, math.inf], "not finite"),
    "guard below its floor": ({"guard": "a", "guard_floor": 0.6}, [Seen(0, 0.9, guard=0.5)], "guard missed"),
    "guard at its floor": ({"guard": "a", "guard_floor": 0.6}, [Seen(0, 0.9, guard=0.6)], "improved"),
    "guard above its ceiling": ({"guard": "a", "guard_ceiling": 2.0}, [Seen(0, 0.9, guard=2.5)], "guard missed"),
    "guard NaN": ({"guard": "a", "guard_floor": 0.6}, [Seen(0, 0.9, guard=NAN)], "guard missed"),
    "guard missing": ({"guard": "a", "guard_floor": 0.6}, [Seen(0, 0.9)], "guard missed"),
    "mode min": ({"mode": "min"}, [0.5, 0.4], "improved"),
    "better by no more than min_delta": ({"min_delta": 0.25}, [0.5, 0.75], "not improved"),
    "threshold": ({"stopping_threshold": 0.7}, [0.5, 0.71], "threshold reached"),
    "threshold, mode min": ({"stopping_threshold": 0.7, "mode": "min"}, [0.9, 0.69], "threshold reached"),
}


@pytest.mark.parametrize(("settings", "came", "reason"), ROWS.values(), ids=ROWS.keys())
def test_truth_table(settings, came, reason):
    rule = StoppingRule(**settings)
    history = [each if isinstance(each, Seen) else Seen(epoch, each) for epoch, each in enumerate(came)]
    last = verdicts(rule, history)[-1]
    assert last.reason == reason
    assert last.stop == (reason in ("patience exhausted", "threshold reached"))


def test_a_value_that_does_not_count_changes_nothing():
    rule = StoppingRule(patience=2, guard="a", guard_floor=0.5, start_epoch=1)
    progress = Progress(0.4, 1, 1)
    for seen in (
        Seen(2, 0.9, fresh=False, guard=1.0),
        Seen(0, 0.9, guard=1.0),
        Seen(2, NAN, guard=1.0),
        Seen(2, 0.9, guard=0.1),
        Seen(2, None, guard=1.0),
    ):
        assert judge(rule, progress, seen).progress == progress


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_check_finite_stops(value):
    assert judge(StoppingRule(check_finite=True), Progress(), Seen(3, value)).stop
    assert not judge(StoppingRule(check_finite=False), Progress(), Seen(3, value)).stop
    # Diverged networks guess, so the guard must not hide it; in warm-up nothing is decided.
    guarded = StoppingRule(check_finite=True, guard="a", guard_floor=0.5, start_epoch=2)
    assert judge(guarded, Progress(), Seen(3, value, guard=0.1)).stop
    assert not judge(guarded, Progress(), Seen(1, value, guard=0.1)).stop


def test_a_bound_is_met_in_single_precision():
    assert at_least(float(torch.tensor(0.7)), 0.7)
    assert at_least(float(torch.tensor(-0.7)), -0.7)
    assert not at_least(0.6999, 0.7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": ""}, "`monitor` must be the key"),
        ({"patience": 0}, "`patience` must be a whole number of at least 1, got 0"),
        ({"patience": 2.5}, "`patience`"),
        ({"patience": True}, "`patience`"),
        ({"start_epoch": -1}, "`start_epoch`"),
        ({"mode": "maximum"}, "`mode` must be 'max' or 'min', got 'maximum'"),
        ({"min_delta": -0.1}, "`min_delta` must be a number of at least 0, whatever the mode"),
        ({"min_delta": NAN}, "`min_delta`"),
        ({"stopping_threshold": math.inf}, "`stopping_threshold`"),
        ({"guard": "val_acc"}, "`guard` must be accompanied by `guard_floor`"),
        ({"guard": ""}, "`guard` must be the key"),
        ({"guard_floor": 0.5}, "`guard_floor` must be accompanied by `guard`"),
        ({"guard_ceiling": 0.5}, "`guard_ceiling` must be accompanied by `guard`"),
        ({"guard": "a", "guard_floor": "high"}, "`guard_floor` must be a finite number"),
        ({"guard": "a", "guard_floor": 0.8, "guard_ceiling": 0.2}, "`guard_floor` must be at most `guard_ceiling`"),
    ],
)
def test_bad_arguments_are_refused_by_name(settings, message):
    with pytest.raises(ArgumentError, match="^CAMRobustnessEarlyStopping: ") as caught:
        CAMRobustnessEarlyStopping(**settings)
    assert message in str(caught.value)


class Metrics(dict):
    """What Lightning does: a log puts a new object there, and so does each look while results are live."""

    def log(self, key, value):
        self[key] = torch.tensor(value)

    def look(self):
        self.update({key: value.detach() for key, value in self.items()})


@pytest.mark.parametrize("watchers", [1, 3])
def test_freshness_within_validations(watchers):
    metrics, watching = Metrics(), [FreshValues(["a", "b"]) for _ in range(watchers)]
    for logged in (True, False, True, True, False, False):
        for each in watching:
            each.start(metrics)
        before = dict(metrics)
        if logged:
            metrics.log("a", 0.5)
            metrics.look()
        found = [each.read(metrics) for each in watching]
        assert {each["a"].fresh for each in found} == {logged}
        assert found[0]["b"].value is None
        assert not found[0]["b"].fresh
        assert logged or before == metrics  # looked at, and not touched
        metrics.look()  # other callbacks, after the decision


def test_freshness_of_what_is_logged_in_training():
    metrics, watched = Metrics(), FreshValues(["loss"])
    fresh = []
    for value in (3.0, 2.0, None, NAN, None, 1.0):
        if value is not None:
            metrics.log("loss", value)
        watched.start(metrics)
        fresh.append(watched.read(metrics)["loss"].fresh)
        metrics.look()
    assert fresh == [True, True, False, True, False, True]


class ManyProcesses:
    """As much of a trainer as one exchange needs; the others hold `rows`."""

    world_size = 3

    def __init__(self, others):
        self.strategy = self
        self.root_device = "cpu"
        self.others = others

    def all_gather(self, mine):
        return torch.stack([mine, *(torch.tensor([row], dtype=torch.float64) for row in self.others)])


def test_a_number_known_from_before_is_no_new_one():
    metrics, watched = Metrics(loss=torch.tensor(0.5)), FreshValues(["loss"])
    watched.resume({"loss": 0.5, "another": 0.1})
    for fresh, value in ((False, None), (True, 0.4), (False, 0.4)):
        if value is not None:
            metrics.log("loss", value)
        watched.start(metrics)
        assert watched.read(metrics)["loss"].fresh is fresh


def test_processes_agree_on_one_reading():
    watched, metrics = (
        FreshValues(["a", "b", "c", "d", "e"]),
        Metrics(a=torch.tensor(0.1, dtype=torch.float64), b=torch.tensor(1.0)),
    )
    watched.start({})
    mine = watched.read(metrics)
    number = 0.1  # the mean of three of them is another number
    gone, nan = [0.0, 0, 0], [NAN, 1, 1]
    others = [
        [number, 1, 1, 2.0, 1, 1, *nan, 4.0, 1, 0, *gone],
        [number, 1, 1, 6.0, 1, 0, 3.0, 1, 1, 8.0, 1, 0, *gone],
    ]
    found = agree(ManyProcesses(others), mine)
    assert found["a"] == (number, True)
    assert found["b"] == (1.5, True)  # the one that is stale has no say
    assert math.isnan(found["c"].value)
    assert found["c"].fresh
    assert found["d"] == (6.0, False)
    assert found["e"] == (None, False)


def test_one_process_exchanges_nothing():
    found = {"a": Reading(0.5, fresh=True)}
    assert agree(SimpleNamespace(world_size=1), found) == found  # a trainer without a strategy


def test_copies_are_complete():
    stopper = CAMRobustnessEarlyStopping(patience=2, guard="val_acc", guard_floor=0.5)
    twin = copy.deepcopy(stopper)
    twin.load_state_dict(stopper.state_dict())
    assert twin.state_dict() == stopper.state_dict()
    assert twin.rule == stopper.rule


def test_instances_are_kept_apart():
    keys = {
        CAMRobustnessEarlyStopping(monitor, mode=mode).state_key for monitor in ("a", "b") for mode in ("max", "min")
    }
    assert len(keys) == 4
