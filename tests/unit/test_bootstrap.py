"""Sums, scores, resamples, intervals and p-values: each against a slow loop, scipy or a value by hand."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.stability import sum_up
from lightning_camrobust.study.statistics import resampling as resampling_module
from lightning_camrobust.study.statistics.bootstrap import (
    Resampling,
    bootstrap,
    differences,
    estimates,
    undefined_resamples,
)
from lightning_camrobust.study.statistics.correction import correction_for
from lightning_camrobust.study.statistics.distribution import Distribution
from lightning_camrobust.study.statistics.intervals import limits, p_values
from lightning_camrobust.study.statistics.pair_sums import PairSums, pair_sums, side_by_side
from lightning_camrobust.study.statistics.resampling import enough_resamples
from lightning_camrobust.study.statistics.support import chance_floor, chance_floors, chance_overlap, support
from lightning_camrobust.study.statistics.totals import STATISTICS
from lightning_camrobust.types import Comparison


def measured(images=12, methods=3, noises=5, *, flips=0.4, seed=0):
    """Similarities with some unranked maps, and flips that some images have often and others never."""
    generator = np.random.default_rng(seed)
    often = generator.beta(0.5, 0.5 * (1 - flips) / flips, size=(images, 1))
    same = generator.random((images, noises)) >= often
    similarity = generator.beta(2, 1, size=(images, methods, noises))
    similarity[generator.random(similarity.shape) < 0.1] = np.nan
    return similarity, same


def slow_mean(values):
    return sum(values) / len(values) if values else math.nan


def slow_scores(similarity, same):
    """All scores of one method from its raw pairs ``(images, noises)``, one pair at a time."""
    stayed, changed, own_stayed, own_changed = [], [], [], []
    for values, keeps in zip(similarity, same, strict=True):
        mine = [v for v, k in zip(values, keeps, strict=True) if k and not math.isnan(v)]
        others = [1 - v for v, k in zip(values, keeps, strict=True) if not k and not math.isnan(v)]
        stayed, changed = stayed + mine, changed + others
        own_stayed += [slow_mean(mine)] if mine else []
        own_changed += [slow_mean(others)] if others else []
    scored = len(stayed) + len(changed)
    return {
        "robustness": slow_mean(stayed) * slow_mean(changed),
        "consistency": slow_mean(stayed),
        "responsiveness": slow_mean(changed),
        "flip_rate": len(changed) / scored if scored else math.nan,
        "robustness_macro": slow_mean(own_stayed) * slow_mean(own_changed),
        "consistency_macro": slow_mean(own_stayed),
        "responsiveness_macro": slow_mean(own_changed),
    }


def one_pair_each(values):
    """Sums whose consistency is the plain mean of ``values`` ``(images, columns)``."""
    return pair_sums(np.asarray(values)[:, :, None], np.ones((len(values), 1), dtype=bool))


def slow_limits(distribution, confidence, *, bca):
    """BCa by its formulas for one column without undefined resamples, with numpy's quantiles."""
    value, replicates, left_out = (
        each[..., 0] for each in (distribution.value, distribution.replicates, distribution.left_out)
    )
    bias, acceleration = 0.0, 0.0
    if bca:
        below = sum(1.0 if each < value else 0.5 if each == value else 0.0 for each in replicates)
        bias = stats.norm.ppf(below / len(replicates))
        pulls = [left_out.mean() - each for each in left_out]
        acceleration = sum(u**3 for u in pulls) / (6 * sum(u**2 for u in pulls) ** 1.5)
    found = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + stats.norm.ppf(level)
        taken = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
        found.append(np.quantile(replicates, taken, method="weibull"))
    return found


def test_sums_and_scores_are_those_of_single_pairs():
    similarity, same = measured()
    sums = pair_sums(similarity, same)
    for method in range(3):
        wanted = slow_scores(similarity[:, method], same)
        for name, score in STATISTICS.items():
            assert score(sums.total())[method] == pytest.approx(wanted[name], abs=1e-12)
        assert sums.degenerate_count[:, method].tolist() == np.isnan(similarity[:, method]).sum(axis=1).tolist()


