"""Whether two models are compared rightly: against slow loops, scipy and statsmodels, and on equal models."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.study.class_changes import change_by_class, kept_similarities, most_changed_images
from lightning_camrobust.study.difference import compare_models, conclude_all, measure_difference
from lightning_camrobust.study.outcomes import Noise, Outcomes
from lightning_camrobust.study.page.sentences import pair_words
from lightning_camrobust.study.paired import paired_outcomes

MEASURES = ("robustness", "consistency", "responsiveness", "flip_rate")
NOISES = (Noise("fog", 1), Noise("fog", 3), Noise("rain", 1), Noise("turn", 1, "geometric"), Noise("rain", 3))


def two_models(seed=0, *, images=60, kept=0.0, changed=0.0, flips=(0.35, 0.35), methods=("gradcam", "eigencam")):
    """Models on one set of images, of which the second keeps its maps better by `kept`, changes them by `changed`."""
    generator = np.random.default_rng(seed)
    # Images differ in how easily a prediction on them flips, and in how stable maps on them are.
    fragile = generator.uniform(0.3, 1.7, (images, 1))
    level, labels = generator.normal(0.5, 0.1, (images, 1, 1)), generator.integers(0, 3, images)
    made = []
    for name, gains, flip in zip(("old", "new"), ((0.0, 0.0), (kept, changed)), flips, strict=True):
        own = level + generator.normal(0, 0.06, (images, 1, 1))
        same = generator.random((images, len(NOISES))) > flip * fragile
        gain = np.where(same, gains[0], -gains[1])[:, None]
        similarity = own + gain + generator.normal(0, 0.1, (images, len(methods), len(NOISES)))
        made.append(
            Outcomes(
                model=name,
                target_layer="layer4",
                data="pets",
                images=tuple(f"{row:04d}.png" for row in range(images)),
                labels=labels,
                methods=methods,
                noises=NOISES,
                clean_classes=labels,
                noisy_classes=np.where(same, labels[:, None], 9),
                same=same,
                similarity=np.clip(similarity, 0, 1),
                chance=np.full(images, 0.05),
            )
        )
    return made


def slow_scores(model, method, kind="photometric"):
    """RM, C, R and flip rate by a loop over pairs."""
    column = model.methods.index(method)
    kept, changed = [], []
    for row in range(len(model.images)):
        for place, noise in enumerate(model.noises):
            value = model.similarity[row, column, place]
            if noise.kind != kind or math.isnan(value):
                continue
            (kept if model.same[row, place] else changed).append(value if model.same[row, place] else 1 - value)
    consistency, responsiveness = sum(kept) / len(kept), sum(changed) / len(changed)
    return consistency * responsiveness, consistency, responsiveness, len(changed) / (len(kept) + len(changed))


def slow_image_means(model, method, *, kept):
    column, means = model.methods.index(method), []
    for row in range(len(model.images)):
        values = [
            model.similarity[row, column, place] if kept else 1 - model.similarity[row, column, place]
            for place, noise in enumerate(model.noises)
            if noise.kind == "photometric" and model.same[row, place] == kept
        ]
        values = [value for value in values if not math.isnan(value)]
        means.append(sum(values) / len(values) if values else math.nan)
    return np.array(means)


def with_gaps(model, seed):
    holes = np.random.default_rng(seed).random(model.similarity.shape) < 0.1
    return replace(model, similarity=np.where(holes, np.nan, model.similarity))


def shuffled(model, seed):
    generator = np.random.default_rng(seed)
    model = model.of_images(generator.permutation(len(model.images)))
    order = generator.permutation(len(model.noises))
    return replace(
        model,
        noises=tuple(model.noises[each] for each in order),
        noisy_classes=model.noisy_classes[:, order],
        same=model.same[:, order],
        similarity=model.similarity[:, :, order],
    )


@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_differences_equal_slow_loops(method):
    first, second = (with_gaps(each, seed) for seed, each in enumerate(two_models(1, kept=0.1)))
    found = compare_models(first, second, method=method)
    assert (found.first, found.second, found.method, found.num_images) == ("old", "new", method, 60)
    assert tuple(row.measure for row in found.rows) == (*MEASURES, "consistency", "responsiveness")
    expected = np.array(slow_scores(second, method)) - np.array(slow_scores(first, method))
    assert [row.difference.value for row in found.rows[:4]] == pytest.approx(expected)
    for row in found.rows[:4]:
        assert row.difference.low < row.difference.value < row.difference.high
        assert math.isnan(row.effect)
        assert (row.p_value < 0.05) == (row.difference.low > 0 or row.difference.high < 0)
        assert (row.first, row.second, row.test) == ("new", "old", "cluster bootstrap")


def test_wilcoxon_rows_equal_scipy_and_effects_a_sum_of_ranks():
    first, second = (with_gaps(each, seed) for seed, each in enumerate(two_models(2, kept=0.05)))
    for row, kept in zip(compare_models(first, second).rows[4:], (True, False), strict=True):
        change = slow_image_means(second, "gradcam", kept=kept) - slow_image_means(first, "gradcam", kept=kept)
        change = change[~np.isnan(change)]
        ranks = stats.rankdata(np.abs(change))
        assert row.test == "Wilcoxon"
        assert row.num_images == len(change)
        assert row.difference.value == pytest.approx(change.mean(), abs=1e-8)
        assert row.p_value == pytest.approx(stats.wilcoxon(change).pvalue, rel=1e-6)
        assert row.effect == pytest.approx((np.sign(change) * ranks).sum() / ranks.sum())


def test_the_primary_test_stands_alone_and_holm_counts_the_secondary_ones_that_were_made():
    first, second = two_models(3, kept=0.04)
    rows = compare_models(first, second).rows
    assert rows[0].p_adjusted == rows[0].p_value
    expected = multipletests([row.p_value for row in rows[1:]], method="holm")[1]
    assert [row.p_adjusted for row in rows[1:]] == pytest.approx(expected)
    unflipped = [replace(each, same=np.ones_like(each.same)) for each in (first, second)]
    rows = compare_models(*unflipped).rows
    made = [row.p_value for row in rows if not math.isnan(row.p_value)]
    assert len(made) == 3
    assert math.isnan(rows[0].p_adjusted)
    expected = multipletests(made, method="holm")[1]
    assert [row.p_adjusted for row in rows if not math.isnan(row.p_value)] == pytest.approx(expected)


def test_primary_tests_are_corrected_over_the_pairs_of_models_and_verdict_and_page_words_agree():
    first, second = two_models(20, images=150, kept=0.1, changed=0.1)
    compared = [measure_difference(first, second), *(measure_difference(*two_models(seed)) for seed in (3, 21))]
    compared.append(measure_difference(first, replace(second, same=np.ones_like(second.same))))
    found = conclude_all(compared)
    p_values = [each.rows[0].p_value for each in found]
    expected = [*multipletests(p_values[:3], method="holm")[1], math.nan]
    assert [each.rows[0].p_adjusted for each in found] == pytest.approx(expected, nan_ok=True)
    for each, alone in zip(found, compared, strict=True):
        assert each.rows[1:] == alone.rows[1:] or math.isnan(each.rows[0].p_value)
    assert f"({expected[1]:.3f} after Holm's correction over 3 pairs of models)" in found[1].verdict
    # Whatever the number of pairs of models, the sentence and the table decide by one number.
    for p_adjusted in (0.01, 0.049, 0.051):
        each = compared[0].conclude(p_adjusted=p_adjusted, num_pairs=3)
        assert ("are more robust" in each.verdict) == (pair_words(each.rows[0]) == "differ") == (p_adjusted < 0.05)


@pytest.mark.parametrize("seed", range(6))
def test_the_verdict_and_the_words_of_the_page_agree_when_p_is_near_the_level(seed):
    found = compare_models(*two_models(40 + seed, images=60, kept=0.045))
    said = "are more robust" in found.verdict or "are less robust" in found.verdict
    assert said == (pair_words(found.rows[0]) == "differ")
    assert said == (found.rows[0].p_value < 0.05)


def flipping_elsewhere():
    """Models with equal maps of which the one loses its prediction under weak noise, the other under the strong."""
    first, _ = two_models(33, images=120)
    first = first.of_noises([True, True, True, False, True])
    similarity = np.clip(np.where(np.arange(4) % 2, 0.3, 0.85) + (first.similarity - 0.5) / 4, 0, 1)
    odd = np.broadcast_to(np.arange(4) % 2 == 1, first.same.shape)
    made = [(first, ~odd), (replace(first, model="new"), odd)]
    return [replace(each, same=same, similarity=similarity) for each, same in made]


def test_verdict_says_when_models_change_their_predictions_under_different_noises():
    old, new = flipping_elsewhere()
    mixed = np.arange(120) < 40
    new = replace(new, same=np.where(mixed[:, None], old.same, new.same))
    found = compare_models(old, new)
    assert "new's explanations are less robust than old's" in found.verdict
    assert found.rows[3].difference.value == 0
    assert "on 66.7% of the pairs only one of the models changes its prediction" in found.verdict
    assert (
        "on those that both models keep the similarity changes by +0.00 (+0.00 to +0.00), which does" in found.verdict
    )
    never = compare_models(*flipping_elsewhere()).verdict
    assert "on 100.0% of the pairs only one" in never
    assert "no scored pair is kept by both models" in never
    assert "nan" not in never
    alike = compare_models(old, replace(old, model="new", similarity=old.similarity * 0.9)).verdict
    assert "only one of the models changes" not in alike


def test_verdict_says_when_the_common_pairs_speak_against_it():
    # The second model keeps the easy pairs only; on these, its maps are worse.
    old, new = (each.of_kind("photometric") for each in two_models(34, images=200))
    hard = np.tile([False, True, False, True], (200, 1))
    easy = np.where(hard, 0.2, 0.9)[:, None] + np.zeros_like(old.similarity)
    noise = np.random.default_rng(0).normal(0, 0.02, easy.shape)
    last = np.arange(4) == 3
    old = replace(old, same=np.broadcast_to(~last, hard.shape).copy(), similarity=easy + noise)
    new = replace(new, same=~hard, similarity=easy - 0.05 * ~hard[:, None] - noise)
    verdict = compare_models(old, new).verdict
    assert "new's explanations are more robust" in verdict
    assert re.search(r"on those that both models keep the similarity changes by -0\.05 \(.*\), which speaks", verdict)


def test_interval_agrees_with_a_slow_bootstrap_that_draws_images_for_both_models_at_once():
    first, second = two_models(4, images=150, kept=0.05)
    rows = compare_models(first, second, resamples=4000).rows
    generator, replicates = np.random.default_rng(99), []
    for _ in range(400):
        drawn = generator.integers(0, 150, 150)
        one, other = (slow_scores(each.of_images(drawn), "gradcam") for each in (first, second))
        replicates.append(np.subtract(other, one))
    for row, (low, high) in zip(rows[:4], np.quantile(replicates, [0.025, 0.975], axis=0).T, strict=True):
        assert row.difference.low == pytest.approx(low, abs=0.15 * (high - low))
        assert row.difference.high == pytest.approx(high, abs=0.15 * (high - low))
    # Images are paired: drawn apart, the interval of C would be wider, as both models share stable and unstable images.
    apart = [
        slow_scores(second.of_images(one), "gradcam")[1] - slow_scores(first.of_images(other), "gradcam")[1]
        for one, other in generator.integers(0, 150, (400, 2, 150))
    ]
    assert np.std(np.array(replicates)[:, 1]) < 0.8 * np.std(apart)


def test_swapping_the_models_turns_all_signs():
    first, second = two_models(5, kept=0.05, changed=0.05)
    one, other = compare_models(first, second), compare_models(second, first)
    for row, back in zip(one.rows, other.rows, strict=True):
        assert back.difference.value == pytest.approx(-row.difference.value)
        assert back.difference.low == pytest.approx(-row.difference.high, abs=2e-4)
        assert back.p_value == pytest.approx(row.p_value, abs=2e-3)
        assert (back.first, back.second) == (row.second, row.first)
    for row, back in zip(one.classes, other.classes, strict=True):
        assert (back.label, back.difference.value) == (row.label, -row.difference.value)
    assert [each.image for each in one.worse] == [each.image for each in other.better]
    assert "more robust than old's" in one.verdict
    assert "less robust than new's" in other.verdict


def test_order_of_images_and_noises_does_not_matter():
    first, second = two_models(6, kept=0.03)
    straight = compare_models(first, second)
    crooked = compare_models(first, shuffled(second, 0))
    assert repr(crooked) == repr(straight)  # every digit; NaN, which equals nothing, among them
    both = compare_models(shuffled(first, 1), shuffled(second, 2))
    assert both.verdict == straight.verdict
    assert both.worse == pytest.approx(straight.worse) or [x.image for x in both.worse] == [
        x.image for x in straight.worse
    ]
    for row, other in zip(straight.rows, both.rows, strict=True):
        assert tuple(other.difference) == pytest.approx(tuple(row.difference), abs=1e-9)
        assert other.p_value == pytest.approx(row.p_value, abs=1e-6)


def test_matching_by_hand():
    first, second = two_models(7, images=4)
    second = second.of_images(np.array([3, 1, 0]))
    second = replace(
        second,
        images=("d.png", "0001.png", "0000.png"),
        noises=(*NOISES[:4], Noise("rain", 5)),
        methods=("layercam", "gradcam"),
        readings={"p=0.9": second.similarity + 1, "only": second.similarity},
    )
    first = replace(first, readings={"p=0.9": first.similarity + 2, "ties=a": first.similarity})
    one, other = paired_outcomes(first, second)
    assert one.images == other.images == ("0000.png", "0001.png")
    assert one.noises == other.noises == NOISES[:4]
    assert one.methods == other.methods == ("gradcam",)
    assert np.array_equal(one.similarity, first.similarity[:2, :1, :4])
    assert np.array_equal(other.similarity, second.similarity[[2, 1], 1:, :4])
    assert np.array_equal(other.same, second.same[[2, 1], :4])
    assert np.array_equal(other.noisy_classes, second.noisy_classes[[2, 1], :4])
    assert np.array_equal(other.clean_classes, second.clean_classes[[2, 1]])
    assert list(one.readings) == list(other.readings) == ["p=0.9"]
    assert np.array_equal(other.readings["p=0.9"], other.similarity + 1)


def test_what_cannot_be_matched_is_refused():
    first, second = two_models(8, images=10)
    twice = replace(second, images=("0000.png", *second.images[:9]))
    with pytest.raises(ArgumentError, match=r"`second`: every image must occur once.*'0000.png' occurs 2"):
        compare_models(first, twice)
    with pytest.raises(ArgumentError, match="`first`: every image"):
        compare_models(twice, first)
    with pytest.raises(ArgumentError, match="every noise must occur once"):
        compare_models(first, replace(second, noises=(NOISES[0], *NOISES[:4])))
    with pytest.raises(ArgumentError, match="one data set, got 'pets' and 'birds'"):
        compare_models(first, replace(second, data="birds"))
    with pytest.raises(ArgumentError, match="share no image"):
        compare_models(first, replace(second, images=tuple("abcdefghij")))
    with pytest.raises(ArgumentError, match=r"share no noise.*\(geometric\)"):
        compare_models(first.of_kind("geometric"), second.of_kind("photometric"))
    with pytest.raises(ArgumentError, match=r"share no photometric noise; they share geometric"):
        compare_models(first.of_kind("geometric"), second)
    with pytest.raises(ArgumentError, match="share no CAM method"):
        compare_models(first, replace(second, methods=("a", "b")))
    with pytest.raises(ArgumentError, match=r"another labelling: image '0003.png' has the label \d in the first and 7"):
        compare_models(first, replace(second, labels=np.where(np.arange(10) == 3, 7, second.labels)))
    with pytest.raises(UnknownNameError, match="the second model 'new' was not measured with 'eigencam'"):
        compare_models(first, replace(second, methods=("gradcam", "layercam")), method="eigencam")
    for wrong in ({"num_images": -1}, {"confidence": 2.0}, {"resamples": 5}):
        with pytest.raises(ArgumentError):
            compare_models(first, second, **wrong)


def test_a_method_that_was_never_scored_is_refused_and_a_partly_scored_one_restricted():
    first, second = two_models(9, kept=0.1)
    nothing = np.full_like(second.similarity, np.nan)
    with pytest.raises(ArgumentError, match="None of the 60 images"):
        compare_models(first, replace(second, similarity=nothing))
    part = second.similarity.copy()
    part[20:] = np.nan
    found = compare_models(first, replace(second, similarity=part))
    plain = compare_models(first.of_images(np.arange(20)), second.of_images(np.arange(20)))
    assert found.num_images == 20
    assert repr(found.rows) == repr(plain.rows)
    assert repr(found.classes) == repr(plain.classes)
    assert "20 images (left out: 40 without a scored pair in one of them)" in found.verdict


def test_what_was_left_out_is_counted():
    first, second = two_models(10)
    second = second.of_images(np.arange(5, 60))
    first = first.of_noises([True, True, True, True, False]).of_images(np.arange(57))
    verdict = compare_models(first, second).verdict
    assert verdict.endswith("52 images (left out: 5 only in old, 3 only in new), 3 noises (left out: 1 only in new).")


def test_unknown_labels_are_filled_in_from_the_other_model():
    first, second = two_models(11)
    found = compare_models(replace(first, labels=np.full(60, -1)), second)
    assert found.classes == compare_models(first, second).classes
    both = [replace(each, labels=np.full(60, -1)) for each in (first, second)]
    assert compare_models(*both).classes == ()


def test_kinds_are_kept_apart():
    first, second = two_models(12, images=100)
    expected = np.subtract(*(slow_scores(each, "gradcam", "geometric") for each in (second, first)))
    found = compare_models(first, second, kind="geometric")
    assert [row.difference.value for row in found.rows[:4]] == pytest.approx(expected)
    assert "under geometric noise with gradcam" in found.verdict


def slow_kept_means(first, second):
    means = []
    for row in range(len(first.images)):
        pairs = [
            (first.similarity[row, 0, place], second.similarity[row, 0, place])
            for place, noise in enumerate(first.noises)
            if noise.kind == "photometric" and first.same[row, place] and second.same[row, place]
        ]
        pairs = [pair for pair in pairs if not math.isnan(sum(pair))]
        means.append(tuple(sum(side) / len(pairs) for side in zip(*pairs, strict=True)) if pairs else (math.nan,) * 2)
    return np.array(means)


def test_classes_rest_on_pairs_that_both_kept():
    first, second = (with_gaps(each, seed) for seed, each in enumerate(two_models(13, images=70, kept=0.05)))
    labels = np.where(np.arange(70) < 4, 8, np.where(np.arange(70) < 5, -1, first.labels))
    first, second = replace(first, labels=labels), replace(second, labels=labels)
    classes = compare_models(first, second).classes
    means = slow_kept_means(first, second)
    change = means[:, 1] - means[:, 0]
    expected = {}
    for label in (0, 1, 2, 8):
        own = change[(labels == label) & ~np.isnan(change)]
        expected[label] = (len(own), own.mean(), stats.wilcoxon(own).pvalue if len(own) >= 6 else math.nan)
    tested = sorted((label for label in (0, 1, 2)), key=lambda label: -abs(expected[label][1]))
    assert [each.label for each in classes] == [*tested, 8]
    for each in classes:
        count, mean, p_value = expected[each.label]
        assert each.num_images == count
        assert each.difference.value == pytest.approx(mean, abs=1e-8)
        assert each.p_value == pytest.approx(p_value, rel=1e-6, nan_ok=True)
    adjusted = multipletests([expected[label][2] for label in tested], method="holm")[1]
    assert [each.p_adjusted for each in classes[:3]] == pytest.approx(adjusted)
    own = change[(labels == tested[0]) & ~np.isnan(change)]
    interval = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    assert tuple(classes[0].difference[1:]) == pytest.approx(tuple(interval), abs=1e-8)
    assert math.isnan(classes[-1].p_adjusted)
    assert math.isnan(classes[-1].difference.low)


def test_classes_without_a_comparable_pair_are_still_listed():
    first, second = two_models(14, images=20)
    labels = np.where(np.arange(20) < 10, 0, 1)
    first = replace(first, same=first.same | (labels[:, None] == 0))
    second = replace(second, same=np.where(labels[:, None] == 1, ~first.same, True))
    first, second = replace(first, labels=labels), replace(second, labels=labels)
    found = compare_models(first, second)
    assert [(each.label, each.num_images) for each in found.classes] == [(0, 10), (1, 0)]
    assert math.isnan(found.classes[1].difference.value)
    assert {each.label for each in (*found.worse, *found.better)} == {0}


def test_a_single_class_and_equal_models():
    first, second = two_models(15)
    labels = np.full(60, 4)
    first, second = replace(first, labels=labels), replace(second, labels=labels)
    (only,) = compare_models(first, second).classes
    assert only.label == 4
    assert only.p_adjusted == only.p_value
    same = compare_models(first, replace(shuffled(first, 3), model="copy"))
    assert same.verdict.startswith("No difference at all between copy's and old's explanations")
    assert [row.difference.value for row in same.rows] == [0.0] * 6
    assert [row.p_value for row in same.rows] == [1.0] * 6
    assert same.classes[0].p_value == 1.0
    assert same.worse == same.better == ()


def test_most_changed_images_with_ties_by_name():
    first, _ = two_models(16, images=8)
    before = np.full(8, 0.5)
    after = np.array([0.5, 0.2, 0.2 + 1e-15, 0.4, 0.9, math.nan, 0.9 - 1e-15, 0.6])
    first = replace(first, images=("h", "g", "a", "b", "f", "c", "d", "e"))
    worse, better = most_changed_images(first, (before, after), count=8)
    assert [each.image for each in worse] == ["a", "g", "b"]
    assert [each.image for each in better] == ["d", "f", "e"]
    assert (better[2].first, better[2].second, better[2].label) == (0.5, 0.6, first.labels[7])
    worse, better = most_changed_images(first, (before, after), count=1)
    assert [each.image for each in (*worse, *better)] == ["a", "d"]
    assert most_changed_images(first, (before, after), count=0) == ((), ())


def test_images_equal_a_slow_search():
    first, second = (with_gaps(each, seed) for seed, each in enumerate(two_models(17)))
    found = compare_models(first, second, num_images=5)
    means = slow_kept_means(first, second)
    order = [row for row in np.argsort(means[:, 1] - means[:, 0]) if not math.isnan(means[row, 0])]
    assert [each.image for each in found.worse] == [first.images[row] for row in order[:5]]
    assert [each.image for each in found.better] == [first.images[row] for row in order[::-1][:5]]
    assert (found.worse[0].first, found.worse[0].second) == pytest.approx(tuple(means[order[0]]))


def test_classes_equally_changed_come_by_number():
    first, _ = two_models(18, images=18)
    first = replace(first, labels=np.repeat([5, 2, 7], 6))
    after = np.tile([0.6, 0.7, 0.8, 0.65, 0.75, 0.85], 3)
    classes = change_by_class(first, (np.full(18, 0.5), after), confidence=0.95)
    assert [each.label for each in classes] == [2, 5, 7]
    assert [each.p_value for each in classes] == [0.03125] * 3
    assert [each.p_adjusted for each in classes] == [3 * 0.03125] * 3


def test_five_images_are_not_tested_and_six_are():
    first, _ = two_models(32, images=11)
    first = replace(first, labels=np.repeat([0, 1], [5, 6]))
    after = np.concatenate([[0.9, 0.8, 0.95, 0.85, 0.7], [0.51, 0.52, 0.53, 0.54, 0.55, 0.56]])
    six, five = change_by_class(first, (np.full(11, 0.5), after), confidence=0.95)
    assert (six.label, six.num_images, six.p_value) == (1, 6, 0.03125)
    assert (five.label, five.num_images) == (0, 5)
    assert math.isnan(five.p_value)
    assert math.isnan(five.p_adjusted)
    assert five.difference.value == pytest.approx(0.34)
    assert six.p_adjusted == six.p_value


def test_kept_similarities_need_both_models_and_both_maps():
    first, second = two_models(19, images=3)
    first = replace(first, similarity=np.full_like(first.similarity, 0.8), same=np.ones_like(first.same))
    similarity, same = np.full_like(first.similarity, 0.6), np.ones_like(first.same)
    similarity[0, 0, 1:], same[1, :4], similarity[1, 0, 4] = np.nan, False, 0.1
    same[2] = False
    before, after = kept_similarities(first, replace(second, similarity=similarity, same=same), method="gradcam")
    assert before == pytest.approx([0.8, 0.8, math.nan], nan_ok=True)
    assert after == pytest.approx([0.6, 0.1, math.nan], nan_ok=True)


def test_verdict_says_more_less_or_nothing():
    first, second = two_models(20, images=150, kept=0.1, changed=0.1)
    found = compare_models(first, second)
    value, low, high = found.rows[0].difference
    one, other = slow_scores(first, "gradcam")[0], slow_scores(second, "gradcam")[0]
    assert found.verdict.startswith(
        "new's explanations are more robust than old's under photometric noise with gradcam: "
        f"RM {other:.2f} against {one:.2f}, difference {value:+.2f} ({low:+.2f} to {high:+.2f}), p 0.00"
    )
    assert found.verdict.endswith("150 images, 4 noises.")
    assert "Holm" not in found.verdict
    same = compare_models(*two_models(21, images=150))
    assert same.rows[0].p_value > 0.05
    assert same.verdict.startswith("No difference beyond chance between the robustness of new's and old's expl")


def test_verdict_says_when_consistency_rises_and_responsiveness_falls():
    stiff = compare_models(*two_models(22, images=200, kept=0.1, changed=-0.1))
    assert "but consistency rises, +0." in stiff.verdict
    assert "while responsiveness falls, -0." in stiff.verdict
    loose = compare_models(*two_models(23, images=200, kept=-0.1, changed=0.1))
    assert "but consistency falls, -0." in loose.verdict
    assert "while responsiveness rises, +0." in loose.verdict
    both = compare_models(*two_models(24, images=200, kept=0.1, changed=0.1))
    assert "RM hides" not in both.verdict


def test_verdict_says_when_flip_rates_differ_and_what_the_common_pairs_say():
    first, second = two_models(25, images=200, kept=0.1, flips=(0.4, 0.1))
    found = compare_models(first, second)
    rates = [slow_scores(each, "gradcam")[3] for each in (second, first)]
    means = slow_kept_means(first, second)
    change = np.nanmean(means[:, 1] - means[:, 0])
    assert f"the flip rate differs too ({rates[0]:.3f} against {rates[1]:.3f})" in found.verdict
    assert f"both models keep the similarity changes by {change:+.2f} (" in found.verdict
    assert "flip rate" not in compare_models(*two_models(26, images=100)).verdict


def test_verdict_says_undefined_and_why():
    first, second = two_models(27, kept=0.2)
    found = compare_models(first, replace(second, same=np.ones_like(second.same)))
    assert found.verdict.startswith("Undefined: the robustness of new and old cannot be compared under photometric")
    assert (
        "because none of the scored predictions of new changed its class; consistency differs by +0." in found.verdict
    )
    assert math.isnan(found.rows[0].difference.value)
    assert math.isnan(found.rows[0].p_adjusted)
    assert found.rows[2].num_images == 0
    never = compare_models(replace(first, same=np.zeros_like(first.same)), second)
    assert "none of the scored predictions of old kept its class" in never.verdict
    assert never.worse == never.better == ()


def test_verdict_says_when_images_are_too_few():
    first, second = two_models(28, images=3)
    found = compare_models(first, second)
    assert found.verdict.startswith("Undecided: the robustness of new's and old's explanations")
    assert "(no interval)" in found.verdict
    assert "low support: old has only" in found.verdict


def test_verdict_counts_the_images_behind_a_set_too():
    first, second = (each.of_kind("photometric") for each in two_models(35, images=60))
    few = np.ones_like(first.same)
    few[:9] = False
    found = compare_models(replace(first, same=few), second)
    assert "low support: old has only 36 changed pairs of 9 images" in found.verdict
    assert "low support: new" not in found.verdict


def test_images_of_one_segment_do_not_sway_the_floors():
    first, second = two_models(36)
    chance = np.where(np.arange(60) < 20, 1.0, 0.3)
    unscored = np.where(np.arange(60)[:, None, None] < 20, np.nan, first.similarity)
    first = replace(first, chance=chance, similarity=unscored)
    # The second was cut into other segments: 0.3 * 0.7 against 0.24 * 0.76; and b of 1 must not count.
    second = replace(second, chance=np.where(np.arange(60) < 20, 1.0, 0.24), similarity=unscored)
    assert "random rankings would get RM 0.182 against 0.210, so the two" in compare_models(first, second).verdict
    # The same segments, but only the second changes its prediction on the images with few of them.
    chance = np.where(np.arange(60) < 30, 0.05, 0.4)
    low, high = (np.tile((np.arange(60) < 30)[:, None] == side, 5) for side in (False, True))
    verdict = compare_models(*(replace(e, chance=chance, same=s) for e, s in ((first, low), (second, high)))).verdict
    assert "as their predictions change on images with other numbers of segments" in verdict


def test_verdict_says_when_chance_floors_differ():
    first, second = two_models(29)
    found = compare_models(replace(first, chance=np.full(60, 0.1)), replace(second, chance=np.full(60, 0.4)))
    assert "random rankings would get RM 0.240 against 0.090" in found.verdict
    assert "random rankings" not in compare_models(first, second).verdict
    unknown = compare_models(first, replace(second, chance=np.full(60, np.nan)))
    assert "random rankings" not in unknown.verdict
    assert "the chance floor is known for old only" in unknown.verdict
    neither = [replace(each, chance=np.full(60, np.nan)) for each in (first, second)]
    assert "chance floor" not in compare_models(*neither).verdict


def test_the_floor_of_a_comparison_is_that_of_the_tables():
    first, second = two_models(29)
    uneven = np.where(np.arange(60) < 30, 0.0, 0.8)  # mean 0.4: b (1 - b) is 0.24, and the mean of b_i (1 - b_i) 0.08
    found = compare_models(replace(first, chance=np.full(60, 0.1)), replace(second, chance=uneven))
    assert "random rankings would get RM 0.240 against 0.090" in found.verdict


CONDITIONS = {
    "data": "1f" * 32,
    "num_images": "60",
    "similarity": '{"name": "rbo", "p": 0.2, "ties": "b"}',
    "reduction": "mean",
    "seed": "0",
    "align_geometric": "false",
    "method gradcam": '{"name": "gradcam"}',
    "method eigencam": '{"name": "eigencam"}',
    "perturbation fog": '{"name": "fog"}',
    "perturbation turn": '{"name": "turn"}',
    "reading p=0.9": '{"p": 0.9}',
}


def under(conditions, **changes):
    """Two models, the second under some other conditions."""
    first, second = two_models(32)
    return [replace(first, conditions=conditions), replace(second, conditions={**conditions, **changes})]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": "1"}, r"the seed \('0' in the first, '1' in the second\)"),
        ({"similarity": CONDITIONS["similarity"].replace("0.2", "0.9")}, r"similarity .*0\.2.* 0\.9.*in the second"),
        ({"reduction": "sum"}, "reduction"),
        ({"data": "2e" * 32}, "the pictures themselves, by their fingerprint"),
        ({"perturbation fog": '{"name": "fog", "decay": 3}'}, "the perturbation fog"),
        ({"method gradcam": '{"name": "gradcam", "relu": 1}'}, "the method gradcam"),
        ({"seed": "1", "reduction": "sum", "method gradcam": "", "data": ""}, "; and 1 more"),
    ],
)
def test_models_measured_under_other_conditions_are_refused(changes, said):
    compare_models(*under(CONDITIONS))
    with pytest.raises(ArgumentError, match=f"measured under other conditions: .*{said}.*Measure both in one study"):
        compare_models(*under(CONDITIONS, **changes))


def test_conditions_of_what_is_not_compared_do_not_matter():
    first, second = under(CONDITIONS, **{"method eigencam": "x", "perturbation turn": "x", "align_geometric": "true"})
    compare_models(first, second)
    with pytest.raises(ArgumentError, match="method eigencam"):
        compare_models(first, second, method="eigencam")
    with pytest.raises(ArgumentError, match="perturbation turn.*align_geometric"):
        compare_models(first, second, kind="geometric")
    # A perturbation that one of them lacks, and what is known of one model only.
    compare_models(first.of_noises([noise.perturbation != "turn" for noise in NOISES]), second)
    compare_models(replace(first, conditions={}), second)
    # A reading of one name with two meanings is no common one.
    for meaning, left in ((CONDITIONS["reading p=0.9"], ["p=0.9"]), ("x", [])):
        pair = [replace(each, readings={"p=0.9": each.similarity}) for each in under(CONDITIONS)]
        pair[1] = replace(pair[1], conditions={**CONDITIONS, "reading p=0.9": meaning})
        assert list(paired_outcomes(*pair)[0].readings) == left


def test_pictures_that_cannot_be_checked_are_said():
    first, second = under(CONDITIONS, data="2e" * 32, num_images="50")
    warning = "that pictures of one name are the same for both could not be checked"
    subset = second.of_images(np.arange(50))
    assert warning in compare_models(first, subset).verdict
    assert warning not in compare_models(first, replace(subset, conditions=CONDITIONS)).verdict
    # A fingerprint covers order and labels too, so another one says nothing there.
    second = replace(second, conditions={**CONDITIONS, "data": "2e" * 32})
    assert warning in compare_models(first, shuffled(second, 0)).verdict
    assert warning in compare_models(first, replace(second, labels=np.full(60, -1))).verdict
    # Cut to the same images by hand, the fingerprints are still those of two whole data sets.
    few = replace(second, conditions={**second.conditions, "num_images": "50"}).of_images(np.arange(40))
    assert warning in compare_models(first.of_images(np.arange(40)), few).verdict


def test_conditions_stay_with_outcomes():
    first, _ = under(CONDITIONS)
    for part in (first.of_kind("photometric"), first.of_images(np.arange(3)), paired_outcomes(first, first)[1]):
        assert part.conditions == CONDITIONS


def test_checkpoints_of_one_name_are_told_apart():
    first, second = two_models(30)
    second = replace(second, model="old")
    found = compare_models(first, second)
    assert (found.first, found.second) == ("old (first)", "old (second)")
    found = compare_models(first, replace(second, target_layer="layer3"))
    assert (found.first, found.second) == ("old at layer4", "old at layer3")
    assert (found.rows[0].first, found.rows[0].second) == ("old at layer3", "old at layer4")


def test_same_seed_same_numbers():
    first, second = two_models(31)
    assert repr(compare_models(first, second, seed=3)) == repr(compare_models(first, second, seed=3))
    assert compare_models(first, second, seed=3).rows[0] != compare_models(first, second, seed=4).rows[0]


def test_equal_models_are_called_different_in_one_case_of_twenty():
    repeats, measures = 500, range(6)
    false_alarms = np.zeros(6)
    for seed in range(repeats):
        pair = [replace(each, labels=np.full(80, -1)) for each in two_models(1000 + seed, images=80)]
        rows = compare_models(*pair, resamples=400, num_images=0).rows
        false_alarms += [rows[each].p_value < 0.05 for each in measures]
    rates = false_alarms / repeats
    assert (rates >= 0.03).all(), rates
    assert (rates <= 0.07).all(), rates


def test_different_models_are_found():
    hits = [compare_models(*two_models(seed, images=80, kept=0.12), resamples=400).rows[0] for seed in range(40)]
    assert sum(row.p_value < 0.05 and row.difference.value > 0 for row in hits) >= 36
