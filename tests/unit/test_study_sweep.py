"""What a grid says of itself: plain data, the same in every process, and other for every other setting."""

import functools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_camrobust.compare.spearman import Spearman
from lightning_camrobust.compare.ssim import SSIM
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.reading import make_reading
from lightning_camrobust.study.description import describe_member, describe_setting
from lightning_camrobust.study.grid import PAPER_METHODS, StudyGrid
from lightning_camrobust.study.manifest import new_manifest
from lightning_camrobust.study.sweep import describe_reading, resolve_readings, sensitivity_readings


class Plain:
    """A member that is no dataclass."""

    def __init__(self, strength=1.0, **more):
        self.strength, self.more = strength, more

    def __call__(self, *given, **settings):
        raise NotImplementedError


class Slotted:
    __slots__ = ("strength",)

    def __init__(self, strength):
        self.strength = strength


@dataclass(frozen=True)
class Held:
    """A member that holds anything."""

    what: object

    def __call__(self, *given, **settings):
        raise NotImplementedError


def network(seed=0, slope=0.1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(slope))


def scaled(factor):
    return lambda values: values * factor


def add(first, second=1):
    return first + second


def two_of_each():
    """Settings that differ: by name, how to make the first and the second."""
    return {
        "number": (Held(0.5), Held(0.25)),
        "network": (Held(network(0)), Held(network(1))),
        "network with other constants": (Held(network(0, 0.1)), Held(network(0, 0.2))),
        "long tensor": (
            Held(torch.zeros(5000)),
            Held(torch.cat([torch.zeros(2500), torch.ones(1), torch.zeros(2499)])),
        ),
        "close tensors": (Held(torch.tensor([0.1])), Held(torch.tensor([0.1 + 1e-7]))),
        "bfloat16": (Held(torch.ones(2, dtype=torch.bfloat16)), Held(torch.zeros(2, dtype=torch.bfloat16))),
        "array": (Held(np.arange(3000)), Held(np.arange(3000) * np.where(np.arange(3000) == 1500, 2, 1))),
        "objects": (Held(np.array([Plain(1)])), Held(np.array([Plain(2)]))),
        "shape": (Held(torch.zeros(2, 3)), Held(torch.zeros(3, 2))),
        "lambda": (Held(lambda values: values + 1), Held(lambda values: values + 2)),
        "closure": (Held(scaled(2)), Held(scaled(3))),
        "closure over a network": (Held(scaled(network(0))), Held(scaled(network(1)))),
        "partial": (Held(functools.partial(add, second=1)), Held(functools.partial(add, second=2))),
        "function": (Held(add), Held(scaled)),
        "method": (Held(Plain(1).__call__), Held(Plain(2).__call__)),
        "class": (Held(Plain), Held(Slotted)),
        "mapping": (Held({"a": torch.zeros(1)}), Held({"a": torch.ones(1)})),
        "set": (Held({"a", "b", "c"}), Held({"a", "b", "d"})),
        "no dataclass": (Plain(1.0), Plain(2.0)),
        "no dataclass, deep": (Plain(1.0, deep=[Plain(1)]), Plain(1.0, deep=[Plain(2)])),
        "slots": (Held(Slotted(1)), Held(Slotted(2))),
        "path": (Held(Path("a")), Held(Path("b"))),
        "dtype": (Held(torch.float32), Held(torch.float64)),
        "device": (Held(torch.device("cpu")), Held(torch.device("cuda:0"))),
        "infinity": (Held(math.inf), Held(math.nan)),
        "lambda itself": (lambda *given: 1, lambda *given: 2),
    }


@pytest.mark.parametrize("name", two_of_each())
def test_other_settings_are_described_otherwise_and_equal_ones_alike(name):
    (one, other), (again, _) = two_of_each()[name], two_of_each()[name]
    described = [json.dumps(describe_member(each), allow_nan=False) for each in (one, other, again)]
    assert described[0] != described[1]
    assert described[0] == described[2]
    assert "0x" not in described[0]
    settings = new_manifest({"it": describe_member(one)})["settings"]
    assert settings == new_manifest({"it": describe_member(again)})["settings"]  # NaN would differ from itself


def test_descriptions_are_the_same_in_another_process():
    code = (
        "import json; from tests.unit.test_study_sweep import *; "
        "print(json.dumps([describe_member(each) for both in two_of_each().values() for each in both]))"
    )
    told = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(json.loads(done.stdout.splitlines()[-1]))
    assert told[0] == told[1]


def test_what_holds_itself_ends():
    one = Plain()
    one.more["self"] = one
    assert describe_member(one)["more"]["self"]["more"] == "..."
    import threading

    assert "0x" not in json.dumps(describe_member(Held(threading.Lock())))
    assert "0x" not in json.dumps(describe_member(Held(torch.Generator())))