def test_sums_are_those_of_the_callback():
    similarity, same = measured()
    rankable = torch.from_numpy(~np.isnan(similarity))
    shape = (12, 15)
    pairs = Comparison(
        similarity=torch.from_numpy(np.nan_to_num(similarity)).reshape(shape),
        same_class=torch.from_numpy(np.repeat(same[:, None], 3, axis=1).copy()).reshape(shape),
        rankable=rankable.reshape(shape),
    )
    wanted, sums = sum_up(pairs), pair_sums(similarity, same)
    for field in fields(PairSums):
        expected = getattr(wanted, field.name).reshape(3, 5).sum(dim=1).numpy()
        np.testing.assert_allclose(getattr(sums, field.name).sum(axis=0), expected, rtol=1e-12)


def test_scores_of_two_images_by_hand():
    similarity = np.array([[[1.0, 0.5, 0.2, 0.4]], [[0.0, np.nan, 0.1, 0.3]]])
    same = np.array([[True, True, False, False], [True, True, True, False]])
    totals = pair_sums(similarity, same).total()
    wanted = {
        "consistency": (1.0 + 0.5 + 0.0 + 0.1) / 4,
        "responsiveness": (0.8 + 0.6 + 0.7) / 3,
        "robustness": 0.4 * 0.7,
        "flip_rate": 3 / 7,
        "consistency_macro": (0.75 + 0.05) / 2,
        "responsiveness_macro": (0.7 + 0.7) / 2,
        "robustness_macro": 0.4 * 0.7,
    }
    assert {name: round(float(score(totals)[0]), 12) for name, score in STATISTICS.items()} == {
        name: round(value, 12) for name, value in wanted.items()
    }


def test_every_replicate_is_the_score_of_the_drawn_images_with_all_their_pairs():
    similarity, same = measured(images=7, flips=0.2)
    resampling = Resampling(7, resamples=150, seed=3)
    drawn = bootstrap(pair_sums(similarity, same), resampling)
    weights = np.vstack(list(resampling.weights())).astype(int)
    replicates = {name: drawn.distribution(name).replicates for name in STATISTICS}
    undefined = 0
    for row, times in enumerate(weights):
        images = np.repeat(np.arange(7), times)
        for method in range(3):
            wanted = slow_scores(similarity[images, method], same[images])
            undefined += math.isnan(wanted["responsiveness"])
            for name in STATISTICS:
                assert replicates[name][row, method] == pytest.approx(wanted[name], abs=1e-12, nan_ok=True)
    assert 0 < undefined < 3 * 150  # the data are such that this is tried as well
    assert undefined_resamples(drawn)["responsiveness"].sum() == undefined


def test_jackknife_leaves_each_image_out_once():
    similarity, same = measured(images=6, flips=0.1, seed=4)
    drawn = bootstrap(pair_sums(similarity, same), Resampling(6, resamples=100))
    for image in range(6):
        kept = np.arange(6) != image
        wanted = slow_scores(similarity[kept, 0], same[kept])
        for name in STATISTICS:
            found = drawn.distribution(name).left_out[image, 0]
            assert found == pytest.approx(wanted[name], abs=1e-12, nan_ok=True)


def test_weights_are_draws_with_replacement_from_all_images():
    weights = np.vstack(list(Resampling(20, resamples=20000).weights()))
    assert weights.shape == (20000, 20)
    assert (weights.sum(axis=1) == 20).all()
    # A multinomial count of n draws among n has mean 1, variance 1 - 1/n and covariance -1/n.
    covariance = np.cov(weights.T)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.diag(covariance), 0.95, atol=0.06)
    np.testing.assert_allclose(covariance[~np.eye(20, dtype=bool)], -0.05, atol=0.03)


def test_weights_do_not_depend_on_the_size_of_a_block(monkeypatch):
    whole = np.vstack(list(Resampling(33, resamples=101, seed=5).weights()))
    monkeypatch.setattr(resampling_module, "_BLOCK", 33 * 7)
    blocks = list(Resampling(33, resamples=101, seed=5).weights())
    assert len(blocks) == 15
    np.testing.assert_array_equal(np.vstack(blocks), whole)
    assert (np.vstack(list(Resampling(33, resamples=101, seed=6).weights())) != whole).any()


