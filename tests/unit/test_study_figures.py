"""Figures show the numbers they were given, on light and dark pages, and leave matplotlib as it was."""

import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from scipy.stats import rankdata

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.figures.critical_difference import draw_critical_difference
from lightning_camrobust.study.figures.curves import merge_curves
from lightning_camrobust.study.figures.difference import draw_difference
from lightning_camrobust.study.figures.forest import draw_forest
from lightning_camrobust.study.figures.heatmap import draw_heatmap
from lightning_camrobust.study.figures.settings import draw_settings
from lightning_camrobust.study.figures.severity_curves import draw_severity_curves
from lightning_camrobust.study.figures.style import DARK, LIGHT, NARROW, STRONGEST, WIDE, as_svg, save_figure
from lightning_camrobust.study.findings import (
    ClassChange,
    Estimate,
    ModelDifference,
    ModelFindings,
    PairRow,
    RankTest,
    ReadingRow,
    ScoreRow,
    Stability,
)

METHODS = ("gradcam", "gradcam_plusplus", "eigencam", "ablationcam", "xgradcam", "hirescam")
TWINS = ("gradcam", "xgradcam", "hirescam")
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "fog", "brightness", "contrast", "jpeg")
MORE_METHODS = ("layercam", "scorecam", "fullgrad", "randomcam")
MORE_NOISES = ("pixelate", "elastic_transform", "motion_blur", "snow")
NAN = math.nan
NOTHING = Estimate(NAN, NAN, NAN)


def product(one, other):
    return Estimate(*(a * b for a, b in zip(one, other, strict=True)))


def fake_row(method, perturbation, severity, level, *, rng, changed, kind="photometric"):
    width = 0.3 / math.sqrt(max(changed, 1))
    c = 0.9 - 0.09 * (severity or 2) + level + rng.normal(0, 0.01)
    r = 0.25 + 0.03 * (severity or 2) - level / 2 + rng.normal(0, 0.02)
    consistency = Estimate(c, c - 0.02, c + 0.025)
    responsiveness = Estimate(r, max(r - width, 0), r + 1.3 * width) if changed else NOTHING
    pairs = 1000 if severity else 9000
    flips = changed / pairs
    return ScoreRow(
        method=method,
        kind=kind,
        perturbation=perturbation,
        severity=severity,
        robustness=product(consistency, responsiveness),
        consistency=consistency,
        responsiveness=responsiveness,
        flip_rate=Estimate(flips, flips * 0.9, flips * 1.1),
        robustness_macro=product(consistency, responsiveness),
        same_count=pairs - changed,
        changed_count=changed,
        degenerate_count=3,
        same_images=min(1000, pairs - changed),
        changed_images=min(1000, changed),
        chance_floor=0.048,
        low_support=changed < 30,
    )


def fake_scores(methods=METHODS, noises=NOISES, severities=(1, 3, 5)):
    """Three methods are one and the same, one perturbation never changes a class, others rarely do at first."""
    rows = []
    for position, method in enumerate(methods):
        twin = method in TWINS
        rng = np.random.default_rng(0 if twin else position)
        level = 0.0 if twin else 0.03 * (position - 2)
        rows.append(fake_row(method, None, None, level, rng=rng, changed=4000))
        for index, noise in enumerate(noises):
            rows.append(
                fake_row(method, noise, None, level, rng=rng, changed=0 if index == 5 else 12 if index == 6 else 700)
            )
            for severity in severities:
                changed = 0 if index == 5 or (index + severity) % 7 == 1 else 11 * severity * (index + 1)
                rows.append(fake_row(method, noise, severity, level, rng=rng, changed=changed))
    return tuple(rows)


def fake_ranks(methods=METHODS, images=2000):
    ranks = {method: 3.0 if method in TWINS else 1.6 + 0.55 * index for index, method in enumerate(methods)}
    return RankTest(
        measure="consistency",
        methods=methods,
        mean_ranks=tuple(ranks.values()),
        statistic=812.4,
        p_value=1.2e-90,
        kendall_w=0.21,
        num_images=images,
        critical_difference=2.85 * math.sqrt(len(methods) * (len(methods) + 1) / (6 * images)),
        alpha=0.05,
        cliques=(("eigencam", *TWINS), (*TWINS, "ablationcam")),
    )


