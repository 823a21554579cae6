"""The critique of scores that remove pixels, as a study runs it: tables, verdicts, and what it leaves alone."""

import csv
import functools
import json
import math

import pytest
import torch
from scipy import stats
from torch import nn

from lightning_camrobust.critique.controls import random_maps
from lightning_camrobust.critique.curves import RemovalSettings, removal_curves
from lightning_camrobust.critique.scores import removal_scores
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.study.critique import CritiqueSettings, Subject, criticise, write_critique
from lightning_camrobust.study.findings import Findings
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.image import StudyImage
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.page.report_page import write_report
from lightning_camrobust.study.region_maps import RegionMaps, agreement_rows, region_maps
from tests.unit.test_baseline_critique import classify, squares, two_fixed_maps

SHORT = {"step_counts": (12,), "seeds": (0,), "rise": False}


def subject(count=24):
    pixels, classes, masks = squares(count)
    return Subject(classify, pixels, classes, two_fixed_maps(masks, classes))


def rows_of(found, title):
    [table] = [each for each in found["tables"] if each["title"].startswith(title)]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def test_the_flip_between_black_and_white_is_flagged():
    whose = subject()
    found = criticise(whose, CritiqueSettings(baselines=("black", "white"), **SHORT), title="squares")
    assert found["title"] == "squares, 24 images"
    [verdict] = found["verdict"]
    assert verdict.startswith("Ranking of methods by baseline: unstable for ")
    assert "deletion (least tau -1.00)" in verdict
    rows = {(row["score"], row["method"]): row for row in rows_of(found, "Scores by baseline")}
    for baseline in ("black", "white"):
        for method, maps in whose.maps.items():
            how = RemovalSettings(baseline, 12)
            scores = removal_scores(removal_curves(classify, whose.pixels, maps, whose.classes, settings=how))
            for metric in ("deletion", "insertion", "aopc", "symmetric", "fidelity"):
                assert rows[metric, method][baseline] == pytest.approx(float(scores[metric].mean()), abs=1e-12)
    one, other = (rows["deletion", method] for method in whose.maps)
    assert (one["black"] - other["black"]) * (one["white"] - other["white"]) < 0
    assert one["spread"] == pytest.approx(abs(one["black"] - one["white"]))


def test_agreeing_baselines_are_called_stable():
    pixels, classes, masks = squares()
    whose = Subject(classify, pixels, classes, {"right": masks.float(), "wrong": 1 - masks.float()})
    found = criticise(whose, CritiqueSettings(baselines=("grey", "image_mean"), **SHORT), title="squares")
    assert found["verdict"] == [
        "Ranking of methods by baseline: stable for deletion, insertion, aopc, symmetric, fidelity."
    ]


def test_artefact_and_fidelity_add_up_to_the_whole_change_and_controls_have_no_fidelity():
    whose = subject(60)
    found = criticise(whose, CritiqueSettings(baselines=("black", "white"), **SHORT), title="squares")
    rows = {row["map"]: row for row in rows_of(found, "Against controls, baseline black, 12 steps")}
    assert list(rows) == ["of white", "of black", "random order", "edges of the picture"]
    for name, maps in {**whose.maps, "random order": random_maps(whose.pixels)}.items():
        curves = removal_curves(classify, whose.pixels, maps, whose.classes, settings=RemovalSettings("black", 12))
        whole = float((curves.morf[:, :1] - curves.morf).mean())
        assert rows[name]["artefact"] + rows[name]["fidelity"] == pytest.approx(whole, abs=1e-12)
    assert rows["random order"]["low"] < 0 < rows["random order"]["high"]
    for row in rows.values():
        assert row["low"] <= row["fidelity"] <= row["high"]
        assert row["artefact low"] <= row["artefact"] <= row["artefact high"]
    facts = {row["baseline"]: row for row in rows_of(found, "How neutral")}
    assert [facts[name]["mean colour"] for name in ("black", "white")] == ["0.000", "1.000"]
    both = [rows[name]["artefact"] for name in whose.maps]
    assert facts["black"]["mean artefact"] == pytest.approx(sum(both) / 2, abs=1e-12)