def test_no_block_of_weights_is_large():
    assert next(Resampling(10_000).weights()).nbytes <= 2**25
    assert next(Resampling(5_000_000, resamples=100).weights()).shape[0] == 1


def test_columns_share_the_resamples():
    similarity, same = measured(images=30)
    other, _ = measured(images=30, seed=9)
    sums, more = pair_sums(similarity, same), pair_sums(other, same)
    resampling = Resampling(30, resamples=300, seed=2)
    together = bootstrap(side_by_side([sums, more]), resampling)
    for name in STATISTICS:
        found = together.columns([4, 0]).distribution(name)
        for place, alone in enumerate((bootstrap(more.columns(1), resampling), bootstrap(sums.columns(0), resampling))):
            wanted = alone.distribution(name)
            np.testing.assert_allclose(found.replicates[:, [place]], wanted.replicates, rtol=1e-12)
            np.testing.assert_allclose(found.left_out[:, [place]], wanted.left_out, rtol=1e-12)


@pytest.mark.parametrize("how", ["bca", "percentile"])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_limits_follow_the_formulas(how, confidence):
    similarity, same = measured(images=40, methods=1, seed=1)
    drawn = bootstrap(pair_sums(similarity, same), Resampling(40, seed=8))
    for name in STATISTICS:
        distribution = drawn.distribution(name)
        low, high = limits(distribution, confidence=confidence, how=how, widened=False)
        wanted = slow_limits(distribution, confidence, bca=how == "bca")
        assert [low[0], high[0]] == pytest.approx(wanted, abs=1e-12)
        found = estimates(drawn, confidence=confidence, how=how, widened=False)[name]
        assert found == [(distribution.value[0], low[0], high[0])]


@pytest.mark.parametrize(("how", "method"), [("bca", "BCa"), ("percentile", "percentile")])
def test_limits_agree_with_scipy(how, method):
    generator = np.random.default_rng(11)
    count = generator.integers(1, 6, size=25)
    total = generator.beta(4, 1, size=25) ** 2 * count
    sums = PairSums(*(each[:, None].astype(float) for each in (total, count, 0 * count, 0 * count, 0 * count)))
    drawn = bootstrap(sums, Resampling(25, resamples=40000, seed=1))
    low, high = limits(drawn.distribution("consistency"), how=how, widened=False)

    def pooled(total, count, axis):
        return total.sum(axis=axis) / count.sum(axis=axis)

    wanted = stats.bootstrap(
        (total, count), pooled, paired=True, n_resamples=40000, method=method, random_state=np.random.default_rng(2)
    )
    # The error of a 2.5% quantile of 40000 normal replicates is 0.013 of their standard deviation, twice here.
    tolerance = 4 * 0.013 * math.sqrt(2) * wanted.standard_error
    assert low[0] == pytest.approx(wanted.confidence_interval.low, abs=tolerance)
    assert high[0] == pytest.approx(wanted.confidence_interval.high, abs=tolerance)
    # It is skewed enough for the two kinds of interval to be told apart.
    other, _ = limits(drawn.distribution("consistency"), how="percentile" if how == "bca" else "bca", widened=False)
    assert abs(other[0] - low[0]) > 2 * tolerance


def test_paired_difference_agrees_with_scipy():
    generator = np.random.default_rng(12)
    values = generator.beta(2, 1, size=(40, 1)) * generator.beta(5, 1, size=(40, 2))
    drawn = bootstrap(one_pair_each(values), Resampling(40, resamples=20000, seed=1))
    [found] = differences(drawn.columns(0), drawn.columns(1), how="bca", widened=False)["consistency"]
    wanted = stats.bootstrap(
        (values[:, 0], values[:, 1]),
        lambda first, second, axis: (first - second).mean(axis=axis),
        paired=True,
        n_resamples=20000,
        random_state=np.random.default_rng(3),
    )
    tolerance = 4 * 0.019 * math.sqrt(2) * wanted.standard_error
    assert found.estimate.value == pytest.approx((values[:, 0] - values[:, 1]).mean(), abs=1e-12)
    assert found.estimate.low == pytest.approx(wanted.confidence_interval.low, abs=tolerance)
    assert found.estimate.high == pytest.approx(wanted.confidence_interval.high, abs=tolerance)
    # Both columns share the image's own factor, so an unpaired comparison would be wider.
    unpaired = values.std(axis=0) / math.sqrt(40)
    assert found.estimate.high - found.estimate.low < 0.8 * 2 * 1.96 * np.hypot(*unpaired)


