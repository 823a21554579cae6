"""Whether rankings are compared rightly: against scipy, slow loops, and rankings planted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.conclusion import judge_stability, tau_matrix
from lightning_camrobust.study.outcomes import Noise, Outcomes
from lightning_camrobust.study.rankings import best_first, kendall_tau, order_signs, score_levels
from lightning_camrobust.study.settings import ranked_settings
from lightning_camrobust.study.statistics.bootstrap import Resampling
from lightning_camrobust.study.statistics.intervals import LEAST_IMAGES
from lightning_camrobust.study.swaps import find_swaps

METHODS = ("gradcam", "layercam", "eigencam")


def outcomes(seed=0, *, images=80, methods=METHODS, lead=(0.0, 0.05, 0.1), noises=5, kinds=None, spread=0.1):
    """Methods of which the later keep their maps better and change them more, by `lead`."""
    generator = np.random.default_rng(seed)
    same = generator.random((images, noises)) > 0.35
    level = generator.normal(0.55, 0.08, (images, 1, 1))
    toward = np.array(lead)[None, :, None] * np.where(same, 1, -1)[:, None]
    similarity = np.clip(level + toward + generator.normal(0, spread, (images, len(methods), noises)), 0, 1)
    kinds = kinds or ["photometric"] * noises
    classes = np.zeros(images, dtype=np.int64)
    return Outcomes(
        model="net",
        target_layer="layer4",
        data="pets",
        images=tuple(f"{row:04d}.png" for row in range(images)),
        labels=classes,
        methods=tuple(methods),
        noises=tuple(Noise(f"noise{column}", 1, kind) for column, kind in enumerate(kinds)),
        clean_classes=classes,
        noisy_classes=np.where(same, 0, 1),
        same=same,
        similarity=similarity,
        chance=np.full(images, 0.05),
    )


def slow_scores(similarity, same, rows=None, *, macro=False):
    """RM of each method by loops over pairs; images may repeat in `rows`."""
    scores = []
    for method in range(similarity.shape[1]):
        kept, changed, kept_means, changed_means = [], [], [], []
        for row in range(len(similarity)) if rows is None else rows:
            own_kept, own_changed = [], []
            for noise in range(similarity.shape[2]):
                value = similarity[row, method, noise]
                if math.isnan(value):
                    continue
                (own_kept if same[row, noise] else own_changed).append(value if same[row, noise] else 1 - value)
            kept += own_kept
            changed += own_changed
            kept_means += [sum(own_kept) / len(own_kept)] if own_kept else []
            changed_means += [sum(own_changed) / len(own_changed)] if own_changed else []
        one, other = (kept_means, changed_means) if macro else (kept, changed)
        scores.append(math.nan if not one or not other else sum(one) / len(one) * sum(other) / len(other))
    return np.array(scores)


def test_tau_equals_scipys_with_and_without_ties():
    generator = np.random.default_rng(1)
    for _ in range(300):
        count = generator.integers(2, 8)
        first, second = generator.integers(0, 4, (2, count)) / 10
        ours = kendall_tau(order_signs(first), order_signs(second))
        theirs = stats.kendalltau(first, second, variant="b").statistic
        assert float(ours) == pytest.approx(theirs, nan_ok=True, abs=1e-12)


def test_tau_of_many_rankings_at_once_equals_one_by_one():
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 3, (2, 40, 5)) / 7
    first[3, 2] = np.nan
    ours = kendall_tau(order_signs(first), order_signs(second))
    one_by_one = [stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert ours == pytest.approx(one_by_one, nan_ok=True, abs=1e-12)
    assert np.isnan(ours[3])


def test_rounding_never_orders_methods():
    assert score_levels(np.array([0.3, 0.1 + 0.2, 0.3 - 1e-16, 0.3 + 1e-6])).tolist() == [0, 0, 0, 1]
    assert score_levels(np.array([1e-17, 0.0, 1e-5])).tolist() == [0, 0, 1]
    # A chain of ties is one tie, so that ranks stay ranks.
    assert len(set(score_levels(np.array([0.5, 0.5 + 4e-10, 0.5 + 8e-10])).tolist())) == 1
    assert best_first(np.array([np.nan, 0.3, 0.3 + 1e-15, 0.4])) == [3, 1, 2, 0]


def test_scores_are_pooled_and_macro_ones_are_averaged_over_images():
    generator = np.random.default_rng(3)
    data = outcomes(3, images=30)
    similarity = data.similarity.copy()
    similarity[generator.random(similarity.shape) < 0.1] = np.nan
    other = np.clip(similarity + generator.normal(0, 0.2, similarity.shape), 0, 1)
    data = replace(data, similarity=similarity, readings={"p=0.9": other})
    rows = judge_stability(data, resamples=100).rows
    assert [row.label for row in rows] == ["main", "p=0.9", "averaging=macro"]
    assert rows[0].robustness == pytest.approx(slow_scores(similarity, data.same))
    assert rows[1].robustness == pytest.approx(slow_scores(other, data.same))
    assert rows[2].robustness == pytest.approx(slow_scores(similarity, data.same, macro=True))
    for row in rows:
        assert row.ranking == tuple(METHODS[each] for each in np.argsort(-np.array(row.robustness)))
        assert row.tau == pytest.approx(stats.kendalltau(rows[0].robustness, row.robustness).statistic)


def test_interval_of_tau_equals_a_slow_loop_over_the_same_resamples():
    data = outcomes(4, images=25, lead=(0.0, 0.0, 0.01, 0.02), methods=("a", "b", "c", "d"))
    other = np.clip(data.similarity + np.random.default_rng(4).normal(0, 0.1, data.similarity.shape), 0, 1)
    found = judge_stability(replace(data, readings={"p=0.9": other}), resamples=150, seed=7, confidence=0.9)
    taus = {"p=0.9": [], "averaging=macro": []}
    for weights in np.vstack(list(Resampling(25, 150, 7).weights())).astype(int):
        rows = np.repeat(np.arange(25), weights)
        main = slow_scores(data.similarity, data.same, rows)
        taus["p=0.9"].append(stats.kendalltau(main, slow_scores(other, data.same, rows)).statistic)
        macro = slow_scores(data.similarity, data.same, rows, macro=True)
        taus["averaging=macro"].append(stats.kendalltau(main, macro).statistic)
    for row in found.rows[1:]:
        low, high = np.quantile(taus[row.label], [0.05, 0.95])
        assert row.tau_interval == pytest.approx((row.tau, low, high), abs=1e-9)
    assert found.rows[0].tau_interval == (1.0, 1.0, 1.0)
    assert found.rows[1].tau_interval.low < found.rows[1].tau_interval.high


def test_a_reading_on_some_images_is_compared_with_the_main_one_on_these():
    data = outcomes(21, images=60, lead=(0.0, 0.1, 0.2))
    # On the first twenty images the order is the other way round; the reading only knows these.
    similarity = data.similarity.copy()
    similarity[:20] = outcomes(21, images=60, lead=(0.1, 0.05, 0.0)).similarity[:20]
    reading = np.where(np.arange(60)[:, None, None] < 20, similarity, np.nan)
    data = replace(data, similarity=similarity, readings={"segmenter=slic": reading})
    found = judge_stability(data)
    assert found.rows[1].num_images == 20
    assert found.rows[1].ranking == tuple(reversed(found.rows[0].ranking)) == METHODS
    assert found.rows[1].tau == 1.0
    assert found.stable
    assert tau_matrix(found.rows)[0, 1] == -1.0


def test_methods_equal_up_to_rounding_are_tied_and_never_reordered():
    data = outcomes(5, lead=(0.1, 0.1, 0.1, 0.0), methods=("gradcam", "xgradcam", "hirescam", "eigencam"))
    similarity = data.similarity.copy()
    dust = np.random.default_rng(5).normal(0, 1e-15, (2, 80, 2, 5))
    similarity[:, 1:3] = similarity[:, :1] + dust[0]
    reading = similarity**0.5
    reading[:, 1:3] = reading[:, :1] + dust[1]
    found = judge_stability(replace(data, similarity=similarity, readings={"p=0.9": reading}))
    assert found.stable
    assert found.reasons == ()
    for row in found.rows:
        assert row.ranking == ("gradcam", "xgradcam", "hirescam", "eigencam")
        assert row.tau == 1.0
        assert row.tau_interval == (1.0, 1.0, 1.0)


def test_a_planted_reversal_is_called_one_with_its_numbers():
    data = outcomes(6, images=200)
    found = judge_stability(replace(data, readings={"p=0.9": data.similarity[:, [1, 0, 2]], "same": data.similarity}))
    (reason,) = found.reasons
    assert not found.stable
    assert found.rows[1].tau == pytest.approx(1 / 3)
    low, high = found.rows[1].robustness[1], found.rows[1].robustness[0]
    assert reason.startswith("p=0.9: Kendall tau 0.33 (")
    assert f" < 0.8; gradcam ({high:.2f}) passes layercam ({low:.2f}), a reversal beyond chance: -" in reason


def test_a_swap_of_methods_that_do_not_differ_is_called_luck():
    data = outcomes(7, lead=(0.05, 0.05, 0.15), images=60)
    found = judge_stability(replace(data, readings={"ties=a": data.similarity[:, [1, 0, 2]]}))
    (reason,) = found.reasons
    assert reason.endswith(", not told apart in either setting.")
    assert "reversal" not in reason
    assert (found.stable, found.change) == (False, "chance")


def test_change_is_real_where_methods_told_apart_change_places_or_a_ranking_is_undefined():
    data = outcomes(7, lead=(0.05, 0.05, 0.15), images=60)
    luck = data.similarity[:, [1, 0, 2]]
    broken = luck.copy()
    broken[:, 1] = np.nan
    readings = {
        "none": {"same": data.similarity},
        "chance": {"same": data.similarity, "luck": luck},
        "real": {"luck": luck, "turned": data.similarity[:, [2, 1, 0]]},
    }
    for change, given in readings.items():
        assert judge_stability(replace(data, readings=given)).change == change
    assert judge_stability(replace(data, readings={"luck": luck, "broken": broken})).change == "real"
    # One setting tells the two apart: their change of places is not luck.
    pair = outcomes(8, images=300, methods=("a", "b"), lead=(0.0, 0.05))
    nothing = outcomes(8, images=300, methods=("a", "b"), lead=(0.004, 0.0))
    found = judge_stability(replace(pair, same=nothing.same, readings={"x": nothing.similarity}))
    assert (found.stable, found.change) == (False, "real")


def test_a_difference_seen_in_one_setting_only_is_neither():
    data = outcomes(8, images=300, methods=("a", "b"), lead=(0.0, 0.05))
    nothing = outcomes(8, images=300, methods=("a", "b"), lead=(0.004, 0.0))
    settings = ranked_settings(replace(data, same=nothing.same, readings={"x": nothing.similarity}))
    (swap,) = find_swaps(settings[1])
    assert swap.told_apart == "main"
    assert str(swap).startswith("a (")
    (back,) = find_swaps(replace(settings[0], reference=settings[1]))
    assert back.told_apart == "here"


@pytest.mark.parametrize("step", [0.01, -0.01])
def test_swaps_between_settings_agree_with_a_plain_comparison(step):
    data = outcomes(9, methods=tuple("abcdef"), lead=tuple(step * np.arange(6)), images=40)
    settings = ranked_settings(replace(data, readings={"x": data.similarity[:, ::-1], "y": data.similarity}))
    main, other = settings[0].robustness.value, settings[1].robustness.value
    expected = {
        frozenset((a, b)) for i, a in enumerate("abcdef") for j, b in enumerate("abcdef")
        if (main[i] - main[j]) * (other[i] - other[j]) < 0
    }  # fmt: skip
    swaps = find_swaps(settings[1])
    assert {frozenset((swap.ahead, swap.behind)) for swap in swaps} == expected
    for swap in swaps:
        ahead, behind = "abcdef".index(swap.ahead), "abcdef".index(swap.behind)
        assert swap.before.value == pytest.approx(main[ahead] - main[behind])
        assert swap.after.value == pytest.approx(other[ahead] - other[behind])
        assert swap.before.value < 0 < swap.after.value
        assert swap.before.low <= swap.before.value <= swap.before.high
    assert find_swaps(settings[2]) == ()
    order = [swap.told_apart for swap in swaps]
    assert order == sorted(order, key=["both", "main", "here", "neither"].index)


def test_ties_that_form_or_break_are_named():
    data = outcomes(10, methods=("a", "b"), lead=(0.0, 0.1), images=100)
    tied = data.similarity[:, [1, 1]]
    settings = ranked_settings(replace(data, readings={"x": tied}))
    (formed,) = find_swaps(settings[1])
    assert (formed.tie, formed.told_apart) == ("after", "main")
    assert "tie here" in str(formed)
    (broken,) = find_swaps(replace(settings[0], reference=settings[1]))
    assert (broken.tie, broken.told_apart, broken.ahead) == ("before", "here", "b")
    assert "no longer ties with" in str(broken)
    found = judge_stability(replace(data, readings={"x": tied}))
    assert np.isnan(found.rows[1].tau)
    assert "x: Kendall tau is undefined; all methods have one RM (0." in found.reasons[0]
    assert not found.stable


def test_a_tie_by_rounding_counts_as_no_difference_though_its_interval_leaves_zero_out():
    data = outcomes(22, methods=("a", "b"), lead=(0.0, 0.1), images=100)
    tied = data.similarity[:, [0, 0]] + np.where(data.same, 3e-11, -3e-11)[:, None] * np.array([0, 1])[None, :, None]
    settings = ranked_settings(replace(data, readings={"x": tied}))
    (formed,) = find_swaps(settings[1])
    assert formed.after.high < 0 or formed.after.low > 0
    assert (formed.tie, formed.told_apart) == ("after", "main")
    (broken,) = find_swaps(replace(settings[0], reference=settings[1]))
    assert (broken.tie, broken.told_apart) == ("before", "here")


def test_macro_averaging_can_overturn_the_ranking():
    # Image 0 has nine kept pairs, the others one: pooled, it decides; per image, it does not.
    same = np.zeros((10, 10), dtype=bool)
    same[0, :9], same[1:, 0] = True, True
    similarity = np.full((10, 2, 10), 0.5)
    similarity[0, :, :9] = np.array([0.9, 0.1])[:, None]
    similarity[1:, :, 0] = [0.3, 0.8]
    data = replace(outcomes(images=10, methods=("a", "b"), lead=(0, 0), noises=10), same=same, similarity=similarity)
    main, macro = judge_stability(data).rows
    assert main.ranking == ("a", "b")
    assert macro.ranking == ("b", "a")
    assert macro.tau == -1.0


def test_without_flips_nothing_is_ranked_and_the_reason_says_why():
    data = replace(outcomes(11), same=np.ones((80, 5), dtype=bool))
    found = judge_stability(replace(data, readings={"p=0.9": data.similarity}))
    assert not found.stable
    assert all(math.isnan(row.tau) and math.isnan(row.tau_interval.low) for row in found.rows)
    assert np.isnan(found.rows[0].robustness).all()
    (reason,) = found.reasons
    assert "RM of gradcam, layercam, eigencam is undefined, as no scored pair changed its class" in reason


def test_a_method_undefined_in_one_setting_only():
    data = outcomes(12)
    reading = data.similarity.copy()
    reading[:, 1] = np.nan
    found = judge_stability(replace(data, readings={"p=0.9": reading}))
    assert not found.stable
    assert math.isnan(found.rows[1].tau)
    assert found.rows[1].ranking[-1] == "layercam"
    assert found.rows[1].num_images == 0
    assert found.reasons == (
        "p=0.9: Kendall tau is undefined; RM of layercam is undefined, as no pair of maps could be scored.",
    )
    assert found.rows[2].tau == 1.0


def test_only_photometric_noises_are_ranked_if_there_are_any():
    kinds = ["geometric", "photometric", "attack", "photometric", "gradient"]
    data = outcomes(13, kinds=kinds)
    spoilt = data.similarity.copy()
    spoilt[:, :, [0, 2, 4]] = np.random.default_rng(0).random((80, 3, 3))
    assert judge_stability(data) == judge_stability(replace(data, similarity=spoilt))
    assert judge_stability(data).rows == judge_stability(data.of_kind("photometric")).rows


def test_other_kinds_are_ranked_alone_and_reasons_say_so():
    data = outcomes(14, kinds=["attack", "geometric", "attack", "geometric", "attack"])
    found = judge_stability(replace(data, readings={"p=0.9": data.similarity[:, ::-1]}))
    assert found.rows[0].robustness == pytest.approx(slow_scores(data.similarity[:, :, ::2], data.same[:, ::2]))
    assert found.reasons[0].startswith("p=0.9 (attack noises, as no photometric one was measured): Kendall tau -1.00")


def test_number_of_images_is_that_of_the_method_with_fewest():
    data = outcomes(15)
    similarity = data.similarity.copy()
    similarity[10:, 2] = np.nan
    assert {row.num_images for row in judge_stability(replace(data, similarity=similarity)).rows} == {10}


def test_few_images_get_no_interval():
    row = judge_stability(outcomes(16, images=LEAST_IMAGES - 1)).rows[0]
    assert math.isnan(row.tau_interval.low)
    assert math.isnan(row.tau_interval.high)


def test_order_of_images_and_scale_do_not_matter_but_the_seed_does():
    data = outcomes(17, lead=(0, 0.01, 0.02))
    reading = np.clip(data.similarity + np.random.default_rng(1).normal(0, 0.2, data.similarity.shape), 0, 1)
    data = replace(data, readings={"x": reading})
    rows = judge_stability(data, seed=1).rows
    shuffled = judge_stability(data.of_images(np.random.default_rng(0).permutation(80)), seed=1).rows
    assert [row.tau for row in rows] == [row.tau for row in shuffled]
    assert rows == judge_stability(data, seed=1).rows
    assert judge_stability(data).rows[0].ranking == rows[0].ranking


def test_matrix_equals_scipy_and_is_symmetric():
    generator = np.random.default_rng(18)
    data = outcomes(18, methods=tuple("abcde"), lead=(0,) * 5)
    readings = {f"x{each}": generator.random(data.similarity.shape) for each in range(3)}
    readings["x1"][:, 2] = np.nan
    rows = judge_stability(replace(data, readings=readings), resamples=100).rows
    matrix = tau_matrix(rows)
    for one, first in enumerate(rows):
        for two, second in enumerate(rows):
            expected = stats.kendalltau(first.robustness, second.robustness).statistic
            assert matrix[one, two] == pytest.approx(expected, nan_ok=True)
    assert matrix[0] == pytest.approx([row.tau for row in rows], nan_ok=True)


def test_long_lists_of_swaps_are_cut_and_counted():
    data = outcomes(19, methods=tuple("abcdef"), lead=(0, 0.04, 0.08, 0.12, 0.16, 0.2), images=100)
    (reason,) = judge_stability(replace(data, readings={"x": data.similarity[:, ::-1]})).reasons
    assert reason.count(" passes ") == 3
    assert "and 12 more pairs (" in reason


def test_bad_input_is_refused():
    data = outcomes(20, images=10)
    one = replace(data, methods=("gradcam",), similarity=data.similarity[:, :1])
    for wrong in (one, data.of_images(np.zeros(10, dtype=bool)), data.of_noises([False] * 5)):
        with pytest.raises(ArgumentError, match="Measure"):
            judge_stability(wrong)
    for label, shape in (("main", (10, 3, 5)), ("averaging=macro", (10, 3, 5)), ("p=0.9", (10, 3, 4))):
        with pytest.raises(ArgumentError, match="readings"):
            judge_stability(replace(data.of_noises([True] * 5), readings={label: np.zeros(shape)}))
    for limit in (1.5, math.nan):
        with pytest.raises(ArgumentError, match="least_tau"):
            judge_stability(data, least_tau=limit)
    with pytest.raises(ArgumentError, match="confidence"):
        judge_stability(data, confidence=95)
