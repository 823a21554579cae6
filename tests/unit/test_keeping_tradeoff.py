"""Which checkpoints to keep, as a pure decision, against brute force."""

import itertools
import math
import random

import pytest
import torch

from lightning_camrobust import StableCheckpoint
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.tradeoff import KeepingRule, Pair


def brute_force_front(pairs, mode):
    """The pairs that no other excels: the definition, pair by pair, each value once."""
    better = (lambda a, b: a > b) if mode == "max" else (lambda a, b: a < b)
    kept = []
    for pair in pairs:
        beaten = any(
            (better(other[0], pair[0]) and other[1] >= pair[1])
            or (not better(pair[0], other[0]) and other[1] > pair[1])
            for other in pairs
        )
        if not beaten and pair not in kept:
            kept.append(pair)
    return sorted(kept)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_that_of_brute_force(mode, seed):
    draw = random.Random(seed)
    rule = KeepingRule("pareto", accuracy_mode=mode)
    pairs = [Pair(draw.randint(0, 6) / 6, draw.randint(0, 6) / 6) for _ in range(30)]
    kept = {}
    for number, pair in enumerate(pairs, start=1):
        leaving = rule.beaten(pair, kept)
        if leaving is not None:
            kept = {name: each for name, each in kept.items() if name not in leaving} | {str(number): pair}
        assert sorted(kept.values()) == brute_force_front(pairs[:number], mode)


def test_the_first_of_equals_stays():
    rule = KeepingRule("pareto")
    assert rule.beaten(Pair(0.5, 0.5), {"first": Pair(0.5, 0.5)}) is None
    assert rule.beaten(Pair(0.5, 0.6), {"first": Pair(0.5, 0.5)}) == ["first"]
    assert rule.beaten(Pair(0.6, 0.4), {"first": Pair(0.5, 0.5)}) == []


@pytest.mark.parametrize("weight", [0, 0.25, 0.5, 1])
def test_the_score_is_the_weighted_mean(weight):
    rule = KeepingRule(stability_weight=weight)
    for accuracy, stability in itertools.product((0.0, 0.3, 1.0), repeat=2):
        mean = torch.tensor([accuracy, stability], dtype=torch.float64) @ torch.tensor(
            [1 - weight, weight], dtype=torch.float64
        )
        assert rule.score(Pair(accuracy, stability)) == pytest.approx(mean.item())
    assert KeepingRule("pareto", accuracy_mode="min").score(Pair(2.5, 0.1)) == 2.5


def test_who_is_admitted():
    floor, ceiling = KeepingRule(accuracy_floor=0.7), KeepingRule("pareto", accuracy_ceiling=0.7, accuracy_mode="min")
    single = float(torch.tensor(0.7))
    assert [floor.admits(Pair(each, 0.5)) for each in (0.69, single, 0.8)] == [False, True, True]
    assert [ceiling.admits(Pair(each, 0.5)) for each in (0.69, single, 0.8)] == [True, True, False]
    assert not any(KeepingRule().admits(Pair(*each)) for each in ((math.nan, 1), (1, math.nan), (math.inf, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accuracy": ""}, "`accuracy` must be the key"),
        ({"stability": 3}, "`stability` must be the key"),
        ({"accuracy": "a", "stability": "a"}, "must be two values, got 'a' for both"),
        ({"rule": "best"}, "`rule` must be 'weighted' or 'pareto'; got 'best'"),
        ({"stability_weight": 1.5}, "`stability_weight` must be a number from 0 to 1; got 1.5"),
        ({"stability_weight": math.nan}, "`stability_weight`"),
        ({"accuracy_mode": "least"}, "`accuracy_mode`"),
        ({"accuracy_mode": "min"}, "`accuracy_mode` must be 'max' with rule='weighted'"),
        ({"accuracy_floor": "high"}, "`accuracy_floor` must be a finite number"),
        ({"accuracy_floor": 0.5, "accuracy_mode": "min", "rule": "pareto"}, "`accuracy_floor` must be None unless"),
        ({"accuracy_ceiling": 0.5}, "`accuracy_ceiling` must be None unless accuracy_mode='min'"),
        ({"rule": "pareto", "save_top_k": 3}, "`save_top_k` must be None with rule='pareto', got 3"),
        ({"save_top_k": 1.5}, "`save_top_k` must be a whole number of at least -1 (-1 keeps all), or None; got 1.5"),
        ({"save_top_k": True}, "`save_top_k`"),
        ({"save_top_k": "2"}, "`save_top_k`"),
        ({"save_top_k": -2}, "`save_top_k`"),
        ({"rule": "pareto", "save_top_k": True}, "`save_top_k`"),
        ({"save_last": "yes"}, "`save_last` must be True, False, 'link' or None; got 'yes'"),
    ],
)
def test_bad_arguments_are_refused_by_name(settings, message):
    with pytest.raises(ArgumentError, match="^StableCheckpoint: ") as caught:
        StableCheckpoint(**settings)
    assert message in str(caught.value)


def test_instances_are_kept_apart():
    settings = [
        {},
        {"rule": "pareto"},
        {"stability_weight": 0.3},
        {"accuracy": "a"},
        {"stability": "s"},
        {"accuracy_floor": 0.6},
        {"accuracy_floor": 0.8},
        {"rule": "pareto", "accuracy_mode": "min"},
        {"rule": "pareto", "accuracy_mode": "min", "accuracy_ceiling": 0.8},
    ]
    assert len({StableCheckpoint(**each).state_key for each in settings}) == len(settings)


@pytest.mark.parametrize(
    ("accuracy", "stability", "differ"),
    [
        (76.0, 0.9, True),
        (2.0, -0.3, True),
        (0.5, 31.0, True),
        (1.0, 0.0, False),
        (76.0, 90.0, False),
        (0.7, 0.9, False),
    ],
)
def test_scales_that_differ_are_seen(accuracy, stability, differ):
    assert KeepingRule().mixes_scales(Pair(accuracy, stability)) is differ
    assert not KeepingRule("pareto").mixes_scales(Pair(accuracy, stability))
    assert not KeepingRule(stability_weight=0.0).mixes_scales(Pair(accuracy, stability))