def test_widened_interval_of_a_mean_is_close_to_students():
    generator = np.random.default_rng(13)
    values = generator.normal(size=(10, 40))
    distribution = bootstrap(one_pair_each(values), Resampling(10, resamples=10000)).distribution("consistency")
    low, high = limits(distribution, how="percentile")
    error = values.std(axis=0, ddof=1) / math.sqrt(10)
    student = np.median((high - low) / (2 * stats.t.ppf(0.975, 9) * error))
    assert student == pytest.approx(1, abs=0.08)
    plain_low, plain_high = limits(distribution, how="percentile", widened=False)
    assert np.median((plain_high - plain_low) / (2 * stats.t.ppf(0.975, 9) * error)) < 0.84


def test_widening_follows_its_formulas():
    similarity, same = measured(images=20, methods=1, flips=0.1, seed=6)
    drawn = bootstrap(pair_sums(similarity, same), Resampling(20))
    found = []
    for name in STATISTICS:
        distribution = drawn.distribution(name)
        correction = correction_for(distribution)
        pulls = [distribution.left_out.mean() - each for each in distribution.left_out[:, 0]]
        second, fourth = sum(u**2 for u in pulls), sum(u**4 for u in pulls)
        assert correction.freedom[0] == pytest.approx(min(2 * second**2 / (fourth - second**2 / 20), 19))
        widening = math.sqrt(19 / 20 * second) / np.nanstd(distribution.replicates)
        assert correction.widening[0] == pytest.approx(max(widening, 1))
        found.append((float(correction.freedom[0]), float(correction.widening[0])))
    assert sum(2 < freedom < 19 and widening > 1 for freedom, widening in found) >= 3


@pytest.mark.parametrize(
    ("pulls", "freedom"),
    [([1.0, -1.0] * 10, 19.0), ([1.0] + [-0.001] * 999, 2.0), ([0.0] * 20, 19.0)],
    ids=["all alike", "one decides", "none"],
)
def test_degrees_of_freedom_say_how_many_images_carry_a_score(pulls, freedom):
    replicates = np.random.default_rng(0).normal(size=(200, 1))
    distribution = Distribution(np.zeros(1), replicates, 0.5 - np.array(pulls)[:, None])
    assert correction_for(distribution).freedom[0] == pytest.approx(freedom, rel=0.01)


@pytest.mark.parametrize("how", ["bca", "percentile"])
@pytest.mark.parametrize("widened", [True, False])
def test_p_below_alpha_says_the_same_as_zero_outside_the_interval(how, widened):
    similarity, same = measured(images=25, methods=8, noises=8, flips=0.15, seed=5)
    similarity = np.clip(similarity + np.linspace(0, 0.4, 8)[:, None], 0, 1)
    drawn = bootstrap(pair_sums(similarity, same), Resampling(25, seed=1))
    first, second = np.triu_indices(8, 1)
    checked = 0
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99, 0.995):
        found = differences(
            drawn.columns(first), drawn.columns(second), confidence=confidence, how=how, widened=widened
        )
        for name in ("robustness", "consistency", "responsiveness", "flip_rate", "robustness_macro"):
            for difference in found[name]:
                _, low, high = difference.estimate
                assert (difference.p_value < 1 - confidence) == (low > 0 or high < 0)
                checked += low > 0 or high < 0
    assert checked > 100


@pytest.mark.parametrize("how", ["bca", "percentile"])
def test_p_is_where_the_interval_touches_zero(how):
    generator = np.random.default_rng(20)
    values = np.clip(generator.normal(0.5 + np.array([0.0, 0.04, -0.08, 0.12]), 0.2, size=(30, 4)), 0, 1)
    drawn = bootstrap(one_pair_each(values), Resampling(30, seed=4))
    base = drawn.columns([0, 0, 0])
    distribution = base.distribution("consistency") - drawn.columns([1, 2, 3]).distribution("consistency")
    for column, p_value in enumerate(p_values(distribution, how=how)):
        low, high = limits(distribution, confidence=1 - p_value, how=how, extrapolated=True)
        assert min(abs(low[column]), abs(high[column])) < 1e-9


