"""The report of a study: the page, its tables, its texts, and how they are put in place."""

import dataclasses
import errno
import html
import html.parser
import math
import os
import re

import numpy as np
import pandas
import pytest

from lightning_camrobust.study.findings import Estimate, Findings
from lightning_camrobust.study.page import report_page, writing
from lightning_camrobust.study.page.citation import bibliography
from lightning_camrobust.study.page.illustrations import draw_illustrations
from lightning_camrobust.study.page.methods_text import methods_paragraphs
from lightning_camrobust.study.page.pictures import embed_pictures
from lightning_camrobust.study.page.report_page import render_page, write_report
from lightning_camrobust.study.page.sections import make_sections, manifest_rows, model_name
from lightning_camrobust.study.page.sentences import friedman_words, model_line, pooled_rows, undefined_reason
from lightning_camrobust.study.page.tables import make_tables
from lightning_camrobust.study.page.texts import number, p_value
from lightning_camrobust.study.verdict import describe_model
from tests.unit.study_findings import UNDEFINED, make_findings, make_rank_test, make_score, write_gallery

VOID = {"wbr", "meta", "link", "br", "img", "hr", "input"}
# Pandas reads numbers to the last bit by itself since version 3, and if asked to before.
EXACT = {"float_precision": "round_trip"} if int(pandas.__version__.split(".")[0]) < 3 else {}
NASTY = '<script>alert("x")</script>&amp;'