@pytest.mark.parametrize(("seeds", "steps", "titles"), [((0,), (12,), 0), ((0, 1), (12,), 1), ((0, 1), (12, 6), 2)])
def test_steps_and_seeds_have_a_table_if_there_are_several(seeds, steps, titles):
    settings = CritiqueSettings(baselines=("black", "white"), step_counts=steps, seeds=seeds, rise=False)
    found = criticise(subject(6), settings, title="squares")
    expected = ["by baseline", "by number of steps", "by seed of uniform_noise"]
    expected = [expected[0], *(expected[1:2] if len(steps) > 1 else []), *(expected[2:] if len(seeds) > 1 else [])]
    assert [
        row["title"].removeprefix("Scores ") for row in found["tables"] if row["title"].startswith("Scores")
    ] == expected
    assert len(found["verdict"]) == 1 + titles


def test_rise_is_ranked_beside_the_methods_in_each_of_its_ways():
    whose = subject(6)
    regions = RegionMaps({"own": random_maps(whose.pixels), "seed 1": random_maps(whose.pixels, seed=1)})
    found = criticise(whose, CritiqueSettings(baselines=("black", "white"), **SHORT), title="squares", regions=regions)
    rows = rows_of(found, "Scores with RISE drawn in other ways")
    assert [row["method"] for row in rows] == ["rise"] * 5
    how = RemovalSettings("black", 12)
    for name, maps in regions.maps.items():
        scores = removal_scores(removal_curves(classify, whose.pixels, maps, whose.classes, settings=how))
        for row in rows:
            assert row[name] == pytest.approx(float(scores[row["score"]].mean()), abs=1e-12)
    assert found["verdict"][1].startswith("Ranking of methods with RISE drawn in other ways: ")
    assert [row["changed"] for row in rows_of(found, "Agreement of RISE's maps")] == ["seed 1"]


def test_rise_and_the_methods_are_ranked_on_the_images_that_all_have_a_map_of():
    whose = subject(6)
    regions = RegionMaps({"own": random_maps(whose.pixels), "seed 1": random_maps(whose.pixels, seed=1)})
    holed = {name: maps.clone() for name, maps in regions.maps.items()}
    holed["seed 1"][0] = torch.nan
    cut = Subject(classify, whose.pixels[1:], whose.classes[1:], {name: maps[1:] for name, maps in whose.maps.items()})
    settings = CritiqueSettings(baselines=("black", "white"), **SHORT)
    rows = [
        rows_of(criticise(each, settings, title="", regions=RegionMaps(maps)), "Scores with RISE")
        for each, maps in ((whose, holed), (cut, {name: maps[1:] for name, maps in regions.maps.items()}))
    ]
    for one, other in zip(*rows, strict=True):
        assert one["own"] == pytest.approx(other["own"], abs=1e-12)


def test_regions_are_drawn_with_one_setting_changed_at_a_time():
    seen = {}
    region_maps(
        lambda methods: seen.update(methods) or {}, masks=40, seeds=(3, 4), baselines=("black", "white", "grey")
    )
    own = seen.pop("own")
    assert (own.masks, own.seed, own.cells, own.keep, own.baseline) == (40, 3, 7, 0.5, "zero")
    changed = {
        name: {key: value for key, value in vars(each).items() if value != getattr(own, key)}
        for name, each in seen.items()
    }
    assert changed == {
        "seed 4": {"seed": 4}, "N 20": {"masks": 20}, "N 80": {"masks": 80}, "grid 5": {"cells": 5},
        "grid 10": {"cells": 10}, "p 0.3": {"keep": 0.3}, "p 0.7": {"keep": 0.7},
        "baseline black": {"baseline": "black"}, "baseline white": {"baseline": "white"},
    }  # fmt: skip