def test_differences_mirror():
    similarity, same = measured(images=25, methods=2, noises=8)
    drawn = bootstrap(pair_sums(similarity, same), Resampling(25))
    there, back = (differences(drawn.columns(a), drawn.columns(1 - a)) for a in (0, 1))
    for name in STATISTICS:
        [one], [other] = there[name], back[name]
        assert one.estimate.value == pytest.approx(-other.estimate.value, abs=1e-12)
        assert one.estimate.low == pytest.approx(-other.estimate.high, abs=1e-12)
        assert one.p_value == pytest.approx(other.p_value, abs=1e-12)


def test_models_are_paired_by_image():
    similarity, same = measured(images=60, methods=1, noises=8)
    better = np.clip(similarity + 0.02, 0, 1)
    resampling = Resampling(60)
    drawn = [bootstrap(pair_sums(each, same), resampling) for each in (better, similarity)]
    [found] = differences(*drawn)["consistency"]
    assert 0.005 < found.estimate.low < found.estimate.value < found.estimate.high < 0.0201
    spread = estimates(drawn[0])["consistency"][0]
    assert spread.high - spread.low > 5 * (found.estimate.high - found.estimate.low)


def test_equal_columns_do_not_differ():
    similarity, same = measured(images=40, methods=1)
    # Up to rounding, that is: the last digit, although it is off in one direction, must not pass for a difference.
    drawn = [bootstrap(pair_sums(each, same), Resampling(40)) for each in (similarity, np.nextafter(similarity, 0))]
    assert drawn[0].whole.same_similarity > drawn[1].whole.same_similarity
    for [found] in differences(*drawn).values():
        assert found.estimate == pytest.approx((0, 0, 0), abs=1e-12)
        assert found.p_value == 1


def test_p_is_never_zero():
    values = np.random.default_rng(2).normal([0.9, 0.1], 0.01, size=(200, 2))
    for resamples in (100, 2000):
        drawn = bootstrap(one_pair_each(values), Resampling(200, resamples=resamples))
        [found] = differences(drawn.columns(0), drawn.columns(1), confidence=0.9)["consistency"]
        assert found.p_value == pytest.approx(2 / (resamples + 1))


def test_where_all_resamples_agree_the_interval_is_the_value():
    drawn = bootstrap(one_pair_each(np.full((50, 1), 0.3)), Resampling(50))
    assert estimates(drawn)["consistency"] == [pytest.approx((0.3, 0.3, 0.3), abs=1e-12)]


def with_changed_images(changed, *, images=200):
    """One image has one pair that stayed; some have one that changed as well."""
    generator = np.random.default_rng(changed)
    similarity = generator.random((images, 1, 2))
    same = np.ones((images, 2), dtype=bool)
    same[:changed, 1] = False
    return bootstrap(pair_sums(similarity, same), Resampling(images))


@pytest.mark.parametrize(("changed", "given"), [(1, False), (2, False), (3, False), (5, True), (8, True)])
def test_a_set_of_few_images_has_a_value_but_no_interval(changed, given):
    drawn = with_changed_images(changed)
    found = estimates(drawn)
    for name in ("responsiveness", "robustness", "responsiveness_macro"):
        [(value, low, high)] = found[name]
        assert not math.isnan(value)
        assert [math.isnan(low), math.isnan(high)] == [not given, not given]
    assert not any(math.isnan(each) for each in found["consistency"][0])
    share = undefined_resamples(drawn)["responsiveness"][0] / 2000
    assert share == pytest.approx((1 - changed / 200) ** 200, abs=4 * math.sqrt(0.25 / 2000))
    [difference] = differences(drawn, with_changed_images(20))["responsiveness"]
    assert math.isnan(difference.p_value) == math.isnan(difference.estimate.low) == (not given)


def test_undefined_resamples_are_left_out_of_the_interval():
    distribution = with_changed_images(5).distribution("responsiveness")
    defined = distribution.replicates[~np.isnan(distribution.replicates)]
    assert 0 < len(defined) < 2000
    low, high = limits(distribution, how="percentile", widened=False)
    assert [low[0], high[0]] == pytest.approx(np.quantile(defined, [0.025, 0.975], method="weibull"), abs=1e-12)
    alone = Distribution(distribution.value, defined[:, None], distribution.left_out)
    assert limits(alone) == limits(distribution)
    assert correction_for(alone).bias == pytest.approx(correction_for(distribution).bias)


