"""From what was measured to findings: scores against slow loops, and studies of every odd shape."""

import dataclasses
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from statsmodels.stats.multitest import multipletests

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.study import analysis
from lightning_camrobust.study.analysis import analyse, compare_studies
from lightning_camrobust.study.findings import Estimate, Findings, ReadingRow, Stability
from lightning_camrobust.study.manifest import new_manifest
from lightning_camrobust.study.measured import MeasuredModel, load_measured
from lightning_camrobust.study.model_findings import Statistics, analyse_model
from lightning_camrobust.study.outcomes import Noise, Outcomes
from lightning_camrobust.study.page.report_page import write_report
from lightning_camrobust.study.page.sentences import model_line
from lightning_camrobust.study.scores import correctly_classified, noise_groups, robustness_pairs, score_rows
from lightning_camrobust.study.statistics.bootstrap import Resampling
from lightning_camrobust.study.verdict import describe_model, estimate_text
from lightning_camrobust.summary import make_report
from lightning_camrobust.types import Comparison
from tests.integration.study_run import RandomImages, make_grid, study, tiny_model

NOISES = (
    Noise("fog", 1),
    Noise("fog", 5),
    Noise("jpeg", 5),
    Noise("elastic", 1, "geometric"),
    Noise("elastic", 5, "geometric"),
    Noise("pgd", 3, "attack"),
)
KEYS = ("robustness", "consistency", "responsiveness", "flip_rate")


def make_outcomes(seed=0, *, count=40, methods=("gradcam", "eigencam", "xgradcam"), noises=NOISES, **changes):
    """Random maps: a third of the predictions change, one pair in ten cannot be scored, labels are partly known."""
    rng = np.random.default_rng(seed)
    shape = (count, len(methods), len(noises))
    clean = rng.integers(3, size=count)
    noisy = np.where(rng.random((count, len(noises))) < 0.35, (clean[:, None] + 1) % 3, clean[:, None])
    kept = (noisy == clean[:, None])[:, None]
    means = np.where(kept, np.linspace(0.8, 0.4, len(methods))[None, :, None], 0.3)
    similarity = np.clip(rng.normal(means, 0.15), 0, 1)
    similarity[rng.random(shape) < 0.1] = np.nan
    # The same for all models.
    labels = np.random.default_rng(99).integers(-1, 3, size=count)
    outcomes = Outcomes(
        "net", "layer4", "pets", tuple(f"{row:03d}.png" for row in range(count)), labels, tuple(methods),
        tuple(noises), clean, noisy, noisy == clean[:, None], similarity, rng.uniform(0.02, 0.3, count),
        {"p=0.9": np.clip(similarity + rng.normal(0, 0.01, shape), 0, 1)},
    )  # fmt: skip
    return dataclasses.replace(outcomes, **changes)


def slow_row(outcomes, method, group):
    """All scores of one row by a loop over pairs."""
    kind, perturbation, severity = group
    kept, changed, degenerate, floors = [], [], 0, ([], [])
    own_kept, own_changed = {}, {}
    column = outcomes.methods.index(method)
    for image, (place, noise) in itertools.product(range(len(outcomes.images)), enumerate(outcomes.noises)):
        if noise.kind != kind or perturbation not in (None, noise.perturbation):
            continue
        if severity is not None and noise.severity != severity:
            continue
        value = outcomes.similarity[image, column, place]
        if math.isnan(value):
            degenerate += 1
        elif outcomes.same[image, place]:
            kept.append(value)
            own_kept.setdefault(image, []).append(value)
            floors[0].append(outcomes.chance[image])
        else:
            changed.append(1 - value)
            own_changed.setdefault(image, []).append(1 - value)
            floors[1].append(outcomes.chance[image])

    def mean(values):
        return sum(values) / len(values) if values else math.nan

    macro = [mean([mean(values) for values in each.values()]) for each in (own_kept, own_changed)]
    return {
        "consistency": mean(kept),
        "responsiveness": mean(changed),
        "robustness": mean(kept) * mean(changed),
        "flip_rate": len(changed) / (len(kept) + len(changed)) if kept or changed else math.nan,
        "robustness_macro": macro[0] * macro[1],
        "same_count": len(kept),
        "changed_count": len(changed),
        "degenerate_count": degenerate,
        "same_images": len(own_kept),
        "changed_images": len(own_changed),
        "low_support": min(len(kept), len(changed)) < 30,
        "chance_floor": mean(floors[0]) * (1 - mean(floors[1])),
    }


