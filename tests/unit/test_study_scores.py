"""Methods compared in pairs: with enough resamples for the correction, and on pairs that both could score."""

import dataclasses
import itertools
import math
import re
import time

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from lightning_camrobust.study.difference import compare_models
from lightning_camrobust.study.findings import LOW_SUPPORT_IMAGES, Estimate
from lightning_camrobust.study.headline import headline
from lightning_camrobust.study.model_findings import Statistics, analyse_model
from lightning_camrobust.study.outcomes import Noise, Outcomes
from lightning_camrobust.study.scores import robustness_pairs, score_rows
from lightning_camrobust.study.statistics.bootstrap import Resampling
from lightning_camrobust.study.verdict import MULTIPLICITY, describe_model


def make_outcomes(seed=0, *, images=100, noises=4, leads=(0.0, 0.0, 0.3)):
    """Methods of which each keeps and changes its maps by its lead more than the first."""
    generator = np.random.default_rng(seed)
    same = np.tile(np.arange(noises) % 2 == 0, (images, 1))
    gain = np.array(leads)[:, None] * np.where(same, 1, -1)[:, None]
    similarity = np.clip(0.5 + gain + generator.normal(0, 0.1, (images, len(leads), noises)), 0, 1)
    none = np.zeros(images, dtype=np.int64)
    return Outcomes(
        "net", "layer4", "pets", tuple(f"{row:04d}" for row in range(images)), none, tuple("abcdefghijklmnopqrst")[
            : len(leads)
        ], tuple(Noise("fog", severity) for severity in range(1, noises + 1)), none, np.where(same, 0, 1), same,
        similarity, np.full(images, 0.05),
    )  # fmt: skip


def slow_robustness(similarity, same, columns):
    """RM of two methods by a loop over the pairs that both could score."""
    kept, changed = ([], []), ([], [])
    for image, noise in itertools.product(range(len(same)), range(same.shape[1])):
        values = [similarity[image, column, noise] for column in columns]
        if not any(map(math.isnan, values)):
            for side, value in enumerate(values):
                (kept if same[image, noise] else changed)[side].append(value if same[image, noise] else 1 - value)
    return [
        math.nan if not k or not c else sum(k) / len(k) * (sum(c) / len(c)) for k, c in zip(kept, changed, strict=True)
    ]


def test_eleven_methods_can_be_told_apart():
    outcomes = make_outcomes(leads=tuple(0.04 * place for place in range(11)))
    rows = robustness_pairs(outcomes, Resampling(100, 2000))
    assert len(rows) == 55
    assert sum(row.p_adjusted < 0.05 for row in rows) > 40
    expected = multipletests([row.p_value for row in rows], method="holm")[1]
    np.testing.assert_allclose([row.p_adjusted for row in rows], expected, rtol=1e-12)
    assert min(row.p_adjusted for row in rows) < 0.03
    found = dataclasses.replace(analyse_model(outcomes, how=Statistics(2000)), stability=None)
    assert "no method is told apart" not in next(describe_model(found))
    assert any("80 resamples or more" in sentence for sentence in MULTIPLICITY)


def test_few_methods_get_the_resamples_that_were_asked_for():
    outcomes = make_outcomes()
    rows = robustness_pairs(outcomes, Resampling(100, 500))
    # a and c differ beyond any doubt.
    assert min(row.p_value for row in rows) == pytest.approx(2 / 501, rel=0.01)


def test_twenty_methods_take_a_moment():
    outcomes = make_outcomes(images=300, noises=6, leads=tuple(0.02 * place for place in range(20)))
    similarity = outcomes.similarity.copy()
    similarity[0, 3, 0] = np.nan
    started = time.perf_counter()
    rows = robustness_pairs(dataclasses.replace(outcomes, similarity=similarity), Resampling(300))
    assert time.perf_counter() - started < 30
    assert len(rows) == 190
    assert min(row.p_adjusted for row in rows) < 0.03