def fake_stability(methods=METHODS):
    labels = (
        "p=0.2",
        "p=0.5",
        "p=0.8",
        "p=0.9",
        "ties=average",
        "segmenter=slic",
        "segmenter=felzenszwalb",
        "reduction=sum",
        "reduction=max",
        "averaging=macro",
        "target=clean class",
    )
    rng = np.random.default_rng(5)
    main = np.array([0.2 if method in TWINS else 0.24 - 0.02 * index for index, method in enumerate(methods)])
    rows = []
    for index, label in enumerate(labels):
        values = main + rng.normal(0, 0.004 * index, len(main))
        values[[methods.index(each) for each in TWINS]] = values[0]
        if label == "reduction=max":
            values[2] = NAN
        tau = 1.0 if index == 0 else 1 - 0.09 * index
        if label == "averaging=macro":
            tau = NAN
        interval = Estimate(tau, tau - 0.2, min(tau + 0.15, 1.0))
        order = tuple(methods[i] for i in sorted(range(len(main)), key=lambda i: (math.isnan(values[i]), -values[i])))
        rows.append(ReadingRow(label, tuple(values.tolist()), order, tau, interval, 1000))
    return Stability(methods, tuple(rows), stable=False, reasons=("because",), least_tau=0.6)


def fake_model(methods=METHODS, noises=NOISES, severities=(1, 3, 5)):
    return ModelFindings(
        model="efficientnet_lite0",
        target_layer="features.7.conv",
        data="ImageNet sample",
        num_images=1000,
        accuracy=0.71,
        scores=fake_scores(methods, noises, severities),
        pairs=(),
        rank_tests=(fake_ranks(),),
        stability=fake_stability(),
        seconds=100.0,
    )


def fake_difference(method="gradcam", shift=0.0):
    rows = []
    for measure, value, p in (
        ("robustness", 0.012, 0.03),
        ("consistency", -0.02, 0.0002),
        ("responsiveness", 0.05, 0.4),
        ("flip_rate", -0.07, 1e-12),
    ):
        value += shift
        rows.append(
            PairRow(
                measure,
                "checkpoint_a",
                "checkpoint_b",
                Estimate(value, value - 0.02, value + 0.03),
                p / 2,
                p,
                NAN,
                900,
                "cluster bootstrap",
            )
        )
    return ModelDifference(
        "checkpoint_a",
        "checkpoint_b",
        method,
        "photometric",
        1000,
        tuple(rows),
        "B is more robust than A.",
        (ClassChange(1, 5, NOTHING, 1.0, 1.0),),
        (),
        (),
    )


ALL = METHODS + MORE_METHODS
PALETTE = LIGHT.for_methods(ALL)
MODEL = fake_model()
BIG = fake_model(ALL, NOISES + MORE_NOISES, (1, 2, 3, 4, 5))
FIGURES = {
    "curves": partial(draw_severity_curves, MODEL, kind="photometric"),
    "consistency": partial(draw_severity_curves, MODEL, kind="photometric", measure="consistency"),
    "ranks": partial(draw_critical_difference, fake_ranks(), model="efficientnet_lite0"),
    "many ranks": partial(draw_critical_difference, fake_ranks(ALL, 60)),
    "heatmap": partial(draw_heatmap, MODEL, kind="photometric"),
    "large heatmap": partial(draw_heatmap, BIG, kind="photometric"),
    "forest": partial(draw_forest, MODEL, kind="photometric"),
    "settings": partial(draw_settings, fake_stability(), model="efficientnet_lite0"),
    "many settings": partial(draw_settings, fake_stability(ALL)),
    "difference": partial(draw_difference, [fake_difference()]),
    "differences": partial(draw_difference, [fake_difference(each, 0.01 * i) for i, each in enumerate(METHODS)]),
}


@cache
def drawn(name, width=WIDE):
    """Draw a figure once; tests only look at it."""
    return FIGURES[name](palette=PALETTE, width=width)


every_figure = pytest.mark.parametrize("name", FIGURES)
every_width = pytest.mark.parametrize("width", [WIDE, NARROW])