def test_agreement_is_the_mean_correlation_of_scipy_and_the_mean_overlap_of_the_tops():
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.rand(5, 4, 5, generator=generator) for _ in range(2))
    other = own + other
    [[_, correlation, overlap]] = agreement_rows(RegionMaps({"own": own, "other": other}))["rows"]
    rows = [(a.flatten().numpy(), b.flatten().numpy()) for a, b in zip(own, other, strict=True)]
    assert correlation == pytest.approx(sum(float(stats.spearmanr(*row).statistic) for row in rows) / 5, abs=1e-9)
    tops = [tuple(set(each.argsort()[-4:].tolist()) for each in row) for row in rows]
    assert overlap == pytest.approx(sum(len(a & b) / len(a | b) for a, b in tops) / 5, abs=1e-9)


def test_agreement_of_flat_maps_is_unknown():
    flat = torch.ones(2, 3, 3)
    [[name, correlation, _]] = agreement_rows(RegionMaps({"own": flat, "flat": flat}))["rows"]
    assert (name, correlation) == ("flat", None)


class Squares:
    """The squares as a data set."""

    name = "squares"

    def __init__(self, count=8):
        self.pixels, self.classes, _ = squares(count)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return StudyImage(self.pixels[index], int(self.classes[index]), f"{index}.png", index)

    def fingerprint(self):
        return "squares"