def value(row, key):
    found = getattr(row, key)
    return found.value if isinstance(found, Estimate) else found


def test_every_row_is_what_a_loop_over_pairs_says():
    outcomes = make_outcomes()
    rows = score_rows(outcomes, Resampling(40, 100))
    groups = [(row.kind, row.perturbation, row.severity) for row in rows]
    assert groups == [group for group in noise_groups(outcomes) for _ in outcomes.methods]
    assert len(rows) == 3 * (3 + 4 + 6)  # kinds, perturbations, noises; kinds are never pooled
    for row, group in zip(rows, groups, strict=True):
        for key, expected in slow_row(outcomes, row.method, group).items():
            assert value(row, key) == pytest.approx(expected, abs=1e-12, nan_ok=True), (row.method, group, key)
    assert {row.low_support for row in rows} == {True, False}
    for row in rows:
        assert row.robustness.low <= row.robustness.value <= row.robustness.high


def test_scores_are_those_of_the_callback():
    noises = [noise for noise in NOISES if noise.kind != "attack"]
    outcomes = make_outcomes(1, noises=noises)
    images, methods, count = outcomes.similarity.shape
    rankable = ~np.isnan(outcomes.similarity)
    cells = [(method, noise.perturbation, noise.severity) for method in outcomes.methods for noise in noises]
    comparison = Comparison(
        torch.from_numpy(np.nan_to_num(outcomes.similarity).reshape(images, -1)),
        same_class=torch.from_numpy(np.repeat(outcomes.same[:, None], methods, axis=1).reshape(images, -1)),
        rankable=torch.from_numpy(rankable.reshape(images, -1)),
    )
    report = make_report(comparison, cells, geometric={"elastic"})
    rows = score_rows(outcomes, Resampling(images, 100))
    for row in rows:
        if row.perturbation is None:
            moves = row.kind == "geometric"
            [told] = [each for each in report["by_kind"] if (each["method"], each["geometric"]) == (row.method, moves)]
        elif row.severity is not None:
            place = (row.method, row.perturbation, row.severity)
            [told] = [
                each
                for each in report["cells"]
                if tuple(each[k] for k in ("method", "perturbation", "severity")) == place
            ]
        else:
            continue
        for key in KEYS:
            assert value(row, key) == pytest.approx(told[key], rel=1e-9), (row, key)
        for key in ("same_count", "changed_count", "degenerate_count", "low_support"):
            assert getattr(row, key) == told[key]
    assert len(cells) == methods * count


def test_pooled_rows_alone_are_the_same_rows():
    outcomes = make_outcomes()
    every = score_rows(outcomes, Resampling(40, 100))
    alone = score_rows(outcomes, Resampling(40, 100), pooled_only=True)
    assert alone == tuple(row for row in every if row.perturbation is None)


def test_correct_scores_rest_on_the_images_whose_label_was_predicted():
    outcomes = make_outcomes(2)
    found = analyse_model(outcomes, how=Statistics(100))
    chosen = [row for row in range(40) if outcomes.labels[row] == outcomes.clean_classes[row]]
    part = outcomes.of_images(np.array(chosen))
    for row in found.correct_scores:
        expected = slow_row(part, row.method, (row.kind, None, None))
        for key in (*KEYS, "same_count", "changed_count", "degenerate_count", "chance_floor"):
            assert value(row, key) == pytest.approx(expected[key], abs=1e-12)
    known = [row for row in range(40) if outcomes.labels[row] >= 0]
    assert len(chosen) < len(known) < 40
    assert found.accuracy == pytest.approx(len(chosen) / len(known))
    unlabelled = dataclasses.replace(outcomes, labels=np.full(40, -1), clean_classes=np.full(40, -1))
    assert correctly_classified(unlabelled) is None
    assert math.isnan(analyse_model(unlabelled, how=Statistics(100)).accuracy)