def lines_of(axes, what):
    """Return coordinates by name of the method, of the artists of one sort."""
    found = {}
    for line in axes.get_lines():
        sort, _, name = str(line.get_label()).removeprefix("_").partition(" ")
        if sort == what:
            found[name] = np.asarray(line.get_xydata(), dtype=float)
    return found


def defined(points):
    return points[~np.isnan(points).any(axis=1)]


def texts_of(figure):
    return [text for axes in figure.axes for text in axes.texts if text.get_text()]


def row_of(model, method, perturbation=None, severity=None):
    (row,) = [
        each
        for each in model.scores
        if (each.method, each.perturbation, each.severity) == (method, perturbation, severity)
    ]
    return row


# --- What is shown equals what was found -----------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["robustness", "consistency", "responsiveness"])
def test_curves_stand_at_the_scores_and_leave_gaps(measure):
    figure = draw_severity_curves(MODEL, kind="photometric", palette=PALETTE, measure=measure)
    panels = figure.axes[1:]
    assert [axes.get_title(loc="left") for axes in panels] == list(NOISES)
    seen = 0
    for axes, noise in zip(panels, NOISES, strict=True):
        drawn = {"points": lines_of(axes, "points"), "hollow": lines_of(axes, "hollow")}
        for method in ("gradcam", "gradcam_plusplus", "eigencam", "ablationcam"):
            name = " = ".join(TWINS) if method == "gradcam" else method
            expected = {"points": [], "hollow": []}
            bars = []
            for severity in (1, 3, 5):
                row = row_of(MODEL, method, noise, severity)
                estimate = getattr(row, measure)
                counts = {
                    "robustness": min(row.same_count, row.changed_count),
                    "consistency": row.same_count,
                    "responsiveness": row.changed_count,
                }
                if not math.isnan(estimate.value):
                    expected["hollow" if counts[measure] < 30 else "points"].append((severity, estimate.value))
                    bars += [(severity, estimate.low), (severity, estimate.high)]
            for sort in ("points", "hollow"):
                points = defined(drawn[sort].get(name, np.empty((0, 2))))
                np.testing.assert_array_equal(np.round(points[:, 0]), [x for x, _ in expected[sort]])
                np.testing.assert_allclose(points[:, 1], [y for _, y in expected[sort]], rtol=0, atol=0)
                seen += len(points)
            whiskers = defined(lines_of(axes, "whiskers").get(name, np.empty((0, 2))))
            np.testing.assert_allclose(whiskers[:, 1], [y for _, y in bars], rtol=0, atol=0)
    assert seen > 70
    assert not any("xgradcam" in lines_of(axes, "points") for axes in panels)


def test_a_curve_does_not_run_across_an_undefined_severity():
    rows = [row if row.severity != 3 else replace(row, robustness=NOTHING) for row in MODEL.scores]
    figure = draw_severity_curves(replace(MODEL, scores=tuple(rows)), kind="photometric", palette=PALETTE)
    curve = lines_of(figure.axes[3], "curve")["eigencam"]
    assert np.isnan(curve[:, 1]).tolist() == [False, True, False]
    assert [text.get_text() for text in figure.axes[1 + NOISES.index("brightness")].texts] == ["undefined"]


def test_a_severity_that_is_undefined_for_all_methods_is_marked():
    rows = [row if row.severity != 3 else replace(row, robustness=NOTHING) for row in MODEL.scores]
    figure = draw_severity_curves(replace(MODEL, scores=tuple(rows)), kind="photometric", palette=PALETTE)
    seen = 0
    for axes, noise in zip(figure.axes[1:], NOISES, strict=True):
        of_noise = [row for row in rows if row.perturbation == noise and row.kind == "photometric"]
        values = {level: [r.robustness.value for r in of_noise if r.severity == level] for level in (1, 3, 5)}
        blank = [level for level, each in values.items() if all(map(math.isnan, each))]
        if len(blank) < 3:
            seen += 1
            assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == [
                ("undefined", level) for level in blank
            ]
    assert seen > 3


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_severity_is_written_below_the_lowest_panel_of_each_column_and_nowhere_else(count, width):
    rows = tuple(row for row in MODEL.scores if row.perturbation in NOISES[:count])
    figure = draw_severity_curves(replace(MODEL, scores=rows), kind="photometric", palette=PALETTE, width=width)
    ground, *panels = figure.axes
    assert len(panels) == count
    labels = sorted(
        ground.transData.transform(text.get_position()).tolist()
        for text in ground.texts
        if text.get_text() == "severity"
    )
    lowest = {}
    for axes in panels:
        box = axes.get_window_extent()
        middle = round((box.x0 + box.x1) / 2)
        lowest[middle] = min(lowest.get(middle, box.y0), box.y0)
    assert [round(x) for x, _ in labels] == sorted(lowest)
    for (_, y), middle in zip(labels, sorted(lowest), strict=True):
        points = (lowest[middle] - y) * 72 / figure.dpi
        assert 16 < points < 30