class Reader(html.parser.HTMLParser):
    """Collects elements and text, and checks that every element is closed where it should be."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another element"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def parse(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open, f"never closed: {reader.open}"
    return reader


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    findings = make_findings(gallery=write_gallery(folder))
    return findings, folder, write_report(findings, folder)


@pytest.fixture(scope="module")
def page(study):
    return study[2].read_text(encoding="utf-8")


def test_the_page_is_balanced_html_with_one_title_and_ordered_headings(page):
    reader = parse(page)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(page):
    reader = parse(page)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.tags:
        for name in ("aria-labelledby", "data-copy"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attributes in parse(page).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"):
            address = attributes.get(name)
            if address is None:
                continue
            allowed = address.startswith(("data:", "#")) or (tag == "a" and address.startswith("https://doi.org/"))
            assert allowed, f"{tag} {name}={address}"
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon", page)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "https://doi.org"}
    for address in re.findall(r"https?://[^\s\"'<>]+", page):
        assert any(address.startswith(each) for each in namespaces), address


def test_the_policy_forbids_the_network_and_lets_only_our_script_run(page):
    policy = next(
        attributes["content"]
        for _, attributes in parse(page).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)[1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_every_table_has_a_caption_and_scoped_headings_and_every_figure_a_text(page):
    reader = parse(page)
    counted = {tag: sum(each == tag for each, _ in reader.tags) for tag in ("table", "caption", "svg", "figcaption")}
    assert counted["table"] == counted["caption"] > 10
    assert all("scope" in attributes for tag, attributes in reader.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")
    for tag, attributes in reader.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-labelledby"]


def test_user_text_is_escaped_everywhere(tmp_path):
    methods = (NASTY + "a", NASTY + "b")
    fake = make_findings(models=(NASTY, NASTY + "2"), methods=methods, noises={NASTY: "photometric"}, title=NASTY)
    fake = dataclasses.replace(fake, verdict=(NASTY,), notes=(NASTY,), multiplicity=(NASTY,))
    baselines = ({"title": NASTY, "verdict": NASTY, "tables": [], "notes": [NASTY]},)
    fake = dataclasses.replace(fake, baselines=baselines, manifests=({NASTY: NASTY},))
    path = write_report(fake, tmp_path)
    reader = parse(path.read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert 'alert("x")' in "".join(reader.text)
    assert all(re.fullmatch(r"[\w.-]+", each.name) for each in tmp_path.rglob("*"))


def words_in(text):
    return set(re.findall(r"[a-z]+", text.lower()))


def test_nan_is_never_printed(tmp_path):
    fake = make_findings()
    lost = [dataclasses.replace(row, robustness=UNDEFINED, changed_count=0) for row in fake.models[0].scores]
    model = dataclasses.replace(fake.models[0], scores=tuple(lost), accuracy=math.nan, seconds=math.nan)
    stability = model.stability
    rows = [dataclasses.replace(row, tau=math.nan, tau_interval=UNDEFINED) for row in stability.rows]
    rows = [dataclasses.replace(row, robustness=(math.nan,) * len(row.robustness)) for row in rows]
    tests = [dataclasses.replace(test, p_value=math.nan, critical_difference=math.nan) for test in model.rank_tests]
    pairs = [
        dataclasses.replace(pair, difference=UNDEFINED, p_value=math.nan, p_adjusted=math.nan) for pair in model.pairs
    ]
    model = dataclasses.replace(
        model,
        stability=dataclasses.replace(stability, rows=tuple(rows), stable=False, reasons=()),
        rank_tests=tuple(tests),
        pairs=tuple(pairs),
    )
    page = render_page(dataclasses.replace(fake, models=(model,), mixed=(), differences=()))
    assert not words_in("".join(parse(page).text)) & {"nan", "inf", "none"}
    for table in make_tables(fake):
        assert "nan" not in re.split(r"[,\n]", table.as_csv().lower())


def test_every_number_of_the_main_table_is_on_the_page_at_three_decimals(study, page):
    text = "".join(parse(page).text)
    for model in study[0].models:
        for row in pooled_rows(model.scores, "photometric"):
            assert f"{row.robustness.value:.3f}" in text
            assert f"[{row.robustness.low:.3f}, {row.robustness.high:.3f}]" in text
            assert f"{row.same_count:,}" in text


def as_read(folder, name):
    return pandas.read_csv(folder / "tables" / f"{name}.csv", **EXACT)


def same_bits(read, expected):
    read, expected = np.asarray(read, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    both = np.isnan(read) & np.isnan(expected)
    return np.array_equal(np.where(both, 0, read).view(np.int64), np.where(both, 0, expected).view(np.int64))


def test_scores_read_back_bit_for_bit(study):
    findings, folder, _ = study
    read = as_read(folder, "scores")
    rows = [row for model in findings.models for row in (*model.scores, *model.correct_scores)]
    assert len(read) == len(rows)
    for name in ("robustness", "consistency", "responsiveness", "flip_rate", "robustness_macro"):
        for suffix, bound in (("", "value"), ("_low", "low"), ("_high", "high")):
            assert same_bits(read[name + suffix], [getattr(getattr(row, name), bound) for row in rows])
    for name in ("same_count", "changed_count", "degenerate_count", "same_images", "changed_images"):
        assert list(read[name]) == [getattr(row, name) for row in rows]
    assert same_bits(read["chance_floor"], [row.chance_floor for row in rows])
    assert list(read["low_support"]) == [row.low_support for row in rows]
    assert [each if isinstance(each, str) else None for each in read["perturbation"]] == [r.perturbation for r in rows]
    severities = [math.nan if row.severity is None else row.severity for row in rows]
    assert same_bits(read["severity"], severities)
    assert read["robustness"].isna().sum() == sum(math.isnan(row.robustness.value) for row in rows) > 0


def test_other_tables_read_back_bit_for_bit(study):
    findings, folder, _ = study
    pairs = [pair for model in findings.models for pair in model.pairs]
    read = as_read(folder, "pairs")
    for name in ("p_value", "p_adjusted", "effect"):
        assert same_bits(read[name], [getattr(pair, name) for pair in pairs])
    assert same_bits(read["difference"], [pair.difference.value for pair in pairs])
    settings = [row for model in findings.models for row in model.stability.rows]
    assert same_bits(as_read(folder, "settings")["tau"], [row.tau for row in settings])
    values = [value for row in settings for value in row.robustness]
    assert same_bits(as_read(folder, "setting_scores")["robustness"], values)
    ranks = [rank for model in findings.models for test in model.rank_tests for rank in test.mean_ranks]
    assert same_bits(as_read(folder, "mean_ranks")["mean_rank"], ranks)
    means = [mean.value for fit in findings.mixed for mean in fit.means.values()]
    assert same_bits(as_read(folder, "mixed_means")["mean"], means)
    rows = [row for each in findings.differences for row in each.rows]
    assert same_bits(as_read(folder, "differences")["difference_high"], [row.difference.high for row in rows])
    assert same_bits(as_read(folder, "baselines_1_1")["neutrality"], [0.12, 0.31, math.nan])


def test_tables_hold_every_awkward_text_and_number():
    fake = make_findings(models=('a,"b"\nc',), methods=("é",))
    row = dataclasses.replace(
        fake.models[0].scores[0], chance_floor=5e-324, robustness=Estimate(0.1 + 0.2, -0.0, 1e300)
    )
    fake = dataclasses.replace(fake, models=(dataclasses.replace(fake.models[0], scores=(row,), correct_scores=()),))
    import io

    text = next(table for table in make_tables(fake) if table.name == "scores").as_csv()
    read = pandas.read_csv(io.StringIO(text), **EXACT)
    assert read["model"][0] == 'a,"b"\nc'
    assert read["method"][0] == "é"
    assert same_bits(
        [read["robustness"][0], read["robustness_low"][0], read["robustness_high"][0], read["chance_floor"][0]],
        [0.1 + 0.2, -0.0, 1e300, 5e-324],
    )


def test_sections_without_content_vanish():
    assert make_sections(Findings("t", verdict=(), models=()), (), ()) == ()
    page = render_page(Findings("t", verdict=(), models=()))
    assert "<section" not in page
    assert 'class="verdict"' not in page
    parse(page)
    bare = make_findings(mixed=(), differences=(), baselines=(), manifests=(), notes=())
    anchors = [section.anchor for section in make_sections(bare, (), ())]
    assert anchors == [
        *("scores-photometric", "scores-geometric", "scores-attack", "ranks", "pairs", "settings"),
        *("methods", "citation", "reproducing"),
    ]


def test_one_model_and_one_method_are_enough(tmp_path):
    fake = make_findings(
        models=("net",), methods=("gradcam",), noises={"jpeg": "photometric"}, mixed=(), baselines=(), verdict=()
    )
    page = write_report(fake, tmp_path).read_text(encoding="utf-8")
    parse(page)
    assert model_line(fake.models[0]).best.startswith("gradcam is the only method with a robustness on photometric")
    assert "was not asked" in page
    assert "Methods in pairs" not in page
    assert "ranking not checked" in page


def test_kinds_of_noise_never_share_a_table():
    fake = make_findings()
    for section in make_sections(fake, (), ()):
        if section.anchor.startswith("scores-"):
            for model in section.content["models"]:
                for rows in (model["pooled"], model["by_noise"], model["correct"]):
                    assert {row.kind for row in rows} <= {section.anchor.removeprefix("scores-")}
                assert len(model["pooled"]) == 6


def test_the_line_of_a_model_names_the_best_and_its_equals():
    fake = make_findings()
    model = fake.models[0]
    line = model_line(model)
    rows = [row for row in model.scores if row.kind == "photometric" and row.perturbation is None]
    best = max(rows, key=lambda row: row.robustness.value)
    assert line.best.startswith(f"{best.method} is highest on photometric noises, RM = {best.robustness.value:.3f} [")
    equals = [
        pair
        for pair in model.pairs
        if pair.measure == "robustness" and best.method in (pair.first, pair.second) and pair.p_adjusted >= 0.05
    ]
    assert ("not told apart from" in line.best) == bool(equals)
    sure = [dataclasses.replace(pair, p_adjusted=0.0499) for pair in model.pairs]
    assert "not told apart" not in model_line(dataclasses.replace(model, pairs=tuple(sure))).best
    unsure = [dataclasses.replace(pair, p_adjusted=math.nan) for pair in model.pairs]
    assert "not told apart from gradcam, hirescam" in model_line(dataclasses.replace(model, pairs=tuple(unsure))).best
    assert line.stable
    assert "stable under 7 other settings" in line.ranking
    other = model_line(fake.models[1])
    assert not other.stable
    assert "not stable, because with p=" in other.ranking


def test_the_page_tells_luck_from_an_order_that_changes():
    fake = make_findings(**SMALL | {"methods": ("gradcam", "eigencam")})
    model = fake.models[0]
    broken = dataclasses.replace(model.stability, stable=False, reasons=("p=0.5: Kendall tau -1.00 < 0.8; luck.",))
    badges = {
        "none": ("✗ ranking not stable", "✗ not stable", "The ranking is not stable, because with p=0.5"),
        "real": ("✗ ranking not stable", "✗ not stable", "The ranking is not stable, because with p=0.5"),
        "chance": (*["only methods not told apart change places"] * 2, "The order changes only among methods that are"),
    }
    for change, said in badges.items():
        judged = dataclasses.replace(broken, change=change)
        found = dataclasses.replace(fake, models=(dataclasses.replace(model, stability=judged),))
        text = "".join(parse(render_page(found, (), ())).text)
        assert all(each in text for each in said)
        assert ("not stable" in text) == (change != "chance")
        assert model_line(found.models[0]).only_chance == (change == "chance")


def test_the_page_says_which_test_of_two_models_is_the_primary_one_and_what_low_support_is():
    fake = make_findings()
    text = " ".join("".join(parse(render_page(fake, (), ())).text).split())
    assert "The bootstrap of robustness is the primary test, corrected only over the pairs of models" in text
    assert "fewer than 30 pairs, or pairs of fewer than 10 images," in text
    model = fake.models[0]
    few = tuple(dataclasses.replace(row, low_support=True, changed_images=4) for row in model.scores)
    assert re.search(
        r"on low support \([\d,]+ same pairs of 1,000 images, [\d,]+ changed pairs of 4 images\)",
        model_line(dataclasses.replace(model, scores=few)).best,
    )


def test_undefined_scores_come_last_and_say_why():
    rng = np.random.default_rng(0)
    defined = make_score("gradcam", "photometric", None, None, rng, 0)
    lost = dataclasses.replace(defined, method="a", robustness=UNDEFINED, changed_count=0)
    all_changed = dataclasses.replace(lost, changed_count=7, same_count=0)
    nothing = dataclasses.replace(lost, same_count=0, degenerate_count=3)
    assert pooled_rows([lost, defined], "photometric") == [defined, lost]
    assert [undefined_reason(row) for row in (defined, lost, all_changed, nothing)] == [
        *("", "no prediction changed", "every prediction changed", "no pair could be scored")
    ]
    model = dataclasses.replace(make_findings().models[0], scores=(lost,), pairs=())
    assert model_line(model).best == "No method has a robustness on photometric noises: no prediction changed."


def test_friedman_in_words():
    rng = np.random.default_rng(0)
    test = make_rank_test("consistency", ("a", "b", "c", "d"), rng)
    words = friedman_words(test)
    assert "On 640 images, the methods do not rank alike by consistency" in words
    assert "chi-squared(3) = 412.7, p < 0.001" in words
    assert "moderately on the order (Kendall's W = 0.310)" in words
    assert "Not told apart: a and b; c and d." in words
    assert "no difference between methods is shown" in friedman_words(dataclasses.replace(test, p_value=0.05))
    assert "not defined" in friedman_words(dataclasses.replace(test, p_value=math.nan))


def test_the_methods_paragraph_says_what_was_done_and_nothing_else():
    fake = make_findings()
    text = " ".join(methods_paragraphs(fake))
    for part in (
        *("efficientnet_lite0 at layer features.layer4.2.conv3 (1,000 images of imagenet-1000, 75.2% of them", "pgd"),
        *("at severities 1, 3 and 5", "rankings: rbo (p = 0.2, ties = b).", "2,000 resamples", "95%"),
        *("image: quickshift (kernel_size = 5, max_dist = 200, ratio = 0.2).", "pixels: mean.", "explains: predicted."),
        *("Friedman's test", "torch 2.4.1", "Seed: 0.", "0.048", *fake.multiplicity),
    ):
        assert part in text, part
    silent = make_findings(manifests=(), mixed=())
    text = " ".join(methods_paragraphs(silent))
    assert "rbo" not in text.replace("camrobust", "")
    assert "Seed" not in text
    assert "mixed model" not in text


def test_the_methods_paragraph_names_the_class_of_the_grid_and_no_other():
    fake = make_findings()
    settings = {**fake.manifests[0]["settings"]}
    settings["grid"] = {**settings["grid"], "target": 3}
    text = " ".join(methods_paragraphs(dataclasses.replace(fake, manifests=({"settings": settings},))))
    assert "Class that the noisy map explains: 3." in text
    assert "Uniformly random rankings of the segments would score" in text


def test_notes_stand_with_the_comparisons_and_not_in_the_text_for_papers():
    fake = make_findings(differences=(), notes=("One and two are not compared.",))
    (section,) = (each for each in make_sections(fake, (), ()) if each.anchor == "differences")
    assert section.content["notes"] == ("One and two are not compared.",)
    assert "not compared" not in " ".join(methods_paragraphs(fake))


def test_the_mixed_model_is_tested_by_hotelling_and_shows_both_degrees_of_freedom(study, page):
    text = " ".join("".join(parse(page).text).split())
    assert "Wald" not in text
    assert "chi-squared" not in text.replace("Friedman's chi-squared", "")
    assert "Hotelling's T²" in text
    assert "clustered by image" in text
    row = study[0].mixed[0].rows[0]
    assert f"{row.degrees}, {row.denominator}" in text
    # F is T squared, scaled by (n - q) / (q (n - 1)).
    assert f"{812.2 * 995 / (5 * 999):.1f}" in text
    assert math.isnan(dataclasses.replace(row, denominator=0).f_value)
    methods = " ".join(methods_paragraphs(study[0]))
    assert "Hotelling's T squared" in methods
    assert "F distribution" in methods


ATTACKS_ONLY = {"fgsm": "attack", "pgd": "attack"}


@pytest.mark.parametrize(("noises", "words"), [(None, "photometric noises"), (ATTACKS_ONLY, "attacks")])
def test_what_ranks_rest_on_is_named_wherever_there_is_a_ranking(noises, words):
    fake = make_findings(noises=noises)
    kind = "attack" if noises else "photometric"
    fake = dataclasses.replace(fake, mixed=tuple(dataclasses.replace(each, kind=kind) for each in fake.mixed))
    page = render_page(fake, draw_illustrations(fake))
    for anchor in ("ranks", "pairs", "settings", "mixed"):
        section = page.split(f'<section id="{anchor}"')[1].split("</section>")[0]
        text = " ".join("".join(parse(section).text).split()).lower()
        headings = re.findall(r"<h[34]>(.*?)</h[34]>", section, flags=re.DOTALL)
        assert words in text, anchor
        assert headings, anchor
    assert f"on {words}" in " ".join(methods_paragraphs(fake))
    tables = {table.name: table for table in make_tables(fake)}
    for name in ("pairs", "rank_tests", "mean_ranks", "settings", "setting_scores", "mixed_terms", "mixed_means"):
        column = tables[name].columns.index("kind")
        assert {row[column] for row in tables[name].rows} == {kind}, name
    for each in draw_illustrations(fake):
        if each.group.startswith(("ranks", "settings")):
            assert words in each.caption.lower()


def test_methods_say_which_interval_and_which_test_belongs_to_what():
    fake = make_findings()
    text = " ".join(methods_paragraphs(fake))
    assert "repeated under p=0.5, p=0.8" in text
    assert "(main)" not in text
    for part in (
        *("bias-corrected and accelerated (BCa)", "Student's t", "percentile intervals of the same bootstrap"),
        *("intervals of Kendall's tau are plain percentiles", "robustness by the cluster bootstrap"),
        "consistency and responsiveness by Wilcoxon's signed-rank test",
    ):
        assert part in text, part
    alone = make_findings(models=("net",), methods=("gradcam",), mixed=())
    text = " ".join(methods_paragraphs(alone))
    assert "Wilcoxon" not in text.replace(" ".join(alone.multiplicity), "")
    assert "Kendall" not in text


def test_methods_say_resolution_severities_and_sizes_of_attacks_where_they_are_known():
    fake = make_findings()
    facts = {
        "image_size": [3, 32, 32],
        "levels": {"jpeg": {"1": 80, "3": 58, "5": 40}, "fgsm": {"1": 1 / 255, "3": 4 / 255, "5": 16 / 255}},
        "networks": {"resnet50": {"class": "ResNet", "parameters": 25557032}},
    }
    known = dataclasses.replace(fake, manifests=({**fake.manifests[0], "facts": facts},))
    text = " ".join(methods_paragraphs(known))
    for part in (
        *("32 x 32 pixels with 3 channels", "jpeg 80, 58 and 40", "fgsm 1/255, 4/255 and 16/255"),
        *("resnet50 (ResNet, 25,557,032 parameters)", "columns for small images (CIFAR-C)"),
    ):
        assert part in text, part
    large = {**facts, "image_size": [3, 224, 224]}
    known = dataclasses.replace(fake, manifests=({**fake.manifests[0], "facts": large},))
    assert "columns for large images (ImageNet-C)" in " ".join(methods_paragraphs(known))
    text = " ".join(methods_paragraphs(fake))
    assert "pixels with" not in text
    assert "ResNet," not in text
    parse(render_page(known))


def test_pictures_by_their_whole_path_are_shown_wherever_the_page_lies(tmp_path):
    study_folder, output = tmp_path / "monday", tmp_path / "elsewhere"
    items = write_gallery(study_folder, count=2)
    whole = [dataclasses.replace(item, file=str(study_folder / item.file)) for item in items]
    (study_folder / items[1].file).unlink()
    shown = embed_pictures(whole, output)
    assert shown[0].source.startswith("data:image/png")
    assert [picture.source for picture in shown[1:]] == [""]
    assert [picture.file for picture in shown] == [f"{item.file} of monday" for item in items]
    page = render_page(make_findings(), (), shown)
    assert str(tmp_path) not in page
    assert "the picture gallery/01.png of monday is missing" in page


def test_the_page_says_what_the_changes_of_classes_rest_on(page):
    text = " ".join("".join(parse(page).text).split())
    assert "pairs on which both models kept their prediction" in text
    assert "second minus first, most changed first" not in text
    assert "those with too few images for a test last" in text
    assert "intervals are Student's t, p is Wilcoxon's" in text


def test_a_dash_is_explained_for_every_column(page):
    text = " ".join("".join(parse(page).text).split())
    assert "no pair of that kind exists, so" not in text
    assert "what the number is made from is missing" in text


def best_rows(model):
    page = render_page(Findings("t", (), (model,)))
    return re.findall(r'<tr class="best"><th[^>]*>(.*?)</th>', page)


def test_rows_stand_out_only_with_all_that_are_not_told_apart_from_the_best():
    model = make_findings().models[0]
    best, *others = [row.method for row in pooled_rows(model.scores, "photometric")]
    equal = others[1]

    def adjusted(pair):
        known = {pair.first, pair.second} == {best, equal}
        return dataclasses.replace(pair, p_adjusted=0.5 if known else 0.001)

    changed = dataclasses.replace(model, pairs=tuple(map(adjusted, model.pairs)))
    assert [row.replace("<wbr>", "").split("<")[0] for row in best_rows(changed)] == [best, equal]
    # Nothing is tested on other kinds of noise, nor without pairs.
    assert best_rows(dataclasses.replace(model, pairs=())) == []


def test_headers_stand_above_their_cells(page):
    for table in re.findall(r"<table.*?</table>", page, flags=re.DOTALL):
        head, body = table.split("<tbody>")
        heads = re.findall(r"<th\b([^>]*)>", head)
        first = re.findall(r"<t[hd]\b([^>]*)>", body.split("</tr>")[0])
        sides = [["word" in cell or "long" in cell for cell in cells] for cells in (heads, first)]
        assert sides[0] == sides[1], re.sub(r"<[^>]+>", " ", head)


def test_only_methods_that_were_used_are_cited():
    text = bibliography(["gradcam_plusplus", "layercam_2", "smooth(hirescam)", "mine"], ["jpeg", "pgd"])
    keys = re.findall(r"^@\w+\{([\w]+),", text, flags=re.MULTILINE)
    assert keys == [
        *("lightning_camrobust", "sarkar2025assessing", "webber2010similarity", "corsi2024treatment"),
        *("hendrycks2019benchmarking", "demsar2006statistical", "efron1987better", "holm1979simple"),
        *("chattopadhay2018gradcampp", "jiang2021layercam"),
        *("smilkov2017smoothgrad", "draelos2020hirescam", "madry2018towards"),
    ]
    assert text.count("{") == text.count("}")
    assert "10.1016/j.imavis.2025.105717" in text


def test_entries_are_whole():
    from lightning_camrobust.members import member_names

    names = [*member_names("cams"), *member_names("perturb")]
    text = bibliography(names, segmenters=["quickshift", "slic"], critique=True)
    assert "and others" not in text
    for part in (
        *("Sarkar, Syamantak and Bora, Revoti P. and Kaushal, Bhupender and George, Sudhish N. and Raja, Kiran",),
        *("2508.18154", "1610.02391", "1710.11063", "2008.02312", "2011.08891", "2008.00299", "2202.00449"),
        *("vedaldi2008quick", "achanta2012slic", "petsiuk2018rise", "rong2022consistent"),
        *("International Conference on Computer Vision", "British Machine Vision Conference"),
    ):
        assert part in text, part
    keys = re.findall(r"^@\w+\{([\w]+),", text, flags=re.MULTILINE)
    assert len(keys) == len(set(keys))
    bare = bibliography(["gradcam"], segmenters=["grid"])
    assert not re.search("vedaldi|achanta|petsiuk|rong", bare)
    assert "booktitle = {IEEE International Conference on Computer Vision}" in bare


def test_a_study_cites_its_segmenters_and_its_critique():
    def cited(findings):
        return next(each for each in make_sections(findings, (), ()) if each.anchor == "citation").content["bibtex"]

    fake = make_findings()
    assert "vedaldi2008quick" in cited(fake)
    assert "rong2022consistent" in cited(fake)
    assert "rong2022consistent" not in cited(make_findings(baselines=()))
    assert "vedaldi2008quick" not in cited(make_findings(manifests=()))


def test_all_methods_of_the_package_can_be_cited():
    from lightning_camrobust.members import member_names

    for name in member_names("cams"):
        assert bibliography([name]).count("@") == 9, name


def test_pictures_are_part_of_the_page_unless_left_out(study, tmp_path):
    findings, folder, path = study
    sources = [attributes["src"] for tag, attributes in parse(path.read_text()).tags if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    bare = make_findings(**SMALL, gallery=write_gallery(tmp_path))
    without = write_report(bare, tmp_path, pictures=False).read_text()
    assert "<img" not in without
    assert "Most and least stable" not in without
    tight = embed_pictures(findings.gallery, folder, generous=10)
    assert all(picture.source.startswith(("data:image/webp", "data:image/jpeg")) for picture in tight)


def test_a_missing_or_foreign_picture_is_said_to_be_missing(tmp_path):
    folder = tmp_path / "study"
    items = write_gallery(folder, count=1)
    (tmp_path / "secret.png").write_bytes((folder / items[0].file).read_bytes())
    (folder / "text.png").write_text("no picture")
    items = [dataclasses.replace(items[0], file=file) for file in ("gone.png", "../secret.png", "text.png")]
    pictures = embed_pictures(items, folder)
    assert [picture.source for picture in pictures] == ["", "", ""]
    page = render_page(make_findings(), (), pictures)
    assert "the picture ../secret.png is missing" in page
    assert "<img" not in page


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SMALL = {"models": ("net",), "methods": ("gradcam",), "noises": {"jpeg": "photometric"}, "mixed": ()}


@pytest.fixture(scope="module")
def small_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_report(make_findings(**SMALL), folder)
    return contents(folder)


def put(files, folder):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("fails_at", [0, 1, "page"])
def test_a_failing_move_leaves_the_earlier_report_intact(small_report, tmp_path, monkeypatch, fails_at):
    put(small_report, tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    before = contents(tmp_path)
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        due = str(target).endswith("report.html") if fails_at == "page" else len(calls) == fails_at + 1
        # Bringing files back has to work; putting new ones in place fails once.
        if due and ".before-" not in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    # The new report has no figures, so that those of the earlier one are on their way out when it fails.
    monkeypatch.setattr(report_page, "draw_illustrations", lambda findings: ())
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(writing.ReportWriteError, match=r"(?s)No space left on device.*earlier report.*Free some space"):
        write_report(make_findings(**SMALL, seed=1), tmp_path)
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failing_figure_leaves_the_earlier_report_intact(small_report, tmp_path, monkeypatch):
    from lightning_camrobust.study.page import illustrations

    put(small_report, tmp_path)

    def full_disk(figure, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(illustrations, "save_figure", full_disk)
    with pytest.raises(writing.ReportWriteError):
        write_report(make_findings(**SMALL, seed=1), tmp_path)
    assert contents(tmp_path) == small_report


def test_files_of_an_earlier_report_go_and_files_of_others_stay(small_report, tmp_path):
    put(small_report, tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    (tmp_path / "manifest.json").write_text("{}")
    write_report(Findings("empty", verdict=(), models=()), tmp_path)
    assert set(contents(tmp_path)) == {"report.html", "manifest.json", "tables/mine.csv"}


def test_the_listing_of_a_page_cannot_reach_outside(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (tmp_path / "victim.csv").write_text("x")
    (folder / "manifest.json").write_text("{}")
    listing = '<meta name="camrobust-files" content="tables/../../victim.csv manifest.json ../victim.csv">'
    (folder / "report.html").write_text(listing)
    write_report(Findings("empty", verdict=(), models=()), folder)
    assert (tmp_path / "victim.csv").exists()
    assert (folder / "manifest.json").exists()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(writing.ReportWriteError, match=r"could not be written to .*file"):
        write_report(Findings("empty", verdict=(), models=()), tmp_path / "file" / "study")


def test_equal_findings_give_equal_bytes(small_report, tmp_path):
    write_report(make_findings(**SMALL), tmp_path)
    assert contents(tmp_path) == small_report


def test_models_with_one_name_are_told_apart():
    fake = make_findings()
    first = fake.models[0]
    other = dataclasses.replace(first, target_layer="layer3")
    assert model_name(first, [first, other]) == "efficientnet_lite0 at features.layer4.2.conv3"
    third = dataclasses.replace(first, data="cifar")
    assert model_name(third, [first, third]) == "efficientnet_lite0 on cifar"
    assert model_name(first, fake.models) == "efficientnet_lite0"


def test_long_and_nested_manifests():
    rows = dict(manifest_rows({"a": {"b": [{"c": 1}, {"c": None}]}, "long": list(range(1000)), "none": {}}))
    assert rows["a.b[1].c"] == "1"
    assert rows["a.b[2].c"] == "–"
    assert rows["none"] == "–"
    assert rows["long"].endswith("more characters in manifest.json)")


def test_the_page_is_small(page, study):
    pictures = sum(len(path.read_bytes()) * 4 // 3 for path in (study[1] / "gallery").iterdir())
    # Every figure is there twice, for wide and for narrow screens.
    assert len(page.encode()) - pictures < 680_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0.000"), (-0.0004, "0.000"), (-0.5, "−0.500"), (12345.6789, "12,345.679"), (math.inf, "∞")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.00099, "< 0.001"), (0.001, "0.001"), (1.0, "1.000"), (0.0, "< 0.001")])
def test_p_values(value, text):
    assert p_value(value) == text


def test_what_the_cards_say_of_each_of_several_models_is_not_said_twice():
    findings = make_findings()
    assert len(findings.models) > 1
    own = [sentence for model in findings.models for sentence in describe_model(model)]
    many = dataclasses.replace(findings, verdict=("All in all.", *own))
    page = render_page(many)
    assert "All in all." in page
    assert html.escape(own[0], quote=False) not in page
    alone = dataclasses.replace(many, models=findings.models[:1], verdict=tuple(describe_model(findings.models[0])))
    assert html.escape(alone.verdict[0], quote=False) in render_page(alone)