def test_an_empty_set_is_undefined():
    drawn = with_changed_images(0)
    found = estimates(drawn)
    for name in ("responsiveness", "robustness", "responsiveness_macro", "robustness_macro"):
        assert all(math.isnan(each) for each in found[name][0])
    assert found["flip_rate"] == [(0, 0, 0)]
    [difference] = differences(drawn, with_changed_images(50))["robustness"]
    assert all(math.isnan(each) for each in (*difference.estimate, difference.p_value))


def test_three_images_have_no_interval():
    values = [[0.1, 0.9], [0.5, 0.8], [0.7, 0.95], [0.6, 0.7]]
    for images, given in ((1, False), (3, False), (4, True)):
        drawn = bootstrap(one_pair_each(values[:images]), Resampling(images))
        assert math.isnan(estimates(drawn)["consistency"][0].low) != given
        assert math.isnan(differences(drawn.columns(0), drawn.columns(1))["consistency"][0].p_value) != given


def test_limits_of_a_score_stay_among_scores_that_the_images_can_have():
    values = np.array([[0.0]] * 3 + [[1.0]] * 2)
    distribution = bootstrap(one_pair_each(values), Resampling(5)).distribution("consistency")
    assert [float(each[0]) for each in limits(distribution)] == [0, 1]
    low, high = limits(distribution, how="percentile", extrapolated=True)
    assert low[0] <= 0
    assert high[0] >= 1


def test_support_counts_and_flags():
    similarity, same = measured(images=11, methods=2)
    found = support(pair_sums(similarity, same))
    for method in range(2):
        scored = ~np.isnan(similarity[:, method])
        assert found.same_count[method] == (scored & same).sum()
        assert found.changed_count[method] == (scored & ~same).sum()
        assert found.degenerate_count[method] == (~scored).sum()
        assert found.same_images[method] == (scored & same).any(axis=1).sum()
        assert found.changed_images[method] == (scored & ~same).any(axis=1).sum()


@pytest.mark.parametrize(("stayed", "changed", "low"), [(29, 40, True), (40, 29, True), (30, 30, False)])
def test_low_support_is_below_thirty_pairs_in_a_set(stayed, changed, low):
    same = np.arange(stayed + changed)[:, None] < stayed
    assert support(pair_sums(np.full((stayed + changed, 1, 1), 0.5), same)).low_support.tolist() == [low]


@pytest.mark.parametrize(("images", "low"), [(4, True), (9, True), (10, False)])
def test_low_support_is_below_ten_images_in_a_set_however_many_pairs(images, low):
    # Each of these images has 12 changed pairs, the others none.
    same = np.tile(np.arange(40)[:, None] >= images, 12)
    found = support(pair_sums(np.full((40, 1, 12), 0.5), same))
    assert (found.changed_count[0], found.changed_images[0]) == (12 * images, images)
    assert found.low_support.tolist() == [low]


def test_a_family_of_tests_gets_enough_resamples_to_find_something():
    for tests in (1, 25, 55, 190):
        resamples = enough_resamples(2000, tests=tests)
        assert resamples >= 2000
        assert tests * 2 / (resamples + 1) < 0.03
    assert enough_resamples(9000, tests=55) == 9000


@pytest.mark.parametrize("p", [0.2, 0.9])
def test_chance_overlap_is_that_of_random_rankings(p):
    generator = np.random.default_rng(3)
    for segments in (2, 5, 17):
        found = []
        for _ in range(2000):
            one, other = generator.permutation(segments), generator.permutation(segments)
            shared = [len({*one[:depth]} & {*other[:depth]}) / depth for depth in range(1, segments + 1)]
            found.append((1 - p) * sum(p**d * share for d, share in enumerate(shared)) + p**segments)
        assert chance_overlap(segments, p) == pytest.approx(np.mean(found), abs=4 * np.std(found) / math.sqrt(2000))
    assert np.isnan(chance_overlap([0, 1], p)).all()