def test_a_point_without_a_whisker_is_explained_where_there_is_one():
    def words(model):
        return " ".join(text.get_text() for text in draw_severity_curves(
            model, kind="photometric", palette=PALETTE).axes[0].texts)  # fmt: skip

    bare = tuple(
        replace(row, robustness=row.robustness._replace(low=math.nan, high=math.nan)) if row.severity == 1 else row
        for row in MODEL.scores
    )
    assert "a point without one" not in words(MODEL)
    assert "a point without one rests on too few images" in words(replace(MODEL, scores=bare))


def test_the_chance_floor_is_drawn_at_its_value_and_only_for_robustness():
    figure = draw_severity_curves(MODEL, kind="photometric", palette=PALETTE)
    np.testing.assert_array_equal(lines_of(figure.axes[1], "floor")[""][:, 1], [0.048, 0.048])
    rows = tuple(replace(row, chance_floor=0.01 * (row.severity or 0)) for row in MODEL.scores)
    figure = draw_severity_curves(replace(MODEL, scores=rows), kind="photometric", palette=PALETTE)
    np.testing.assert_allclose(lines_of(figure.axes[1], "floor")[""][:, 1], [0.01, 0.01, 0.03, 0.03, 0.05, 0.05])
    figure = draw_severity_curves(MODEL, kind="photometric", palette=PALETTE, measure="consistency")
    assert not lines_of(figure.axes[1], "floor")


def test_only_methods_with_the_same_numbers_throughout_share_a_curve():
    rows = [row for row in MODEL.scores if row.perturbation and row.severity]
    assert [curve.methods for curve in merge_curves(rows, palette=PALETTE)][0] == TWINS
    last = max(i for i, row in enumerate(rows) if row.method == "xgradcam")
    changed = [*rows[:last], replace(rows[last], same_count=rows[last].same_count - 1), *rows[last + 1 :]]
    assert merge_curves(changed, palette=PALETTE)[0].methods == ("gradcam", "hirescam")
    nudged = rows[last].consistency._replace(high=rows[last].consistency.high + 1e-6)
    changed = [*rows[:last], replace(rows[last], consistency=nudged), *rows[last + 1 :]]
    assert merge_curves(changed, palette=PALETTE)[0].methods == ("gradcam", "hirescam")


def scale_of_ranks(figure):
    """Where a rank stands, from the numbers below the axis."""
    marks = {int(text.get_text()): text.get_position()[0] for text in texts_of(figure) if text.get_text().isdigit()}
    (low, start), *_, (high, stop) = sorted(marks.items())
    return lambda rank: start + (rank - low) / (high - low) * (stop - start)


@every_width
def test_ranks_cliques_and_critical_difference_are_drawn_to_scale(width):
    test = fake_ranks()
    figure = draw_critical_difference(test, palette=PALETTE, width=width)
    place = scale_of_ranks(figure)
    for method, rank in zip(test.methods, test.mean_ranks, strict=True):
        assert lines_of(figure.axes[0], "rank")[method][0, 0] == pytest.approx(place(rank), abs=1e-6)
        (label,) = [text for text in texts_of(figure) if method in text.get_text().split()]
        assert f"{rank:.2f}" in label.get_text().split()
        assert label.get_position()[1] == pytest.approx(lines_of(figure.axes[0], "rank")[method][-1, 1], abs=4)
    bar = lines_of(figure.axes[0], "critical")["difference"][:, 0]
    assert bar[1] - bar[0] == pytest.approx(place(2 + test.critical_difference) - place(2), abs=1e-6)
    cliques = [line.get_xdata() for line in figure.axes[0].get_lines() if line.get_label() == "_clique"]
    expected = [(place(2.7) - 3, place(3.0) + 3), (place(3.0) - 3, place(3.25) + 3)]
    np.testing.assert_allclose(sorted(tuple(each) for each in cliques), expected)


