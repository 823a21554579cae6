"""The critiques of perturbation baselines repeated: what is taken for neutral decides which map looks faithful."""

import pytest
import torch
from scipy import stats

from lightning_camrobust.critique.controls import edge_maps, random_maps
from lightning_camrobust.critique.curves import RemovalSettings, removal_curves
from lightning_camrobust.critique.ranking import RankingTable
from lightning_camrobust.critique.report import report_baselines
from lightning_camrobust.critique.scores import artefact, bootstrap_interval, fidelity, removal_scores
from lightning_camrobust.errors import ArgumentError

SIDE, SQUARE = 12, 4


def squares(count=24, seed=0):
    """Class 0: a black square on grey; class 1: a white one. Images ``(b, 1, 12, 12)``, classes, and the squares."""
    generator = torch.Generator().manual_seed(seed)
    # Every square at another place: equal pictures get equal random maps, and would not count as two.
    places = torch.randperm((SIDE - SQUARE + 1) ** 2, generator=generator)[:count]
    corners = torch.stack([places // (SIDE - SQUARE + 1), places % (SIDE - SQUARE + 1)], dim=1)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for mask, (top, left) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + SQUARE, left : left + SQUARE] = True
    classes = torch.arange(count) % 2
    pixels = torch.where(masks, classes.float()[:, None, None], torch.tensor(0.5))
    return pixels[:, None], classes, masks


def classify(pixels):
    """Logits: how much darkness and how much brightness there is beyond grey."""
    offset = pixels.double().flatten(1) - 0.5
    return torch.stack([(-offset).clamp_min(0).sum(dim=1), offset.clamp_min(0).sum(dim=1)], dim=1).softmax(dim=1)


def two_fixed_maps(masks, classes):
    """One map is right about white squares and marks the opposite for black ones; the other one the other way round."""
    right = masks.float()
    white = classes.bool()[:, None, None]
    return {"of white": torch.where(white, right, 1 - right), "of black": torch.where(white, 1 - right, right)}


def test_order_of_deletion_flips_between_black_and_white_and_the_report_flags_it():
    pixels, classes, masks = squares()
    maps = two_fixed_maps(masks, classes)
    # A method that is right about class 1 loses its evidence under black only.
    areas = {}
    for baseline in ("black", "white"):
        settings = RemovalSettings(baseline=baseline, steps=12)
        areas[baseline] = {
            name: float(
                removal_scores(removal_curves(classify, pixels, each, classes, settings=settings))["deletion"].mean()
            )
            for name, each in maps.items()
        }
    first, second = maps
    assert (areas["black"][first] - areas["black"][second]) * (areas["white"][first] - areas["white"][second]) < 0
    report = report_baselines(classify, pixels, maps, classes, baselines=("black", "white"), step_counts=(12,))
    for column, baseline in enumerate(("black", "white")):
        found = report.by_baseline.scores[report.by_baseline.metrics.index("deletion"), :, column].tolist()
        assert found == pytest.approx(list(areas[baseline].values()), abs=1e-12)
    assert report.by_baseline.stable_metrics["deletion"] is False
    assert report.stable is False
    assert "ranking unstable: least Kendall tau -1.00, between black and white" in str(report)


def test_a_report_of_agreeing_baselines_is_stable():
    pixels, classes, masks = squares()
    maps = {"right": masks.float(), "wrong": 1 - masks.float()}
    report = report_baselines(classify, pixels, maps, classes, baselines=("grey", "image_mean"), step_counts=(12, 6))
    assert report.stable is True
    assert "unstable" not in str(report)
    assert report.by_steps is not None
    assert report.by_steps.variants == ("12", "6")
    assert report.by_seed is None


@pytest.mark.parametrize("baseline", ["black", "blur", "uniform_noise", "noisy_linear"])
def test_artefact_and_fidelity_reconstruct_the_whole_change_exactly(baseline):
    pixels, classes, _ = squares()
    settings = RemovalSettings(baseline=baseline, steps=12)
    # Answers in float32, as networks give them; then the float64 differences carry no rounding of their own.
    curves = removal_curves(
        lambda each: classify(each).float(), pixels, random_maps(pixels), classes, settings=settings
    )
    whole = curves.morf[:, :1] - curves.morf
    torch.testing.assert_close(artefact(curves) + fidelity(curves), whole, rtol=0, atol=2**-50)
    assert float(artefact(curves).abs().max()) > 0.01
    assert float(fidelity(curves).abs().max()) > 0.01


@pytest.mark.parametrize("baseline", ["black", "white", "grey", "blur", "noisy_linear"])
def test_a_random_map_has_no_fidelity_within_its_bootstrap_interval(baseline):
    pixels, classes, masks = squares(count=60)
    settings = RemovalSettings(baseline=baseline, steps=12)

    def interval(maps):
        return bootstrap_interval(
            fidelity(removal_curves(classify, pixels, maps, classes, settings=settings)).mean(dim=1)
        )

    random = interval(random_maps(pixels))
    assert random.low < 0 < random.high
    # The interval is narrow enough to tell a map that knows something.
    knowing = interval(masks.float()) if baseline == "grey" else None
    assert knowing is None or knowing.low > 0


def test_the_bootstrap_interval_covers_zero_as_often_as_it_should():
    pixels, classes, _ = squares(count=60)
    settings = RemovalSettings(baseline="grey", steps=6)
    covered = 0
    for seed in range(40):
        curves = removal_curves(classify, pixels, random_maps(pixels, seed=seed), classes, settings=settings)
        low, high = bootstrap_interval(fidelity(curves).mean(dim=1), resamples=500)[1:]
        covered += low < 0 < high
    assert covered >= 34  # 95% of 40 is 38; fewer than 34 happens in one of 300 runs


def test_facts_of_baselines():
    pixels, classes, masks = squares()
    maps = {"right": masks.float(), "wrong": 1 - masks.float()}
    report = report_baselines(classify, pixels, maps, classes, baselines=("black", "white", "grey"), step_counts=(6,))
    assert [each.name for each in report.facts] == ["black", "white", "grey"]
    assert [each.colour for each in report.facts] == [(0.0,), (1.0,), (0.5,)]
    # Half of the images are of the class that the picture speaks for.
    assert [each.own_class for each in report.facts] == pytest.approx([0.5, 0.5, 0.5])
    assert [each.most_likely for each in report.facts] == pytest.approx([1.0, 1.0, 0.5])
    assert report.facts[2].divergence == pytest.approx(0.0, abs=1e-12)
    assert report.facts[0].divergence == pytest.approx(0.6931, abs=1e-3)
    artefacts = []
    for baseline in ("black", "white", "grey"):
        settings = RemovalSettings(baseline=baseline, steps=6)
        curves = [removal_curves(classify, pixels, each, classes, settings=settings) for each in maps.values()]
        artefacts.append(float(torch.stack([each.morf[:, :1] - each.lerf for each in curves]).mean()))
    assert [each.artefact for each in report.facts] == pytest.approx(artefacts)


def test_resolved_colours_are_those_of_each_channel():
    pixels = torch.rand(3, 3, 8, 8)
    coin = lambda images: torch.full((len(images), 2), 0.5)  # noqa: E731
    maps = {"random": random_maps(pixels), "edges": edge_maps(pixels)}
    classes = torch.zeros(3, dtype=torch.long)
    names = ("dataset_mean", "image_mean")
    report = report_baselines(coin, pixels, maps, classes, baselines=names, step_counts=(4,))
    assert report.facts[0].colour == pytest.approx((0.485, 0.456, 0.406))
    assert report.facts[1].colour == pytest.approx(pixels.double().mean(dim=(0, 2, 3)).tolist(), abs=1e-6)
    # A network that never changes its mind ranks nothing, which is no stability.
    assert report.stable is False


def test_steps_and_seeds_are_compared_under_the_first_baseline():
    pixels, classes, masks = squares(count=6)
    maps = {"right": masks.float(), "edges": edge_maps(pixels)}
    how = {"baselines": ("uniform_noise", "black"), "step_counts": (12, 4), "seeds": (3, 5)}
    report = report_baselines(classify, pixels, maps, classes, **how)
    cells = (
        (report.by_baseline, 0, RemovalSettings("uniform_noise", 12, 3)),
        (report.by_baseline, 1, RemovalSettings("black", 12, 3)),
        (report.by_steps, 1, RemovalSettings("uniform_noise", 4, 3)),
        (report.by_seed, 1, RemovalSettings("uniform_noise", 12, 5)),
    )
    for table, column, settings in cells:
        for row, each in enumerate(maps.values()):
            scores = removal_scores(removal_curves(classify, pixels, each, classes, settings=settings))
            wanted = [float(scores[metric].mean()) for metric in table.metrics]
            assert table.scores[:, row, column].tolist() == pytest.approx(wanted, abs=1e-12)


def test_an_image_without_a_finite_map_is_left_out():
    pixels, classes, masks = squares()
    maps = {"right": masks.float(), "wrong": 1 - masks.float()}
    maps["right"][0, 0, 0] = torch.nan
    report = report_baselines(classify, pixels, maps, classes, baselines=("black", "white"), step_counts=(6,))
    assert report.by_baseline.scores.isfinite().all()


def ranking(*columns):
    """A table of one metric whose columns are given."""
    scores = torch.tensor(columns, dtype=torch.float64).T[None]
    methods, variants = (
        tuple(f"{kind}{i}" for i in range(count)) for kind, count in zip("mv", scores.shape[1:], strict=True)
    )
    return RankingTable(("aopc",), methods, variants, scores)


def test_tau_is_that_of_every_pair():
    columns = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).tolist()
    tau = ranking(*columns).tau[0]
    for i, first in enumerate(columns):
        for j, second in enumerate(columns):
            concordant = sum(
                1 if (first[a] - first[b]) * (second[a] - second[b]) > 0 else -1 for a in range(6) for b in range(a)
            )
            assert float(tau[i, j]) == pytest.approx(concordant / 15)
            assert float(tau[i, j]) == pytest.approx(stats.kendalltau(first, second).statistic)


@pytest.mark.parametrize(
    ("other", "stable"),
    [
        ((1.0, 2.0, 3.0, 4.0, 5.0), True),
        ((2.0, 1.0, 3.0, 4.0, 5.0), True),  # one of ten pairs turned round: tau 0.8
        ((2.0, 1.0, 3.0, 5.0, 4.0), False),  # two: 0.6
        ((1.0, 1.0, 1.0, 1.0, 1.0), False),  # no order at all
    ],
)
def test_a_ranking_is_stable_from_tau_08_on(other, stable):
    table = ranking((1.0, 2.0, 3.0, 4.0, 5.0), (0.1, 0.2, 0.3, 0.4, 0.5), other)
    assert table.stable is stable
    assert ("ranking unstable" in str(table)) is not stable


def test_spread_and_text():
    table = ranking((0.1, 0.5), (0.4, 0.25))
    assert table.spread.tolist() == [pytest.approx([0.3, 0.25])]
    lines = str(table).splitlines()
    assert lines[0].split() == ["aopc", "v0", "v1", "spread"]
    assert lines[1].split() == ["m0", "0.1000", "0.4000", "0.3000"]
    assert lines[2].split() == ["m1", "0.5000", "0.2500", "0.2500"]
    assert lines[3] == "ranking unstable: least Kendall tau -1.00, between v0 and v1"


def test_too_little_to_compare_is_refused():
    with pytest.raises(ArgumentError, match="two methods or more"):
        ranking((1.0,), (2.0,))
    with pytest.raises(ArgumentError, match="`scores` must be"):
        RankingTable(("aopc",), ("a", "b"), ("black", "white"), torch.zeros(1, 2, 3))
    pixels, classes, masks = squares(count=2)
    with pytest.raises(ArgumentError, match="two `baselines`"):
        report_baselines(classify, pixels, {"a": masks.float(), "b": masks.float()}, classes, baselines=("black",))


def test_the_verdict_names_the_worst_pair_and_one_unstable_metric_spoils_the_table():
    alike, turned = ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)), ((1.0, 1.0, 2.0), (2.0, 2.0, 1.0))
    scores = torch.tensor([alike, turned], dtype=torch.float64)
    table = RankingTable(("aopc", "deletion"), ("a", "b"), ("black", "grey", "white"), scores)
    assert table.stable_metrics == {"aopc": True, "deletion": False}
    assert table.stable is False
    verdicts = [block.splitlines()[-1] for block in str(table).split("\n\n")]
    assert verdicts[0] == "ranking stable: least Kendall tau 1.00, between black and grey"
    assert verdicts[1] == "ranking unstable: least Kendall tau -1.00, between black and white"