def test_chance_floor_is_the_robustness_of_unrelated_maps():
    generator = np.random.default_rng(4)
    chance = chance_overlap(generator.integers(2, 40, size=300), 0.5)
    # Images with few segments (large b) lose their class more often, so the two sets see other images.
    same = generator.random((300, 8)) >= np.clip(3 * chance, 0, 0.8)[:, None]
    found = []
    for _ in range(300):
        unrelated = generator.beta(5 * chance[:, None], 5 * (1 - chance[:, None]), size=(300, 8))
        sums = pair_sums(unrelated[:, None], same)
        found.append(STATISTICS["robustness"](sums.total())[0])
    error = 4 * np.std(found) / math.sqrt(len(found))
    assert chance_floors(chance, sums)[0] == pytest.approx(np.mean(found), abs=error)
    # The sets being different matters here, and so does pooling before multiplying.
    assert abs(chance_floor(chance) - np.mean(found)) > 2 * error
    assert abs(np.mean(chance * (1 - chance)) - np.mean(found)) > 2 * error


def test_chance_floor_where_sets_are_alike():
    same = np.tile([True, False], (4, 3))
    sums = pair_sums(np.zeros((4, 1, 6)), same)
    chance = np.array([0.1, 0.2, 0.6, 0.3])
    assert chance_floors(chance, sums)[0] == pytest.approx(0.3 * 0.7)
    assert chance_floor(chance) == pytest.approx(0.3 * 0.7)


def test_unknown_chance_is_not_guessed():
    similarity = np.array([[[0.5, 0.5]], [[np.nan, np.nan]]])
    same = np.array([[True, False], [True, False]])
    # The second image has no scored pair, so nothing depends on it.
    assert chance_floors([0.2, np.nan], pair_sums(similarity, same))[0] == pytest.approx(0.16)
    assert np.isnan(chance_floors([np.nan, 0.2], pair_sums(similarity, same)))[0]
    assert np.isnan(chance_floors([0.2, 0.2], pair_sums(similarity, np.ones_like(same))))[0]
    assert math.isnan(chance_floor([np.nan, np.nan]))


def test_bad_input_is_named():
    similarity, same = measured()
    sums = pair_sums(similarity, same)
    drawn = bootstrap(sums, Resampling(12, resamples=100))
    with pytest.raises(ArgumentError, match=r"`similarity` must be \(images, methods, noises\)"):
        pair_sums(similarity[0], same)
    with pytest.raises(ArgumentError, match="bool"):
        pair_sums(similarity, same.astype(int))
    with pytest.raises(ArgumentError, match="infinite"):
        pair_sums(np.full((2, 1, 1), np.inf), np.ones((2, 1), dtype=bool))
    with pytest.raises(ArgumentError, match="100 or more"):
        Resampling(12, resamples=99)
    with pytest.raises(ArgumentError, match="1 or more"):
        Resampling(0)
    with pytest.raises(ArgumentError, match="of 13 images, `sums` of 12"):
        bootstrap(sums, Resampling(13))
    with pytest.raises(ArgumentError, match="share one `Resampling`"):
        differences(drawn, bootstrap(sums, Resampling(12, resamples=100, seed=1)))
    with pytest.raises(ArgumentError, match="as many columns"):
        differences(drawn, drawn.columns(0))
    with pytest.raises(UnknownNameError, match="'robustness'"):
        drawn.distribution("robustnes")
    with pytest.raises(ArgumentError, match="'bca' or 'percentile'"):
        estimates(drawn, how="basic")
    with pytest.raises(ArgumentError, match="`confidence`"):
        estimates(drawn, confidence=95)
    with pytest.raises(ArgumentError, match="two resamples or more in each tail"):
        estimates(drawn, confidence=0.99)
    with pytest.raises(ArgumentError, match="12 images"):
        chance_floors([0.1], sums)
    with pytest.raises(ArgumentError, match="`p`"):
        chance_overlap(5, 1.0)
    with pytest.raises(ArgumentError, match="same images"):
        side_by_side([sums, sums.images([0, 1])])
    with pytest.raises(ArgumentError, match="one shape"):
        PairSums(*(np.zeros((2, 3)),) * 4, np.zeros((2, 2)))