def test_a_critical_difference_that_is_missing_or_too_large_is_said_in_words():
    words = [
        text.get_text()
        for text in texts_of(draw_critical_difference(replace(fake_ranks(), critical_difference=NAN), palette=PALETTE))
    ]
    assert any("no critical difference" in word for word in words)
    words = [text.get_text() for text in texts_of(draw_critical_difference(fake_ranks(images=2), palette=PALETTE))]
    assert "CD = 5.33: off the scale" in words


@pytest.mark.parametrize(("width", "upright"), [(WIDE, False), (NARROW, True)])
def test_cells_hold_the_scores(width, upright):
    figure = draw_heatmap(MODEL, kind="photometric", palette=PALETTE, width=width)
    ground = figure.axes[0]
    names = {text.get_text(): text.get_position() for text in texts_of(figure)}
    most = max(
        row_of(MODEL, method, noise).robustness.value for method in METHODS for noise in NOISES if noise != "brightness"
    )
    cells = [text for text in ground.texts if re.fullmatch(r"[\d.]+|–", text.get_text())]
    assert len(cells) == len(METHODS) * len(NOISES) == len(ground.patches)
    for method in METHODS:
        for noise in NOISES:
            column, line = (names[method], names[noise]) if upright else (names[noise], names[method])
            value = row_of(MODEL, method, noise).robustness.value
            (text,) = [each for each in cells if math.dist(each.get_position(), (column[0] - 2, line[1])) < 3]
            (patch,) = [each for each in ground.patches if each.get_bbox().contains(*text.get_position())]
            if math.isnan(value):
                assert text.get_text() == "–"
                assert patch.get_hatch()
            else:
                assert text.get_text().rjust(4, "0") == f"{value:.2f}"
                assert patch.get_alpha() == pytest.approx(STRONGEST * value / most)
    rings = [line for line in ground.get_lines() if line.get_marker() == "o" and line.get_markersize() < 3]
    assert len(rings) == len(METHODS)


def test_a_method_that_was_not_measured_under_a_noise_leaves_a_hatched_cell():
    rows = tuple(row for row in MODEL.scores if (row.method, row.perturbation) != ("eigencam", "fog"))
    figure = draw_heatmap(replace(MODEL, scores=rows), kind="photometric", palette=PALETTE)
    assert sum(bool(patch.get_hatch()) for patch in figure.axes[0].patches) == len(METHODS) + 1


@every_width
def test_forest_is_sorted_and_shows_intervals(width):
    figure = draw_forest(MODEL, kind="photometric", palette=PALETTE, width=width)
    order = sorted(METHODS, key=lambda method: -row_of(MODEL, method).robustness.value)
    heights = {text.get_text(): text.get_position()[1] for text in texts_of(figure)}
    assert sorted(METHODS, key=heights.get) == order
    written = Counter(text.get_text() for text in texts_of(figure))
    for axes, measure in zip(figure.axes[1:], ("robustness", "consistency", "responsiveness"), strict=True):
        for line, method in enumerate(order):
            estimate = getattr(row_of(MODEL, method), measure)
            np.testing.assert_array_equal(defined(lines_of(axes, "points")[method]), [(estimate.value, line)])
            np.testing.assert_array_equal(
                defined(lines_of(axes, "whiskers")[method]), [(estimate.low, line), (estimate.high, line)]
            )
            assert written[f"{estimate.value:.3f}"]
    assert set(lines_of(figure.axes[1], "floor")[""][:, 0]) == {0.048}