def test_an_undefined_tau_is_the_worst_pair():
    table = ranking((1.0, 2.0), (2.0, 1.0), (1.0, 1.0))
    assert str(table).endswith("ranking unstable: least Kendall tau nan, between v0 and v2")


def test_methods_are_compared_on_the_same_images():
    pixels, classes, masks = squares(6)
    maps = masks.float()
    holed = maps.clone()
    holed[0] = torch.nan
    how = {"baselines": ("black", "white"), "step_counts": (6,)}
    table = report_baselines(classify, pixels, {"whole": maps, "holed": holed}, classes, **how).by_baseline
    assert torch.equal(table.scores[:, 0], table.scores[:, 1])
    without = report_baselines(classify, pixels[1:], {"a": maps[1:], "b": 1 - maps[1:]}, classes[1:], **how).by_baseline
    torch.testing.assert_close(table.scores[:, 0], without.scores[:, 0])


def test_a_baseline_that_cannot_be_hashed_is_refused_by_name():
    class Unhashable:
        __hash__ = None

        def __call__(self, pixels, *, removed, randomness):
            return torch.full_like(pixels, 0.3)

    pixels, classes, masks = squares(2)
    maps = {"a": masks.float(), "b": 1 - masks.float()}
    with pytest.raises(ArgumentError, match="hashable.*Unhashable"):
        report_baselines(classify, pixels, maps, classes, baselines=("black", Unhashable()), step_counts=(2,))


def test_rounding_makes_no_ranking():
    dusty = torch.tensor([[[0.3, 0.1 + 0.2], [0.1 + 0.2, 0.3], [0.9, 0.8]]], dtype=torch.float64)
    table = RankingTable(("deletion",), ("a", "b", "c"), ("black", "white"), dusty)
    assert table.tau[0, 0, 1].item() == pytest.approx(1.0)
    apart = dusty.clone()
    apart[0, 0] += 1e-9 * torch.tensor([1.0, -1.0])
    assert RankingTable(("deletion",), ("a", "b", "c"), ("black", "white"), apart).tau[0, 0, 1].item() < 0.8