def test_pairs_of_methods_are_corrected_over_all_pairs():
    outcomes = make_outcomes(methods=("a", "b", "c", "d")).of_kind("photometric")
    similarity = outcomes.similarity.copy()
    similarity[:, 1] = similarity[:, 0]
    outcomes = dataclasses.replace(outcomes, similarity=similarity)
    rows = robustness_pairs(outcomes, Resampling(40, 500))
    assert [(row.first, row.second) for row in rows] == list(itertools.combinations("abcd", 2))
    p_values = [row.p_value for row in rows]
    np.testing.assert_allclose([row.p_adjusted for row in rows], multipletests(p_values, method="holm")[1], rtol=1e-12)
    assert any(row.p_adjusted > row.p_value for row in rows)
    assert any(row.p_adjusted < 0.05 for row in rows)
    assert (rows[0].difference, rows[0].p_value, rows[0].p_adjusted) == (Estimate(0.0, 0.0, 0.0), 1.0, 1.0)
    for row in rows:
        # On the pairs of images and noises that both could score.
        both = outcomes.similarity[:, [outcomes.methods.index(name) for name in (row.first, row.second)]]
        unscored = np.isnan(both).any(axis=1, keepdims=True)
        common = dataclasses.replace(outcomes, similarity=np.where(unscored, np.nan, outcomes.similarity))
        one, other = (slow_row(common, name, ("photometric", None, None)) for name in (row.first, row.second))
        assert row.difference.value == pytest.approx(one["robustness"] - other["robustness"], abs=1e-12)
    assert robustness_pairs(make_outcomes(methods=("a",)), Resampling(40, 100)) == ()


@pytest.fixture
def findings_of(monkeypatch, tmp_path):
    """Analyse made-up outcomes as if they came from folders."""

    def analysed(*outcomes, **settings):
        measured = [MeasuredModel(each, tmp_path, 1.0) for each in outcomes]
        monkeypatch.setattr(analysis, "load_measured", lambda folders: measured)
        monkeypatch.setattr(analysis, "load_manifest", lambda folder: new_manifest({"grid": {}}))
        function = compare_studies if "first" in settings else analyse
        return function(tmp_path, resamples=100, **settings)

    return analysed


def check_sentences(findings, folder=None):
    for sentence in (*findings.verdict, *findings.multiplicity):
        assert sentence.endswith("."), sentence
        assert ".." not in sentence, sentence
        assert not re.search(r"\bnan\b|\bNone\b(?! of)|\binf\b", sentence), sentence
    if folder is not None:
        assert write_report(findings, folder).stat().st_size > 1000


def test_a_whole_study_of_two_models(findings_of):
    found = findings_of(make_outcomes(), make_outcomes(1, model="other"), title="Ours")
    check_sentences(found)
    assert found.title == "Ours"
    assert [model.model for model in found.models] == ["net", "other"]
    assert [(each.first, each.second, each.kind) for each in found.differences] == [("net", "other", "photometric")]
    assert [each.measure for each in found.mixed] == ["consistency", "responsiveness"]
    for model in found.models:
        assert {row.measure for row in model.pairs} == {"robustness", "consistency", "responsiveness"}
        assert [test.measure for test in model.rank_tests] == ["consistency", "responsiveness"]
        assert [row.label for row in model.stability.rows] == ["main", "p=0.9", "averaging=macro"]
        assert [row.kind for row in model.correct_scores] == [
            kind for kind in ("photometric", "geometric", "attack") for _ in range(3)
        ]


def test_pairs_and_ranks_are_of_photometric_noises_only(findings_of):
    outcomes = make_outcomes()
    moved = outcomes.similarity.copy()
    moved[:, :, 3:] = 0.5
    [one], [other] = (findings_of(each).models for each in (outcomes, dataclasses.replace(outcomes, similarity=moved)))
    for part in ("pairs", "rank_tests", "stability"):
        assert repr(getattr(one, part)) == repr(getattr(other, part))  # NaN differs from itself
    assert repr(one.scores) != repr(other.scores)


def only(kind, **settings):
    return make_outcomes(noises=[noise for noise in NOISES if noise.kind == kind], **settings)


def all_same(outcomes):
    """No prediction changes."""
    noisy = np.tile(outcomes.clean_classes[:, None], (1, len(outcomes.noises)))
    return dataclasses.replace(outcomes, noisy_classes=noisy, same=np.ones_like(outcomes.same))


