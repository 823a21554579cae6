"""Per-image means, Friedman's test, Nemenyi's difference, Wilcoxon's test and Holm's correction against other code."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.statistics.friedman import critical_difference, find_cliques, friedman_test
from lightning_camrobust.study.statistics.image_means import image_means
from lightning_camrobust.study.statistics.wilcoxon import (
    holm,
    mean_interval,
    rank_biserial,
    signed_rank_p,
    wilcoxon_pairs,
)

# AUC of C4.5, with m, with cf, with both, on 14 data sets: Demsar 2006, table 6. The paper prints 0.975 twice for the
# last but one and ranks them 2 and 3.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
LETTERS = ["a", "b", "c", "d", "e", "f", "g"]


def some_values(*, images=40, methods=5, seed=0, shift=0.3):
    """Values with an effect of the image and of the method, and ties."""
    draws = np.random.default_rng(seed)
    values = draws.normal(size=(images, 1)) + draws.normal(size=(images, methods)) + shift * np.arange(methods)
    return np.round(values, 1)


# Per-image means


def slow_means(similarity, same, measure, common_pairs):
    images, methods, noises = similarity.shape
    means = np.full((images, methods), np.nan)
    for image in range(images):
        pairs = [noise for noise in range(noises) if same[image, noise] == (measure == "consistency")]
        scored = {m: {n for n in pairs if not np.isnan(similarity[image, m, n])} for m in range(methods)}
        if common_pairs:
            shared = set.intersection(set(pairs), *(each for each in scored.values() if each))
            scored = {m: each & shared for m, each in scored.items()}
        for m, each in scored.items():
            if each:
                values = [similarity[image, m, n] for n in each]
                means[image, m] = np.mean(values if measure == "consistency" else [1 - value for value in values])
    return means


@pytest.mark.parametrize("measure", ["consistency", "responsiveness"])
@pytest.mark.parametrize("common_pairs", [True, False])
def test_means_of_images_equal_a_slow_loop(measure, common_pairs):
    draws = np.random.default_rng(1)
    similarity = draws.random((60, 3, 7))
    similarity[draws.random(similarity.shape) < 0.25] = np.nan
    similarity[:5, 1] = np.nan
    same = draws.random((60, 7)) < 0.6
    same[10:13] = True
    found = image_means(similarity, same, measure=measure, common_pairs=common_pairs)
    np.testing.assert_allclose(found, slow_means(similarity, same, measure, common_pairs), rtol=1e-12)
    assert np.isnan(found).any()
    assert not np.isnan(found).all(axis=0).any()


def test_method_spared_the_hard_noise_gains_nothing():
    # The second method is the first one, but cannot be ranked under the hardest noise.
    first = np.linspace(0.9, 0.1, 5)
    second = np.where(np.arange(5) == 4, np.nan, first)
    similarity, same = np.stack([first, second])[None].repeat(20, axis=0), np.ones((20, 5), dtype=bool)
    spared = image_means(similarity, same, measure="consistency", common_pairs=False)
    assert (spared[:, 1] > spared[:, 0] + 0.09).all()
    fair = image_means(similarity, same, measure="consistency")
    assert (fair[:, 1] == fair[:, 0]).all()


def test_method_that_was_not_drawn_on_an_image_takes_nothing_from_the_others():
    draws = np.random.default_rng(2)
    similarity, same = draws.random((8, 3, 4)), np.ones((8, 4), dtype=bool)
    alone = image_means(similarity[:, :2], same, measure="consistency")
    similarity[:5, 2] = np.nan
    found = image_means(similarity, same, measure="consistency")
    np.testing.assert_array_equal(found[:, :2], alone)
    assert np.isnan(found[:5, 2]).all()


def test_images_have_no_robustness_and_shapes_must_fit():
    similarity, same = np.zeros((3, 2, 4)), np.zeros((3, 4), dtype=bool)
    with pytest.raises(ArgumentError, match="image_means.*'robustness'.*bootstrap"):
        image_means(similarity, same, measure="robustness")
    with pytest.raises(ArgumentError, match="images, methods, noises"):
        image_means(similarity, same.T, measure="consistency")
    with pytest.raises(ArgumentError, match="boolean"):
        image_means(similarity, same.astype(int), measure="consistency")


# Friedman


def test_friedman_of_demsars_table():
    test = friedman_test(DEMSAR, LETTERS[:4], measure="consistency")
    np.testing.assert_allclose(test.mean_ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert test.critical_difference == pytest.approx(1.25, abs=0.005)
    # The paper's statistic has no correction for ties: 9.28.
    tied = sum(float((count**3 - count).sum()) for count in (np.unique(r, return_counts=True)[1] for r in DEMSAR))
    assert test.statistic * (1 - tied / (14 * 4 * 15)) == pytest.approx(9.28, abs=0.005)
    assert test.cliques == (("d", "b", "c", "a"),)
    # "The performance of C4.5 is significantly worse than of C4.5+m and C4.5+m+cf", at 0.10 only.
    wider = friedman_test(DEMSAR, LETTERS[:4], measure="consistency", alpha=0.1)
    assert wider.cliques == (("d", "b", "c"), ("c", "a"))


@pytest.mark.parametrize("seed", range(5))
def test_friedman_equals_scipy_and_a_slow_kendall_w(seed):
    values = some_values(seed=seed, methods=3 + seed)
    methods = LETTERS[: values.shape[1]]
    values[:4, seed % 3] = np.nan
    test = friedman_test(values, methods, measure="responsiveness")
    blocks = values[4:]
    expected = stats.friedmanchisquare(*blocks.T)
    assert (test.statistic, test.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert test.num_images == 36
    # Larger is better: rank = 1 + those that are larger + half of the others that are equal.
    larger = (blocks[:, None, :] > blocks[:, :, None]).sum(axis=2)
    equal = (blocks[:, None, :] == blocks[:, :, None]).sum(axis=2) - 1
    ranks = 1 + larger + equal / 2
    np.testing.assert_allclose(test.mean_ranks, ranks.mean(axis=0))
    # W: variance of the rank sums over what it would be if all images agreed as far as their ties let them.
    images, width = ranks.shape
    sums = ranks.sum(axis=0)
    ties = sum(count**3 - count for row in ranks for count in np.unique(row, return_counts=True)[1])
    most = images**2 * (width**3 - width) - images * ties
    assert test.kendall_w == pytest.approx(12 * ((sums - sums.mean()) ** 2).sum() / most)


def test_kendall_w_is_one_where_images_agree_and_none_differ():
    agree = np.tile([0.9, 0.5, 0.5, 0.1], (12, 1))
    assert friedman_test(agree, LETTERS[:4], measure="consistency").kendall_w == pytest.approx(1.0)


def test_friedman_with_copies_of_one_method():
    values = some_values(images=200, methods=4, shift=0.5)
    values = np.column_stack([values, values[:, 0] + 1e-13, values[:, 0]])
    test = friedman_test(values, LETTERS[:6], measure="consistency")
    assert test.mean_ranks[0] == test.mean_ranks[4] == test.mean_ranks[5]
    assert any({"a", "e", "f"} <= set(clique) for clique in test.cliques)


def test_friedman_where_nothing_differs_or_too_little_is_there():
    flat = friedman_test(np.full((9, 3), 0.5), LETTERS[:3], measure="consistency")
    assert np.isnan([flat.statistic, flat.p_value, flat.kendall_w]).all()
    assert flat.mean_ranks == (2.0, 2.0, 2.0)
    assert flat.cliques == (("a", "b", "c"),)
    two = friedman_test(DEMSAR[:, :2], LETTERS[:2], measure="consistency")
    assert np.isnan(two.p_value)
    assert two.mean_ranks == pytest.approx((1.75, 1.25), abs=0.1)
    assert two.critical_difference == pytest.approx(1.96 / np.sqrt(14), rel=1e-3)
    one_image = friedman_test(DEMSAR[:1], LETTERS[:4], measure="consistency")
    assert np.isnan(one_image.statistic)
    assert one_image.mean_ranks == (4.0, 3.0, 2.0, 1.0)
    for empty in (np.empty((0, 3)), np.full((4, 3), np.nan)):
        nothing = friedman_test(empty, LETTERS[:3], measure="consistency")
        assert nothing.num_images == 0
        assert np.isnan([*nothing.mean_ranks, nothing.statistic, nothing.critical_difference]).all()
        assert nothing.cliques == ()
    single = friedman_test(DEMSAR[:, :1], ["a"], measure="consistency")
    assert np.isnan(single.critical_difference)
    assert single.mean_ranks == (1.0,)


def test_critical_values_are_those_of_the_table():
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for methods, value in table.items():
        images = methods * (methods + 1) // 2 * 12
        scale = np.sqrt(methods * (methods + 1) / (6 * images))
        # Two entries of the printed table are cut, not rounded.
        assert critical_difference(methods, images) / scale == pytest.approx(value, abs=1e-3)
    assert critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=0.005)


def slow_cliques(ranks, labels, limit):
    order = sorted(range(len(ranks)), key=lambda index: ranks[index])
    groups = [
        order[start:end]
        for start, end in itertools.combinations(range(len(ranks) + 1), 2)
        if end - start > 1 and ranks[order[end - 1]] - ranks[order[start]] < limit
    ]
    return {tuple(labels[i] for i in g) for g in groups if not any(set(g) < set(other) for other in groups)}


def test_cliques_are_the_maximal_groups():
    draws = np.random.default_rng(3)
    for _ in range(200):
        ranks = draws.permutation(draws.uniform(1, 7, size=7))
        limit = draws.uniform(0.1, 4)
        found = find_cliques(ranks, LETTERS, critical_difference=limit)
        assert set(found) == slow_cliques(ranks, LETTERS, limit)
        assert len(set(found)) == len(found)


def test_cliques_agree_with_nemenyis_p_values():
    values = some_values(images=30, methods=6, shift=0.4, seed=4)
    test = friedman_test(values, LETTERS[:6], measure="consistency")
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(pd.DataFrame(values, columns=LETTERS[:6]))
    together = {frozenset(pair) for clique in test.cliques for pair in itertools.combinations(clique, 2)}
    expected = {
        frozenset((one, other))
        for one, other in itertools.combinations(LETTERS[:6], 2)
        if p_values.loc[one, other] > 0.05
    }
    assert together == expected
    assert 0 < len(expected) < 15


def test_friedman_rejects_at_its_level_under_exchangeable_methods():
    draws = np.random.default_rng(5)
    rejected = 0
    for _ in range(1000):
        values = draws.normal(size=(40, 1)) + draws.normal(size=(40, 4))
        rejected += friedman_test(np.round(values, 1), LETTERS[:4], measure="consistency", alpha=0.05).p_value < 0.05
    assert 0.03 <= rejected / 1000 <= 0.07


# Wilcoxon


@pytest.mark.parametrize("seed", range(4))
def test_pairs_equal_scikit_posthocs(seed):
    # Untied, so that both sides take the same road; no zeros.
    draws = np.random.default_rng(seed)
    values = draws.normal(size=(30 + 40 * (seed % 2), 4)) + 0.3 * np.arange(4)
    rows = wilcoxon_pairs(values, LETTERS[:4], measure="consistency")
    frame = pd.DataFrame(values, columns=LETTERS[:4]).melt()
    plain = scikit_posthocs.posthoc_wilcoxon(frame, val_col="value", group_col="variable")
    adjusted = scikit_posthocs.posthoc_wilcoxon(frame, val_col="value", group_col="variable", p_adjust="holm")
    assert [(row.first, row.second) for row in rows] == list(itertools.combinations(LETTERS[:4], 2))
    for row in rows:
        assert row.p_value == pytest.approx(plain.loc[row.first, row.second], rel=1e-6)
        assert row.p_adjusted == pytest.approx(adjusted.loc[row.first, row.second], rel=1e-6)


def test_zeros_and_ties_are_tested_exactly_where_few_images_differ():
    # 2 ** m signs of the images that differ, whose ranks are tied: all enumerated.
    draws = np.random.default_rng(6)
    for _ in range(20):
        decided = draws.choice([-0.2, -0.1, 0.1, 0.2, 0.3], size=draws.integers(1, 11))
        differences = draws.permutation(np.concatenate([decided, np.zeros(50)]))
        ranks = stats.rankdata(np.abs(decided))
        observed = abs((np.sign(decided) * ranks).sum())
        totals = [abs(np.dot(signs, ranks)) for signs in itertools.product([-1, 1], repeat=decided.size)]
        assert signed_rank_p(differences) == pytest.approx(np.mean(np.array(totals) >= observed - 1e-9))


def slow_rank_biserial(differences):
    favourable = unfavourable = total = 0.0
    for difference in differences:
        smaller = sum(abs(other) < abs(difference) for other in differences)
        equal = sum(abs(other) == abs(difference) for other in differences)
        rank = smaller + (equal + 1) / 2
        total += rank
        favourable += rank if difference > 0 else 0.0
        unfavourable += rank if difference < 0 else 0.0
    return (favourable - unfavourable) / total


def test_rank_biserial_equals_its_definition():
    draws = np.random.default_rng(7)
    for size in (1, 2, 5, 30):
        differences = np.round(draws.normal(0.3, 1, size=size), 1)
        assert rank_biserial(differences) == pytest.approx(slow_rank_biserial(differences))
        assert rank_biserial(-differences) == pytest.approx(-slow_rank_biserial(differences))


def test_rank_biserial_follows_scipys_statistic_without_zeros():
    differences = np.random.default_rng(8).normal(0.2, 1, size=40)
    larger = stats.wilcoxon(differences, alternative="greater").statistic
    assert rank_biserial(differences) == pytest.approx(2 * larger / (40 * 41 / 2) - 1)
    assert rank_biserial(np.abs(differences)) == 1.0


def test_effect_is_small_where_hardly_any_image_differs():
    differences = np.zeros(1000)
    differences[:12] = 0.1
    assert signed_rank_p(differences) < 0.01
    assert rank_biserial(differences) < 0.03


def test_identical_methods_and_rounding():
    one = np.random.default_rng(9).random(50)
    (row,) = wilcoxon_pairs(np.column_stack([one, one + 1e-13]), ["gradcam", "hirescam"], measure="consistency")
    assert (row.p_value, row.p_adjusted, row.effect, row.difference) == (1.0, 1.0, 0.0, (0.0, 0.0, 0.0))


def test_missing_values_leave_only_their_own_pairs():
    values = np.random.default_rng(10).random((30, 4))
    values[:10, 1], values[:, 3] = np.nan, np.nan
    rows = {(row.first, row.second): row for row in wilcoxon_pairs(values, LETTERS[:4], measure="responsiveness")}
    assert [rows[pair].num_images for pair in (("a", "b"), ("a", "c"), ("a", "d"))] == [20, 30, 0]
    lost = rows["a", "d"]
    assert np.isnan([lost.p_value, lost.p_adjusted, lost.effect, *lost.difference]).all()
    p_values = [rows[pair].p_value for pair in (("a", "b"), ("a", "c"), ("b", "c"))]
    adjusted = [rows[pair].p_adjusted for pair in (("a", "b"), ("a", "c"), ("b", "c"))]
    np.testing.assert_allclose(adjusted, multipletests(p_values, method="holm")[1])
    assert p_values[0] == pytest.approx(stats.wilcoxon(values[10:, 0], values[10:, 1]).pvalue)


def test_interval_equals_scipys():
    differences = np.random.default_rng(11).normal(size=25)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert mean_interval(differences, confidence=0.9) == pytest.approx((differences.mean(), low, high))
    single = mean_interval(np.array([0.3]))
    assert single.value == 0.3
    assert np.isnan([single.low, single.high, *mean_interval(np.empty(0))]).all()


def test_holm_equals_statsmodels():
    draws = np.random.default_rng(12)
    for size in (1, 2, 7, 45):
        p_values = np.round(draws.random(size) ** 3, 2)
        np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])
    np.testing.assert_allclose(holm([np.nan, 0.02, 0.03]), [np.nan, 0.04, 0.04])
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan, np.nan])).all()
    for wrong in ([1.2], [-0.1], [[0.1]]):
        with pytest.raises(ArgumentError, match="probabilities"):
            holm(wrong)


def test_false_alarms_of_a_family_stay_below_the_level():
    draws = np.random.default_rng(13)
    alarms = 0
    for _ in range(500):
        values = draws.normal(size=(40, 1)) + draws.normal(size=(40, 4))
        # On half of the images two methods are the same.
        values[:20, 1] = values[:20, 0]
        alarms += min(row.p_adjusted for row in wilcoxon_pairs(values, LETTERS[:4], measure="consistency")) < 0.05
    assert 0.01 <= alarms / 500 <= 0.065


def test_twenty_methods_on_two_thousand_images_take_seconds():
    draws = np.random.default_rng(14)
    values = draws.random((2000, 20))
    values[:, 1] = values[:, 0]
    started = time.perf_counter()
    rows = wilcoxon_pairs(values, [str(index) for index in range(20)], measure="consistency")
    friedman_test(values, [str(index) for index in range(20)], measure="consistency")
    assert len(rows) == 190
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("compare", [friedman_test, wilcoxon_pairs])
def test_what_does_not_fit_is_refused(compare):
    name = compare.__name__
    with pytest.raises(ArgumentError, match=f"{name}.*images, methods"):
        compare(DEMSAR, LETTERS[:3], measure="consistency")
    with pytest.raises(ArgumentError, match=f"{name}.*once"):
        compare(DEMSAR, ["a", "b", "a", "c"], measure="consistency")
    with pytest.raises(ArgumentError, match=f"{name}.*infinite"):
        compare(np.full((3, 1), np.inf), ["a"], measure="consistency")
    with pytest.raises(ArgumentError, match=f"{name}.*'robustness'"):
        compare(DEMSAR, LETTERS[:4], measure="robustness")
    with pytest.raises(ArgumentError, match=f"{name}.*strictly"):
        compare(DEMSAR, LETTERS[:4], measure="consistency", **{"alpha" if "fried" in name else "confidence": 1.0})