class Brightness(nn.Module):
    """The classifier of the squares as a network: darkness and brightness beyond grey."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Conv2d(1, 2, 1)
        self.parts.weight.data = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
        self.parts.bias.data = torch.tensor([0.5, -0.5])
        self.drop = nn.Dropout(0.5)

    def forward(self, pixels):
        return self.drop(self.parts(pixels).relu().sum(dim=(2, 3)))


class Always:
    """A map for tests, right about one of the classes and the opposite for the other."""

    def __init__(self, name, right_class):
        self.name, self.right_class = name, right_class

    def __call__(self, trace):
        square = (trace.images - 0.5).abs().amax(dim=1)
        wrong = trace.classes[:, None, None] != self.right_class
        return torch.where(wrong, 0.5 - square, square)


def grid(methods=None):
    methods = methods or (Always("of white", 1), Always("of black", 0))
    return StudyGrid(methods=methods, perturbations="gaussian_noise", segmenter="grid", readings="none")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("critique")
    settings = CritiqueSettings(num_images=6, baselines=("black", "white"), step_counts=(12, 6), seeds=(0, 1), masks=8)
    models = {"net": StudyModel(Brightness, target_layers=("parts",))}
    return folder, write_critique(folder, models, Squares(), grid(), settings)


def test_a_study_writes_what_it_found(written):
    folder, found = written
    told = json.loads(
        (folder / "baselines.json").read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name)
    )
    assert told == found
    [critique] = found
    assert critique["title"] == "net, parts, 6 images"
    assert "deletion (least tau -1.00)" in critique["verdict"][0]
    assert len(critique["verdict"]) == 4
    # The network of the study is the one that the squares are judged by.
    whose = Squares()
    chosen = [0, 1, 2, 4, 5, 6]
    pixels, classes = whose.pixels[chosen], whose.classes[chosen]
    maps = torch.where((pixels[:, 0] != 0.5) == (classes == 1)[:, None, None], 0.5, 0.0)
    network = Brightness().eval()
    curves = removal_curves(
        lambda each: network(each).softmax(dim=1), pixels, maps, classes, settings=RemovalSettings("white", 12)
    )
    [row] = [
        each
        for each in rows_of(critique, "Scores by baseline")
        if (each["score"], each["method"]) == ("deletion", "of white")
    ]
    assert row["white"] == pytest.approx(float(removal_scores(curves)["deletion"].mean()), abs=1e-6)


def test_it_is_on_the_page_and_in_tables(written):
    folder, found = written
    page = write_report(Findings("Squares", verdict=("Done.",), models=(), baselines=tuple(found)), folder)
    text = page.read_text(encoding="utf-8")
    assert "unstable for" in text
    assert "deletion (least tau -1.00)" in text
    lines = [file.read_text(encoding="utf-8").splitlines() for file in (folder / "tables").glob("*.csv")]
    cells = {cell for each in lines for row in csv.reader(each) for cell in row}
    for table in found[0]["tables"]:
        assert {str(row[0]) for row in table["rows"]} <= cells, table["title"]


@pytest.mark.parametrize(("settings", "methods"), [({"num_images": 0}, None), ({}, ("gradcam",))])
def test_without_images_or_with_one_method_nothing_is_found(tmp_path, settings, methods):
    (tmp_path / "baselines.json").write_text('[{"title": "old"}]')
    models = {"net": StudyModel(Brightness, target_layers=("parts",))}
    assert write_critique(tmp_path, models, Squares(2), grid(methods), CritiqueSettings(**settings)) == []
    assert json.loads((tmp_path / "baselines.json").read_text()) == []


def test_undefined_numbers_become_null(tmp_path):
    class Nothing(Always):
        def __call__(self, trace):
            return torch.full_like(trace.images[:, 0], torch.nan)

    models = {"net": StudyModel(Brightness, target_layers=("parts",))}
    settings = CritiqueSettings(num_images=2, baselines=("black", "white"), **SHORT)
    methods = (Always("of white", 1), Nothing("nothing", 0))
    [found] = write_critique(tmp_path, models, Squares(2), grid(methods), settings)
    text = (tmp_path / "baselines.json").read_text()
    assert "NaN" not in text
    assert rows_of(found, "Against controls")[1]["fidelity"] is None
    assert not any(
        isinstance(cell, float) and math.isnan(cell)
        for table in found["tables"]
        for row in table["rows"]
        for cell in row
    )
    assert "undefined" in found["verdict"][0]
    assert "nan" not in found["verdict"][0]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_network_is_left_as_it_was(tmp_path, device):
    network = Brightness().train()
    network.parts.weight.grad = torch.ones_like(network.parts.weight)
    network.parts.register_forward_hook(lambda *given: None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = CritiqueSettings(num_images=2, baselines=("black", "white"), **SHORT)
    models = {"net": StudyModel(network, target_layers=("parts",))}
    random_state = torch.get_rng_state()
    write_critique(tmp_path, models, Squares(2), grid(("gradcam", "eigencam")), settings, device=device)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.training
    assert network.drop.training
    assert torch.equal(network.parts.weight.grad, torch.ones_like(network.parts.weight))
    assert len(network.parts._forward_hooks) == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_network_is_moved_to_the_device(tmp_path):
    moved = []

    class Watched(Brightness):
        def to(self, *given, **settings):
            moved.append(given)
            return super().to(*given, **settings)

    models = {"net": StudyModel(functools.partial(Watched), target_layers=("parts",))}
    settings = CritiqueSettings(num_images=2, baselines=("black", "white"), **SHORT)
    write_critique(tmp_path, models, Squares(2), grid(("gradcam", "eigencam")), settings, device="cpu:0")
    assert moved == [("cpu:0",)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_images": -1}, "`num_images` must be 0 or more"),
        ({"masks": 1}, "`masks` 2 or more"),
        ({"baselines": ("black",)}, "two `baselines`"),
        ({"step_counts": ()}, "one of `step_counts`"),
        ({"seeds": ()}, "one of `seeds`"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ArgumentError, match=said):
        CritiqueSettings(**settings)


def test_an_unknown_baseline_is_refused_at_once():
    with pytest.raises(UnknownNameError, match="Nearest: .*black"):
        CritiqueSettings(baselines=("blakc", "white"))