def test_an_undefined_method_comes_last_in_the_forest_and_has_no_point():
    rows = tuple(replace(row, robustness=NOTHING) if row.method == "gradcam_plusplus" else row for row in MODEL.scores)
    figure = draw_forest(replace(MODEL, scores=rows), kind="photometric", palette=PALETTE)
    heights = {text.get_text(): text.get_position()[1] for text in texts_of(figure)}
    assert max(METHODS, key=heights.get) == "gradcam_plusplus"
    assert "gradcam_plusplus" not in lines_of(figure.axes[1], "points")
    assert "gradcam_plusplus: RM is undefined." in figure.get_label()


@every_width
def test_settings_show_ranks_and_taus_and_highlight_what_fails(width):
    stability = fake_stability()
    figure = draw_settings(stability, palette=PALETTE, width=width)
    texts = texts_of(figure)
    columns = {text.get_text(): text.get_position()[0] - 2 for text in texts if text.get_text() in METHODS}
    for row in stability.rows:
        (label,) = [text for text in texts if text.get_text() == row.label]
        line = [text for text in texts if abs(text.get_position()[1] - label.get_position()[1]) < 1]
        values = np.array(row.robustness)
        known = ~np.isnan(values)
        ranks = dict(zip(np.array(METHODS)[known], rankdata(-values[known], method="min"), strict=True))
        for method in METHODS:
            (cell,) = [text for text in line if abs(text.get_position()[0] - columns[method]) < 1]
            tied = list(ranks.values()).count(ranks.get(method)) > 1
            assert cell.get_text() == (f"{ranks[method]:.0f}" + "=" * tied if method in ranks else "–")
        failing = row is not stability.rows[0] and not row.tau >= 0.6
        assert (label.get_fontweight() == "bold") is failing
        assert (label.get_color() == LIGHT.warning) is failing
        last = max(line, key=lambda text: text.get_position()[0])
        assert last.get_text() == (
            "main" if row is stability.rows[0] else "–" if math.isnan(row.tau) else f"{row.tau:.2f}"
        )
    if width == WIDE:
        taus = lines_of(figure.axes[1], "points")
        assert {name: points[0, 0] for name, points in taus.items()} == {
            row.label: row.tau for row in stability.rows[1:] if not math.isnan(row.tau)
        }
        assert "Not stable: 6 of 10" in figure.get_label()


def test_differences_stand_around_zero_with_their_intervals():
    figure = draw_difference([fake_difference()], palette=PALETTE)
    (axes,) = figure.axes[1:]
    low, high = axes.get_xlim()
    assert low < 0 < high
    for line, row in enumerate(fake_difference().rows):
        points = lines_of(axes, "points")[f"{row.measure} gradcam"]
        np.testing.assert_array_equal(points, [(row.difference.value, line)])
        whiskers = defined(lines_of(axes, "whiskers")[f"{row.measure} gradcam"])
        np.testing.assert_array_equal(whiskers, [(row.difference.low, line), (row.difference.high, line)])
    words = [text.get_text() for text in texts_of(figure)]
    assert words[words.index("Robustness RM") :][:3] == ["Robustness RM", "+0.012", "0.030"]
    assert words[words.index("Flip rate") :][:3] == ["Flip rate", "−0.070", "< 0.001"]
    assert {"← checkpoint_a larger", "checkpoint_b larger →"} <= set(words)


# --- Pages and files --------------------------------------------------------------------------------------------------


@every_width
@every_figure
def test_no_text_leaves_the_figure(name, width):
    figure = drawn(name, width)
    renderer = figure.canvas.get_renderer()
    box = figure.bbox.padded(1.0)
    for text in texts_of(figure):
        extent = text.get_window_extent(renderer)
        assert box.x0 <= extent.x0, text
        assert extent.x1 <= box.x1, text
        assert box.y0 <= extent.y0, text
        assert extent.y1 <= box.y1, text


@every_figure
def test_an_inline_figure_is_small_themable_and_readable(name):
    figure = drawn(name)
    svg = as_svg(figure)
    root = ElementTree.fromstring(svg)
    assert len(svg.encode()) < 60_000
    assert root.get("role") == "img"
    ids = {element.get("id"): element for element in root.iter() if element.get("id")}
    title, description = (ids[each] for each in root.get("aria-labelledby").split())
    assert title.text == str(figure.get_label()).split("\n")[0]
    assert len(description.text) > 20
    for wanted in re.findall(r"(?:url\(#|href=\"#)([\w.-]+)", svg):
        assert wanted in ids
    assert len(set(re.findall(r"\sid=", svg))) == 1
    body = svg.split(">", 1)[1]
    assert not re.findall(r":#[0-9a-f]{3,6}", body), "a colour that does not follow the theme"
    assert "<style" not in svg
    assert "DejaVu" not in svg
    words = {element.text for element in root.iter() if element.tag.endswith("}text")}
    assert {text.get_text() for text in texts_of(figure)} <= words


