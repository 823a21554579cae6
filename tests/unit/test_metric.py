import math
import pickle
import warnings

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_camrobust import CAMConsistency, CAMResponsiveness, CAMRobustness
from lightning_camrobust.functional import cam_consistency, cam_responsiveness, cam_robustness
from tests import oracles


def make_pairs(seed=0, count=40, map_size=(5, 5), picture=(20, 20)):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, *map_size, generator=generator)
    noisy = (clean + 0.3 * torch.randn(count, *map_size, generator=generator)).relu()
    noisy[::11] = 0  # flat
    clean[5] = torch.nan
    classes = torch.randint(0, 3, (2, count), generator=generator)
    segments = torch.randint(0, 9, (count, *picture), generator=generator)
    return clean, noisy, classes[0], classes[1], segments


def by_the_oracle(clean, noisy, clean_classes, noisy_classes, segments, p, ties):
    similarities, rankable = [], []
    for index in range(len(clean)):
        maps = [each[index].double() for each in (clean, noisy)]
        rankable.append(all(bool(m.isfinite().all()) and float(m.max() - m.min()) > 0 for m in maps))
        rows = [oracles.segment_means(m[None], segments[index][None])[0] for m in maps]
        similarities.append(oracles.rbo(list(rows[0]), list(rows[1]), p, ties) if rankable[-1] else math.nan)
    return oracles.stability(similarities, (clean_classes == noisy_classes).tolist(), rankable)


@pytest.mark.parametrize("ties", ["b", "a", "w", "stable"])
@pytest.mark.parametrize("p", [0.2, 0.8])
def test_functions_and_metrics_equal_the_oracle(ties, p):
    pairs = make_pairs()
    consistency, responsiveness, robustness = by_the_oracle(*pairs, p, ties)
    for function, metric_class, wanted in (
        (cam_consistency, CAMConsistency, consistency),
        (cam_responsiveness, CAMResponsiveness, responsiveness),
        (cam_robustness, CAMRobustness, robustness),
    ):
        assert function(*pairs, p=p, ties=ties).item() == pytest.approx(wanted, abs=1e-12)
        metric = metric_class(p=p, ties=ties)
        for part in zip(*(each.split(7) for each in pairs), strict=True):
            metric.update(*part)
        assert metric.compute().item() == pytest.approx(wanted, abs=1e-12)
        assert metric.degenerate_count.item() == 5  # 0, 11, 22, 33 flat, 5 NaN


def test_scale_and_shift_of_maps_do_not_matter():
    clean, noisy, *rest = make_pairs()
    score = cam_robustness(clean, noisy, *rest)
    torch.testing.assert_close(cam_robustness(clean * 1e-6, noisy * 1e6, *rest), score, rtol=0, atol=1e-12)


def test_empty_sets_are_undefined_with_one_warning():
    clean, noisy, classes, _, segments = make_pairs()
    for metric, wanted in ((CAMRobustness(), None), (CAMResponsiveness(), None), (CAMConsistency(), True)):
        metric.update(clean, noisy, classes, classes, segments)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = metric.compute()
        assert value.isfinite() == bool(wanted)
        assert [str(each.message).split(" is undefined")[0] for each in caught] == [type(metric).__name__] * (
            not wanted
        )


def test_vacuous_rule_counts_an_empty_set_as_one_but_never_invents_a_score():
    clean, noisy, classes, _, segments = make_pairs()
    score = cam_robustness(clean, noisy, classes, classes, segments, undefined="vacuous")
    assert score == cam_consistency(clean, noisy, classes, classes, segments)
    assert cam_responsiveness(clean, noisy, classes, classes, segments, undefined="vacuous") == 1
    assert cam_consistency(clean, noisy, classes, classes + 1, segments, undefined="vacuous") == 1
    nothing = cam_robustness(clean * 0, noisy, classes, classes, segments, undefined="vacuous")
    assert nothing.isnan()


def test_collection_shares_one_state_among_metrics_with_equal_settings_only():
    collection = MetricCollection(
        {"rm": CAMRobustness(), "c": CAMConsistency(), "r": CAMResponsiveness(), "deep": CAMConsistency(p=0.9)}
    )
    clean, noisy, before, after, segments = make_pairs()
    # Identical maps first: all states look alike, whatever p is.
    collection.update(clean, clean, before, before, segments)
    collection.update(clean, noisy, before, after, segments)
    assert sorted(map(len, collection.compute_groups.values())) == [1, 3]
    found = collection.compute()
    twice = segments.repeat(2, 1, 1)
    pairs = torch.cat([clean, clean]), torch.cat([clean, noisy]), before.repeat(2), torch.cat([before, after]), twice
    assert found["rm"].item() == pytest.approx(cam_robustness(*pairs).item(), abs=1e-12)
    assert found["deep"].item() == pytest.approx(cam_consistency(*pairs, p=0.9).item(), abs=1e-12)
    assert found["deep"] != found["c"]


def test_metric_is_a_good_torchmetric():
    metric = CAMRobustness()
    assert metric.higher_is_better is True
    assert metric.full_state_update is False
    assert (metric.plot_lower_bound, metric.plot_upper_bound) == (0.0, 1.0)
    assert all(state.numel() <= 2 for state in metric.metric_state.values())
    metric.update(*make_pairs())
    value = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == value
    assert metric.clone().compute() == value
    assert metric.state_dict() == {}
    metric.reset()
    assert metric.same_count == 0


@pytest.mark.skipif(not hasattr(CAMRobustness, "merge_state"), reason="merge_state came with torchmetrics 1.6")
def test_merging_the_states_of_two_ranks_equals_one():
    pairs = make_pairs()
    one, first, second = CAMRobustness(), CAMRobustness(), CAMRobustness()
    one.update(*pairs)
    first.update(*(each[:13] for each in pairs))
    second.update(*(each[13:] for each in pairs))
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), one.compute(), rtol=0, atol=1e-12)
    assert first.settings.tolist() == one.settings.tolist()


@pytest.mark.filterwarnings("ignore:.*compute.*method of metric.*was called before:UserWarning")
def test_an_empty_batch_adds_nothing():
    metric = CAMRobustness(undefined="vacuous")
    pairs = make_pairs()
    metric.update(*pairs)
    value = metric.compute()
    metric.update(*(each[:0] for each in pairs))
    assert metric.compute() == value