ODD = {
    "no flips": all_same(make_outcomes()),
    "all flip": dataclasses.replace(make_outcomes(), same=np.zeros((40, 6), dtype=bool)),
    "nothing scored": dataclasses.replace(make_outcomes(), similarity=np.full((40, 3, 6), np.nan)),
    "one method never scored": dataclasses.replace(
        make_outcomes(), similarity=np.where(np.arange(3)[:, None] == 1, np.nan, make_outcomes().similarity)
    ),
    "all methods alike": dataclasses.replace(
        make_outcomes(), similarity=make_outcomes().similarity[:, [0, 0, 0]], readings={}
    ),
    "geometric": only("geometric"),
    "attack": only("attack"),
    "one noise": make_outcomes(noises=NOISES[:1]),
    "one method": make_outcomes(methods=("gradcam",)),
    "one image": make_outcomes(count=1),
    "two images": make_outcomes(count=2),
    "no labels": make_outcomes(labels=np.full(40, -1)),
    "none right": make_outcomes(labels=np.full(40, 9)),
    "chance unknown": make_outcomes(chance=np.full(40, np.nan)),
    "no readings": make_outcomes(readings={}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_studies_are_described_without_a_crash_or_a_nan(findings_of, tmp_path, name):
    outcomes = ODD[name]
    other = dataclasses.replace(outcomes, model="other")
    found = findings_of(outcomes, other)
    check_sentences(found)
    if name in ("nothing scored", "no flips"):  # Drawing takes long; these are the ones that leave most undefined.
        check_sentences(dataclasses.replace(found, models=found.models[:1], differences=(), mixed=()), tmp_path)
    assert len(found.models) == 2
    assert len(found.differences) == (name != "nothing scored")
    assert ("net and other are not compared: None of the 40 images" in found.verdict[-1]) == (name == "nothing scored")
    text = " ".join(found.verdict)
    said = {
        "no flips": "no scored pair changed its class; higher severities help",
        "all flip": "no scored pair kept its class; lower severities help",
        "nothing scored": "no pair of maps could be scored",
        "one method never scored": "the robustness of eigencam is undefined, as no pair of maps could be scored.",
        "all methods alike": "there is no ranking that other settings could be compared with",
        "geometric": "geometric noises: ",
        "attack": "attack noises: ",
        "one method": "gradcam has RM 0.",
        "two images": "fewer than 30 pairs",
    }
    assert said.get(name, "net (layer4") in text
    if name == "one method":
        assert found.models[0].pairs == found.models[0].rank_tests == ()
        assert found.models[0].stability is None


def test_models_of_different_data_are_never_compared(findings_of):
    found = findings_of(make_outcomes(), make_outcomes(1, model="other", data="cars"), make_outcomes(2, model="third"))
    assert [(each.first, each.second) for each in found.differences] == [("net", "third")]
    assert {name for each in found.mixed for name, _ in each.means} == {"net (layer4)", "third (layer4)"}
    assert findings_of(make_outcomes(), make_outcomes(1, model="other", noises=NOISES[:3])).differences == ()


def test_models_of_other_conditions_are_not_compared_and_a_note_says_why(findings_of, tmp_path):
    first, *others = (
        make_outcomes(seed, model=name, conditions={"seed": "0", "data": name[0]})
        for seed, name in enumerate(("a1", "a2", "b1"))
    )
    other = make_outcomes(3, model="c", conditions={"seed": "7", "data": "a"})
    found = findings_of(first, *others, other)
    assert [(each.first, each.second) for each in found.differences] == [("a1", "a2")]
    assert {model for model, _ in found.mixed[0].means} == {"a1 (layer4)", "a2 (layer4)"}
    assert [note.partition(":")[0] for note in found.notes] == [
        f"a1 (layer4) and a2 (layer4) and {name} (layer4) are not compared with each other, as they were measured "
        "under other conditions"
        for name in ("b1", "c")
    ]
    assert "pictures themselves" in found.notes[0]
    assert "the seed ('0' in the first, '7' in the second)" in found.notes[1]
    bare = dataclasses.replace(found, models=(), differences=(), mixed=())
    assert "not compared with each other" in write_report(bare, tmp_path).read_text(encoding="utf-8")
    with pytest.raises(ArgumentError, match="other conditions"):
        findings_of(first, other, first="a1", second="c")


def test_reordered_images_are_the_same_grid(findings_of):
    first, second = make_outcomes(), make_outcomes(1, model="other")
    order = np.random.default_rng(5).permutation(40)
    places = [3, 0, 5, 1, 4, 2]
    turned = second.of_images(order)
    turned = dataclasses.replace(
        turned, noises=tuple(NOISES[each] for each in places), same=turned.same[:, places],
        noisy_classes=turned.noisy_classes[:, places], similarity=turned.similarity[:, ::-1][:, :, places],
        methods=turned.methods[::-1], readings={},
    )  # fmt: skip
    straight, crooked = findings_of(first, second), findings_of(first, turned)
    for one, other in zip(straight.mixed, crooked.mixed, strict=True):
        assert repr(one.rows) == repr(other.rows)
        assert repr(one.means) == repr(other.means)
    assert len(crooked.differences) == 1
    assert crooked.differences[0].rows == pytest.approx(straight.differences[0].rows) or repr(
        crooked.differences[0].rows
    ) == repr(straight.differences[0].rows)
    # Names that repeat cannot be matched: only the same order is the same grid.
    twice = [dataclasses.replace(each, images=("x",) * 40) for each in (first, second)]
    assert len(findings_of(*twice).mixed) == 2


def test_two_layers_of_one_model_are_told_apart(findings_of):
    found = findings_of(*(make_outcomes(seed, target_layer=layer) for seed, layer in enumerate(("layer3", "layer4"))))
    check_sentences(found)
    assert [(each.first, each.second) for each in found.differences] == [("net at layer3", "net at layer4")]
    four = [
        make_outcomes(seed, model=model, target_layer=layer)
        for seed, (model, layer) in enumerate(itertools.product(("a", "b"), ("layer3", "layer4")))
    ]
    names = [(each.first, each.second) for each in findings_of(*four).differences]
    assert len(set(names)) == len(names) == 6
    assert ("a at layer3", "b at layer4") in names
    compared = findings_of(*four, first="a", second="b").differences
    assert [(each.first, each.second) for each in compared] == [
        ("a at layer3", "b at layer3"),
        ("a at layer4", "b at layer4"),
    ]


@pytest.mark.parametrize(("count", "pairs"), [(4, 6), (5, 4), (6, 5)])
def test_more_than_four_models_are_compared_with_the_first(findings_of, count, pairs):
    found = findings_of(*(make_outcomes(seed, model=f"m{seed}") for seed in range(count)))
    assert len(found.differences) == pairs
    if count > 4:
        assert {each.first for each in found.differences} == {"m0"}


def test_compare_is_second_minus_first_on_the_images_both_have(findings_of):
    first = make_outcomes()
    second = dataclasses.replace(
        first, model="other", similarity=np.where(first.same[:, None], first.similarity + 0.1, first.similarity - 0.1)
    ).of_images(np.arange(39, 4, -1))
    second = dataclasses.replace(second, noises=(*NOISES[:5], Noise("pgd", 4, "attack")))
    found = findings_of(first, second, first="net", second="other")
    check_sentences(found)
    [difference] = found.differences
    scored = [~np.isnan(each.of_kind("photometric").similarity[:, 0]).all(axis=1) for each in (first, second)]
    both = {first.images[row] for row in np.flatnonzero(scored[0])} & {
        second.images[row] for row in np.flatnonzero(scored[1])
    }
    assert (difference.num_images, difference.first, difference.second) == (len(both), "net", "other")
    assert 30 < len(both) <= 35
    assert found.title == "other against net"
    assert found.verdict[0] == difference.verdict  # the question comes first
    row = difference.rows[0]
    one, other = (
        slow_row(each.of_images(np.isin(each.images, list(both))), "gradcam", ("photometric", None, None))
        for each in (first, second)
    )
    assert row.difference.value == pytest.approx(other["robustness"] - one["robustness"], abs=1e-12)
    assert row.difference.value > 0.05
    [turned] = findings_of(first, second, first="other", second="net").differences
    assert turned.rows[0].difference.value == pytest.approx(-row.difference.value, abs=1e-12)
    # Of the kinds of noise that both have: the other one was measured on geometric noise only.
    moved = second.of_kind("geometric")
    assert [each.kind for each in findings_of(first, moved, first="net", second="other").differences] == ["geometric"]


def test_compare_refuses_what_cannot_be_compared(findings_of):
    both = make_outcomes(), make_outcomes(1, model="other")
    with pytest.raises(UnknownNameError, match="`second`: no model is called 'othr'. Nearest: 'other'"):
        findings_of(*both, first="net", second="othr")
    with pytest.raises(UnknownNameError, match="`first`"):
        findings_of(*both, first="nets", second="other")
    with pytest.raises(ArgumentError, match="must be two models, got 'net' twice"):
        findings_of(*both, first="net", second="net")
    elsewhere = make_outcomes(1, model="other", data="cars")
    with pytest.raises(ArgumentError, match="'net' was measured on 'pets' and 'other' on 'cars'"):
        findings_of(both[0], elsewhere, first="net", second="other")
    # On both data sets: only the common one counts.
    found = findings_of(both[0], both[1], elsewhere, first="net", second="other")
    assert len(found.differences) == 1


def model_findings(similarity_of, **changes):
    """Findings of methods whose similarity is given, with every other prediction changed."""
    rng = np.random.default_rng(0)
    same = np.tile([True, False], (100, 1))
    methods = tuple(similarity_of)
    rows = [
        np.where(same, mean, 1 - mean) + np.where(same, 1, -1) * rng.normal(0, spread, (100, 2))
        for mean, spread in similarity_of.values()
    ]
    outcomes = make_outcomes(
        count=100, methods=methods, noises=NOISES[:2], same=same, similarity=np.stack(rows, axis=1), readings={}
    )
    return dataclasses.replace(analyse_model(outcomes, how=Statistics(500)), **changes)


def test_the_verdict_names_the_best_and_the_worst():
    found = model_findings({"worst": (0.5, 0.05), "best": (0.9, 0.05), "middle": (0.7, 0.05)})
    first = next(describe_model(found))
    best, worst = r"0\.8\d\d \(0\.7\d\d to 0\.8\d\d\)", r"0\.2\d\d \(0\.2\d\d to 0\.2\d\d\)"
    assert re.fullmatch(
        r"net \(layer4, 100 images of pets\), photometric noises: "
        rf"most robust best, RM {best}; least robust worst, RM {worst}\.",
        first,
    )


def test_the_verdict_says_who_is_not_told_apart():
    found = model_findings({"low": (0.5, 0.05), "high": (0.9, 0.05), "same": (0.9, 0.05)})
    first = next(describe_model(found))
    assert re.search(r"most robust (high|same), RM [^;]*, not told apart from (same|high); least robust low, RM", first)
    alike = next(describe_model(model_findings({"one": (0.7, 0.1), "two": (0.7, 0.1)})))
    assert "no method is told apart from the first" in alike
    # First and last are close but noisy, the one in the middle is not.
    pairs = [
        dataclasses.replace(row, p_adjusted=0.001 if {"high", "low"} != {row.first, row.second} else 0.4)
        for row in found.pairs
    ]
    odd = next(
        describe_model(
            dataclasses.replace(
                model_findings({"low": (0.5, 0.05), "high": (0.9, 0.05), "same": (0.8, 0.05)}), pairs=tuple(pairs)
            )
        )
    )
    assert re.search(r"high, RM [^;]*, comes first and low, RM [^;]*, last, but these two are not told apart\.", odd)


def stability(*taus):
    rows = [ReadingRow(label, (0.1, 0.2), ("b", "a"), tau, Estimate(tau, -1.0, 1.0), 9) for label, tau in taus]
    stable = all(row.tau >= 0.8 for row in rows)
    return Stability(("a", "b"), tuple(rows), stable, () if stable else ("p: it changed.",), 0.8)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (stability(("main", 1.0), ("p=0.5", 0.9), ("max", 0.8)), "the ranking is stable under 2 other settings."),
        (stability(("main", 1.0), ("p=0.5", 0.9)), "the ranking is stable under 1 other setting."),
        (
            stability(("main", 1.0), ("p=0.5", 0.334), ("max", math.nan)),
            "not stable, because the order of methods changes under p=0.5 (tau 0.33) and it is undefined under max.",
        ),
        (stability(("main", 1.0), ("max", math.nan)), "not stable, because it is undefined under max."),
        (stability(("main", 1.0), ("averaging=macro", 1.0)), "the ranking was not tested under other settings"),
        (stability(("main", math.nan), ("max", math.nan)), "there is no ranking that other settings could be"),
    ],
)
def test_the_verdict_says_whether_the_ranking_holds(given, said):
    found = model_findings({"a": (0.9, 0.05), "b": (0.5, 0.05)}, stability=given)
    assert any(said in sentence for sentence in describe_model(found))