def test_points_of_the_svg_lie_where_the_numbers_are():
    figure = draw_forest(MODEL, kind="photometric", palette=PALETTE)
    root = ElementTree.fromstring(as_svg(figure))
    height = figure.get_figheight() * 72
    marks = [(float(each.get("x")), float(each.get("y"))) for each in root.iter() if each.tag.endswith("}use")]
    for axes in figure.axes[1:]:
        for points in lines_of(axes, "points").values():
            x, y = axes.transData.transform(points[0]) * 72 / figure.dpi
            assert min(math.dist((x, height - y), mark) for mark in marks) < 0.1


def test_figures_share_a_page_without_sharing_ids():
    svgs = [as_svg(drawn(name, width)) for name in FIGURES for width in (WIDE, NARROW)]
    ids = Counter(each for svg in svgs for each in re.findall(r'\sid="([^"]+)"', svg))
    assert max(ids.values()) == 1


def test_labels_are_text_and_never_markup():
    nasty = 'a<b>&"$x_1$</svg>'
    model = replace(
        MODEL, model=nasty, scores=tuple(replace(row, method=nasty) for row in MODEL.scores if row.method == "gradcam")
    )
    palette = LIGHT.for_methods([nasty])
    for draw in (draw_forest, draw_heatmap, draw_severity_curves):
        root = ElementTree.fromstring(as_svg(draw(model, kind="photometric", palette=palette)))
        assert nasty in {element.text for element in root.iter()}


@pytest.mark.parametrize("name", ["curves", "heatmap", "ranks"])
def test_equal_figures_are_equal_bytes_whatever_the_user_has_set(name, tmp_path):
    first = save_figure(FIGURES[name](palette=PALETTE), tmp_path / "p=0.9")
    assert [path.name for path in first] == ["p=0.9.png", "p=0.9.svg"]
    settings = {
        "font.size": 30,
        "axes.grid": True,
        "lines.linewidth": 9,
        "svg.fonttype": "path",
        "figure.dpi": 33,
        "savefig.dpi": 20,
        "axes.prop_cycle": matplotlib.cycler(color=["red"]),
        "savefig.facecolor": "red",
    }
    with matplotlib.rc_context(settings):
        second = save_figure(FIGURES[name](palette=PALETTE), tmp_path / "again")
        assert as_svg(FIGURES[name](palette=PALETTE)) == as_svg(drawn(name))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert "var(" not in first[1].read_text()


def test_the_users_matplotlib_is_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    for name in ("curves", "heatmap", "ranks", "forest", "settings", "difference"):
        as_svg(FIGURES[name](palette=PALETTE))
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, lightning_camrobust.study.figures.style as style, lightning_camrobust.study.figures.forest\n"
        "import lightning_camrobust.study.figures.settings, lightning_camrobust.study.figures.difference\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from lightning_camrobust.study.figures.sheet import Heading, new_sheet\n"
        "with style.own_settings(): sheet = new_sheet(Heading('a'), palette=style.LIGHT, width=2, body=9)\n"
        f"style.save_figure(sheet.figure, {str(tmp_path / 'x')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


# --- Colours ----------------------------------------------------------------------------------------------------------


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Contrast of WCAG 2, of linear colours."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted((weights @ one, weights @ other))
    return (high + 0.05) / (low + 0.05)