def test_plain_values_are_as_they_were():
    assert describe_setting([None, True, 3, "a", 0.1, (1,), np.float32(0.5), np.bool_(True)]) == [
        None, True, 3, "a", 0.1, [1], 0.5, True,
    ]  # fmt: skip
    assert describe_member(add) == {"name": "add", "function": f"{__name__}.add"}


def test_each_reading_changes_one_thing():
    main = make_reading()
    readings = sensitivity_readings(main)
    assert list(readings) == [
        "p=0.5", "p=0.8", "p=0.9", "ties=a", "ties=w", "ties=stable", "segmenter=slic", "segmenter=grid",
        "reduction=sum", "reduction=max", "target=original",
    ]  # fmt: skip
    for label, reading in readings.items():
        thing, value = label.split("=")
        changed = [each.name for each in fields(reading) if getattr(reading, each.name) != getattr(main, each.name)]
        assert changed == ["similarity" if thing in ("p", "ties") else thing]
        if thing in ("p", "ties"):
            assert str(getattr(reading.similarity, thing)) == value
            other = {"p": "ties", "ties": "p"}[thing]
            assert getattr(reading.similarity, other) == getattr(main.similarity, other)
        elif thing == "segmenter":
            assert describe_reading(reading)["segmenter"]["name"] == value
        else:
            assert getattr(reading, thing) == value


def test_a_reading_that_is_the_main_one_is_left_out():
    main = make_reading(segmenter="slic", reduction="max")
    assert not {"segmenter=slic", "reduction=max", "p=0.2", "ties=b", "target=predicted"} & set(
        sensitivity_readings(main)
    )
    assert {"segmenter=quickshift", "reduction=mean"} <= set(sensitivity_readings(main))


def test_other_similarities_have_their_own_readings():
    assert list(sensitivity_readings(make_reading(Spearman()))) == [
        "segmenter=slic", "segmenter=grid", "reduction=sum", "reduction=max", "target=original",
    ]  # fmt: skip
    # What compares maps needs no segments.
    assert list(sensitivity_readings(make_reading(SSIM()))) == ["target=original"]


def test_words_for_readings():
    main = make_reading()
    assert resolve_readings("sensitivity", main) == sensitivity_readings(main)
    assert resolve_readings("none", main) == {}
    assert resolve_readings({"mine": main}, main) == {"mine": main}
    for wrong in ("sensitive", "", None, 3, ["p=0.5"]):
        with pytest.raises(ArgumentError, match="StudyGrid: `readings` must be 'sensitivity'"):
            resolve_readings(wrong, main)


def test_where_the_class_is_given_nobody_asks_whose_it_is():
    assert "target=original" in StudyGrid().plan().readings
    for target in (3, "original", add):
        assert not {"target=original", "target=predicted"} & set(StudyGrid(target=target).plan().readings)
    mine = {"target=original": make_reading(target="original")}
    assert list(StudyGrid(target=3, readings=mine).plan().readings) == ["target=original"]


def test_all_fields_of_a_grid_are_documented_and_described():
    names = [each.name for each in fields(StudyGrid)]
    described = StudyGrid().describe()
    for name in names:
        assert f"        {name}: " in StudyGrid.__doc__ or f"    {name}: " in StudyGrid.__doc__
    assert list(StudyGrid().plan().methods) == list(PAPER_METHODS)
    other = {
        "methods": ("gradcam",), "perturbations": ("fog",), "severities": (2,), "similarity": "spearman",
        "segmenter": "grid", "reduction": "max", "target": 1, "readings": "none", "severity_column": "cifar",
        "align_geometric": True, "layer_fusion": "max", "seed": 3,
    }  # fmt: skip
    assert set(other) == set(names)
    for name, value in other.items():
        changed = StudyGrid(**{name: value}).describe()
        json.dumps(changed, allow_nan=False)
        assert changed != described, name


@pytest.mark.parametrize("target", [add, functools.partial(add, second=2), scaled(2), lambda logits: logits.argmax(1)])
def test_targets_that_are_functions_can_be_described(target):
    told = json.dumps(StudyGrid(target=target, readings="none").describe()["target"])
    assert "0x" not in told
    assert (
        StudyGrid(target=None).describe()["target"] == StudyGrid(target="predicted").describe()["target"] == "predicted"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"methods": "gradcan"}, {"methods": ()}, {"perturbations": "fgo"}, {"perturbations": ()}, {"severities": ()},
        {"severities": 6}, {"similarity": "rob"}, {"segmenter": "gird"}, {"reduction": "median"}, {"target": "mine"},
        {"readings": "all"}, {"severity_column": "mnist"}, {"layer_fusion": "sum"},
    ],
)  # fmt: skip
def test_wrong_words_are_refused_at_once(settings):
    with pytest.raises(ArgumentError):
        StudyGrid(**settings)