def test_a_study_without_readings_is_not_praised_for_being_stable(findings_of):
    found = findings_of(*(make_outcomes(0, model=name, readings={}) for name in ("net", "other")))
    assert all(model.stability.stable for model in found.models)
    assert not any("stable" in sentence for sentence in found.verdict)
    assert sum("was not tested under other settings" in sentence for sentence in found.verdict) == 2
    line = model_line(found.models[0])
    assert (line.stable, line.ranking) == (
        None, "The ranking was not tested under other settings: the study has no readings.",
    )  # fmt: skip


def test_low_support_of_any_method_is_said():
    found = model_findings({"a": (0.9, 0.05), "b": (0.5, 0.05)})
    assert not any("30 pairs" in sentence for sentence in describe_model(found))
    low = tuple(dataclasses.replace(row, low_support=row.method == "b") for row in found.scores)
    assert any("30 pairs" in sentence for sentence in describe_model(dataclasses.replace(found, scores=low)))


def test_estimates_as_text():
    assert estimate_text(Estimate(0.12345, 0.1, 0.2)) == "0.123 (0.100 to 0.200)"
    assert estimate_text(Estimate(0.5, math.nan, math.nan)) == "0.500 (no interval)"
    assert estimate_text(Estimate(math.nan, math.nan, math.nan)) == "undefined"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two real studies that both know a model called "b", of 7 and of 5 images."""
    folder = tmp_path_factory.mktemp("studies")
    study(folder / "monday")
    study(folder / "friday", models={"b": tiny_model(2), "c": tiny_model(3)}, count=5)
    return folder


def test_real_studies_in_several_folders(finished):
    folders = [finished / "monday", finished / "friday"]
    found = analyse(folders, resamples=100)
    check_sentences(found)
    names = [(model.model, model.target_layer) for model in found.models]
    assert names == [(name, layer) for name in ("tiny/a", "monday/b", "friday/b", "c") for layer in ("0", "3")]
    assert len(found.manifests) == 2
    assert all(each.outcomes.conditions["seed"] == "0" for each in load_measured(folders))
    assert all(model.seconds > 0 for model in found.models)
    assert [model.num_images for model in found.models] == [7] * 4 + [5] * 4
    compared = compare_studies(folders, first="monday/b", second="friday/b", resamples=100)
    assert [(each.first, each.second, each.num_images) for each in compared.differences] == [
        ("monday/b at 0", "friday/b at 0", compared.differences[0].num_images),
        ("monday/b at 3", "friday/b at 3", compared.differences[1].num_images),
    ]
    assert all(each.num_images <= 5 for each in compared.differences)
    alone = analyse(str(finished / "friday"), resamples=100)
    assert [model.model for model in alone.models] == ["b", "b", "c", "c"]
    assert alone.gallery == alone.baselines == ()


def test_names_that_only_the_layer_tells_apart_get_their_folder_too(finished, tmp_path):
    study(tmp_path / "layer3", models={"b": tiny_model(2, target_layers=("3",))})
    study(tmp_path / "layer0", models={"b": tiny_model(4, target_layers=("0",))})
    names = [each.outcomes.model for each in load_measured([tmp_path / "layer3", tmp_path / "layer0"])]
    assert names == ["layer3/b", "layer0/b"]


def test_folders_of_one_name_are_told_apart_by_their_path(tmp_path):
    for day in ("monday", "friday"):
        study(tmp_path / day / "run", models={"b": tiny_model(target_layers=("0",))}, count=3)
    names = [each.outcomes.model for each in load_measured([tmp_path / day / "run" for day in ("monday", "friday")])]
    assert names == [f"{tmp_path.resolve()}/{day}/run/b" for day in ("monday", "friday")]


def test_what_cannot_be_reported_is_refused(finished, tmp_path):
    with pytest.raises(ArgumentError, match="at least one finished study"):
        analyse([])
    with pytest.raises(ArgumentError, match="is named 2 times"):
        analyse([finished / "monday", finished / "friday" / ".." / "monday"])
    with pytest.raises(ArgumentError, match="holds no study"):
        analyse(tmp_path)
    with pytest.raises(ArgumentError, match="`resamples` must be 100"):
        analyse(finished / "friday", resamples=5)
    with pytest.raises(ArgumentError, match="confidence"):
        analyse(finished / "friday", resamples=100, confidence=95)
    study(tmp_path / "cut", models={"b": tiny_model(target_layers=("0",))}, count=3)
    (tmp_path / "cut" / "results.parquet").unlink()
    next((tmp_path / "cut").glob("shards/*/*/*.parquet")).unlink()
    with pytest.raises(ArgumentError, match="is not finished"):
        analyse([finished / "monday", tmp_path / "cut"])


@pytest.mark.parametrize("name", ["gallery.json", "baselines.json"])
@pytest.mark.parametrize("text", ["", "[{", "{}", "[1]"])
def test_a_damaged_list_beside_the_results_is_named(finished, tmp_path, monkeypatch, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ArgumentError, match=f"{name} cannot be read.*Delete it"):
        analysis._read_list(tmp_path / name)


def test_a_deleted_picture_is_said_to_be_missing(findings_of, tmp_path):
    item = {"title": "Most stable", "file": "gallery/gone.png", "alt": "Images."}
    (tmp_path / "gallery.json").write_text(json.dumps([item]))
    found = findings_of(make_outcomes())
    assert [each.title for each in found.gallery] == ["Most stable"]
    bare = Findings("Ours", verdict=(), models=(), gallery=found.gallery)
    assert "is missing)" in write_report(bare, tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"title": "Most", "file": "../other/x.png", "alt": "x"}, "does not lie in the study's folder"),
        ({"title": "Most", "file": "/etc/hostname", "alt": "x"}, "does not lie in the study's folder"),
        ({"title": "Most"}, "has no title, file or alt"),
    ],
)
def test_only_pictures_of_the_study_get_onto_the_page(findings_of, tmp_path, item, why):
    (tmp_path / "gallery.json").write_text(json.dumps([item]))
    with pytest.raises(ArgumentError, match=why):
        findings_of(make_outcomes())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": RandomImages(4, seed=1)}, "pictures themselves"),
        ({"grid": make_grid(seed=1)}, "seed"),
        ({"grid": make_grid(similarity=RankBiasedOverlap(p=0.9))}, "similarity"),
        ({"grid": make_grid(reduction="sum")}, "reduction"),
        ({"grid": make_grid(target="original")}, "target"),
        ({"images": RandomImages(3, seed=1)}, None),
    ],
)
def test_real_studies_of_other_pixels_or_settings_are_not_paired(one_model, tmp_path, settings, said):
    study(
        tmp_path / "other",
        **{"images": RandomImages(4), "models": {"c": tiny_model(2, target_layers=("3",))}, **settings},
    )
    folders = [one_model, tmp_path / "other"]
    if said is None:  # another set of images: nothing can be checked, and that is said
        found = compare_studies(folders, first="b", second="c", resamples=100)
        assert "could not be checked" in found.differences[0].verdict
        return
    with pytest.raises(ArgumentError, match=f"other conditions.*{said}"):
        compare_studies(folders, first="b", second="c", resamples=100)
    found = analyse(folders, resamples=100)
    assert found.differences == found.mixed == ()
    assert said in found.notes[0]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    study(folder, images=RandomImages(4), models={"b": tiny_model(1, target_layers=("3",))})
    return folder


def test_one_severity_and_spelling_of_grids(tmp_path):
    grid = make_grid(severities=4, perturbations=("contrast",))
    study(tmp_path, grid=grid, images=RandomImages(4), models={"b": tiny_model(1, target_layers=("3",))})
    found = analyse(tmp_path, resamples=100)
    check_sentences(found)
    assert [(row.perturbation, row.severity) for row in found.models[0].scores] == [
        place for place in [(None, None), ("contrast", None), ("contrast", 4)] for _ in range(2)
    ]