def test_a_method_gains_nothing_by_failing_on_the_hardest_noise():
    # b is a, except that its maps break under the hardest noises.
    outcomes = make_outcomes(noises=6, leads=(0.0, 0.0, 0.1))
    similarity = outcomes.similarity.copy()
    similarity[:, :, 4] -= 0.4
    similarity[:, 1] = similarity[:, 0]
    similarity[:, 1, 4] = np.nan
    outcomes = dataclasses.replace(outcomes, similarity=np.clip(similarity, 0, 1))
    scores = [row.robustness.value for row in score_rows(outcomes, Resampling(100), pooled_only=True)]
    assert scores[1] > scores[0] + 0.05  # each method's own score rests on its own pairs
    rows = robustness_pairs(outcomes, Resampling(100))
    assert (rows[0].difference, rows[0].p_value) == (Estimate(0.0, 0.0, 0.0), 1.0)
    for row, columns in zip(rows, itertools.combinations(range(3), 2), strict=True):
        one, other = slow_robustness(outcomes.similarity, outcomes.same, columns)
        assert row.difference.value == pytest.approx(one - other, abs=1e-12)
        assert row.difference.low <= row.difference.value <= row.difference.high
    found = analyse_model(outcomes, how=Statistics(200))
    text = " ".join(describe_model(found))
    assert re.search(r"b could not be scored on 16\.67% of its pairs, [ac] on 0\.00%: its score rests on other", text)
    whole = analyse_model(make_outcomes(), how=Statistics(200))
    assert "could not be scored" not in " ".join(describe_model(whole))


def test_pairs_of_methods_with_gaps_equal_slow_loops_and_count_their_images():
    outcomes = make_outcomes(images=40, leads=(0.0, 0.1, 0.2, 0.3))
    similarity = outcomes.similarity.copy()
    similarity[np.random.default_rng(1).random(similarity.shape) < 0.2] = np.nan
    similarity[10:, 3] = np.nan
    outcomes = dataclasses.replace(outcomes, similarity=similarity)
    for row, columns in zip(
        robustness_pairs(outcomes, Resampling(40, 200)), itertools.combinations(range(4), 2), strict=True
    ):
        one, other = slow_robustness(similarity, outcomes.same, columns)
        assert row.difference.value == pytest.approx(one - other, abs=1e-12)
        both = ~np.isnan(similarity[:, list(columns)]).any(axis=1)
        assert row.num_images == both.any(axis=1).sum()
    similarity[:, 3] = np.nan
    rows = robustness_pairs(dataclasses.replace(outcomes, similarity=similarity), Resampling(40, 200))
    assert [math.isnan(row.p_value) for row in rows] == [False, False, True, False, True, True]


def test_many_pairs_from_few_images_are_low_support():
    outcomes = make_outcomes(images=60, noises=12)
    same = outcomes.same.copy()
    same[:] = True
    same[: LOW_SUPPORT_IMAGES - 1, :6] = False
    rows = score_rows(dataclasses.replace(outcomes, same=same), Resampling(60, 100), pooled_only=True)
    assert [(row.changed_count, row.changed_images, row.low_support) for row in rows] == [(54, 9, True)] * 3
    same[LOW_SUPPORT_IMAGES - 1, :6] = False
    rows = score_rows(dataclasses.replace(outcomes, same=same), Resampling(60, 100), pooled_only=True)
    assert [row.low_support for row in rows] == [False] * 3


def swapping(change):
    """A model whose first two methods, which do not differ, change places; or one that falls from first to last."""
    outcomes = make_outcomes(3, leads=(0.1, 0.1, 0.3) if change == "chance" else (0.0, 0.1, 0.3))
    order = [1, 0, 2] if change == "chance" else [2, 1, 0]
    return dataclasses.replace(outcomes, model=change, readings={"p=0.9": outcomes.similarity[:, order]})


def test_the_verdict_tells_luck_from_an_order_that_changes():
    chance, real = (analyse_model(swapping(each), how=Statistics(500)) for each in ("chance", "real"))
    assert (chance.stability.stable, chance.stability.change) == (False, "chance")
    assert (real.stability.stable, real.stability.change) == (False, "real")
    texts = [" ".join(describe_model(each)) for each in (chance, real)]
    assert "the order changes only among methods that are not told apart: " in texts[0]
    assert "not stable" not in texts[0]
    assert "the ranking is not stable, because " in texts[1]
    said = " ".join(headline([chance, real]))
    assert "stable under other settings on 0 of 2 models; on 1 the order changes only among methods that are" in said


def test_the_families_that_are_named_are_those_that_are_corrected():
    first, second = make_outcomes(4), dataclasses.replace(make_outcomes(5), model="other")
    rows = compare_models(first, second).rows
    assert len(rows) - 1 == 5
    assert any("five secondary tests are one family" in sentence for sentence in MULTIPLICITY)
    assert any("primary test of two models" in sentence for sentence in MULTIPLICITY)