def over(tint, surface):
    values = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in (tint[0], surface)]
    mixed = tint[1] * values[0] + (1 - tint[1]) * values[1]
    return linear("#" + "".join(f"{round(value):02x}" for value in mixed))


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_page(palette):
    page = linear(palette.surface)
    for colour in (palette.ink, palette.muted, palette.warning):
        assert contrast(linear(colour), page) >= 4.5
    for colour in palette.categories:
        assert contrast(linear(colour), page) >= 3
    for tint in (palette.sequential(1.0), palette.diverging(1.0), palette.diverging(-1.0)):
        assert contrast(linear(palette.ink), over(tint, palette.surface)) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SEEN_BY = {
    "all": np.eye(3),
    "deuteranopes": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopes": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def as_lab(values):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ np.clip(values, 0, 1) / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen_by", SEEN_BY)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_methods_differ_for_colour_blind_readers(palette, seen_by):
    looks = [palette.for_methods(ALL).look(method) for method in ALL]
    assert len({look.marker for look in looks}) == 10
    seen = [as_lab(SEEN_BY[seen_by] @ linear(look.colour)) for look in looks]
    nearest = min(np.linalg.norm(one - other) for one, other in combinations(seen, 2))
    first_six = min(np.linalg.norm(one - other) for one, other in combinations(seen[:6], 2))
    assert nearest >= 8
    assert first_six >= 12


def test_a_method_looks_the_same_in_every_figure_of_a_report():
    palette = LIGHT.for_methods([*METHODS, *METHODS])
    assert palette.methods == METHODS
    colour = palette.look("eigencam").colour
    figures = [FIGURES[name](palette=palette) for name in ("curves", "forest")]
    for figure in figures:
        drawn = [
            line for axes in figure.axes for line in axes.get_lines() if str(line.get_label()).endswith(" eigencam")
        ]
        assert drawn
        assert {line.get_color() for line in drawn} == {colour}
    many = LIGHT.for_methods([f"m{i}" for i in range(40)])
    assert len({many.look(f"m{i}") for i in range(40)}) == 40


def test_every_colour_has_one_variable():
    pairs = [(colour, name) for palette in (LIGHT, DARK) for name, colour in palette.variables().items()]
    assert len({colour for colour, _ in pairs}) == len(pairs) == 2 * 17
    assert as_svg(FIGURES["forest"](palette=DARK.for_methods(ALL))).count(f"var(--ink,{DARK.ink})") == 1


# --- What cannot be drawn ---------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ArgumentError, match=r"`method` must be one of \['a'\], got 'gradcam"):
        draw_forest(MODEL, kind="photometric", palette=LIGHT.for_methods(["a"]))
    for draw in (draw_forest, draw_heatmap, draw_severity_curves):
        with pytest.raises(ArgumentError, match=r"kind 'attack', 'efficientnet_lite0' has none.*\['photometric'\]"):
            draw(MODEL, kind="attack", palette=PALETTE)
    for draw in (draw_heatmap, draw_severity_curves):
        with pytest.raises(ArgumentError, match="`measure` must be one of"):
            draw(MODEL, kind="photometric", palette=PALETTE, measure="rm")
    with pytest.raises(ArgumentError, match="got none"):
        draw_difference([], palette=PALETTE)
    with pytest.raises(ArgumentError, match="same two models"):
        draw_difference([fake_difference(), replace(fake_difference(), first="c")], palette=PALETTE)


def test_nothing_defined_is_drawn_without_a_word_of_warning():
    rows = tuple(
        replace(row, robustness=NOTHING, consistency=NOTHING, responsiveness=NOTHING, chance_floor=NAN)
        for row in MODEL.scores
    )
    model = replace(MODEL, scores=rows)
    for draw in (draw_forest, draw_heatmap, draw_severity_curves):
        as_svg(draw(model, kind="photometric", palette=PALETTE))
    test = replace(fake_ranks(), p_value=NAN, statistic=NAN, kendall_w=NAN, critical_difference=NAN, cliques=())
    as_svg(draw_critical_difference(test, palette=PALETTE))
    readings = tuple(
        replace(row, robustness=(NAN,) * 6, tau=NAN, tau_interval=NOTHING) for row in fake_stability().rows
    )
    as_svg(draw_settings(replace(fake_stability(), rows=readings), palette=PALETTE))
    nothing = tuple(replace(row, difference=NOTHING, p_value=NAN, p_adjusted=NAN) for row in fake_difference().rows)
    as_svg(draw_difference([replace(fake_difference(), rows=nothing)], palette=PALETTE))
