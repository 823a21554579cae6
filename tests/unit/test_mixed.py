"""The comparison of several models against statsmodels, slow matrix algebra and simulated false alarms."""

import itertools
import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as formulas
from scipy import stats

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.statistics.mixed import mixed_comparison
from lightning_camrobust.study.statistics.model_tables import duplicate_methods
from lightning_camrobust.study.statistics.random_intercept import fit_random_intercept
from lightning_camrobust.study.statistics.wald import wald_test

METHODS = ["x", "y", "z"]


def some_values(*, images=80, models=2, methods=3, seed=0, missing=0.0, image_sd=1.0, image_model_sd=0.0, effect=0.0):
    """``(images, models, methods)`` with random effects of the image, and of the image on a model."""
    draws = np.random.default_rng(seed)
    values = image_sd * draws.normal(size=(images, 1, 1)) + draws.normal(size=(images, models, methods))
    values += image_model_sd * draws.normal(size=(images, models, 1))
    values += effect * np.arange(methods) + effect * np.arange(models)[:, None] * (np.arange(methods) == 1)
    values[draws.random(values.shape) < missing] = np.nan
    return values


def compared(values, methods=METHODS, **settings):
    tables = {f"m{index}": values[:, index] for index in range(values.shape[1])}
    return mixed_comparison(tables, methods, measure="consistency", **settings)


def as_frame(values):
    images, models, methods = np.meshgrid(*map(np.arange, values.shape), indexing="ij")
    return pd.DataFrame(
        {"value": values.ravel(), "image": images.ravel(), "model": models.ravel(), "method": methods.ravel()}
    ).dropna()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_means_and_share_equal_statsmodels(missing):
    values = some_values(missing=missing, effect=0.3, seed=1)
    found = compared(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = formulas.mixedlm("value ~ 0 + C(model):C(method)", as_frame(values), groups="image").fit(
            reml=True, method=["powell", "bfgs"]
        )
    share = float(fit.cov_re.iloc[0, 0])
    assert found.image_share == pytest.approx(share / (share + fit.scale), abs=1e-5)
    for (model, method), estimate in found.means.items():
        expected = fit.fe_params[f"C(model)[{model[1:]}]:C(method)[{METHODS.index(method)}]"]
        assert estimate.value == pytest.approx(expected, abs=1e-5)
    assert found.num_values == np.isfinite(values).sum()
    assert found.num_images == np.isfinite(values).any(axis=(1, 2)).sum()


def test_tests_equal_clustered_least_squares_of_statsmodels():
    values = some_values(effect=0.1, image_model_sd=0.7, seed=2)
    found = {row.term: row for row in compared(values).rows}
    fit = formulas.ols("value ~ C(model, Sum) * C(method, Sum)", as_frame(values)).fit(
        cov_type="cluster", cov_kwds={"groups": as_frame(values)["image"], "use_correction": False}
    )
    terms = fit.wald_test_terms(scalar=True).table
    names = {"model": "C(model, Sum)", "method": "C(method, Sum)", "method x model": "C(model, Sum):C(method, Sum)"}
    assert set(found) == set(names)
    for term, name in names.items():
        # Ours has n - 1 degrees of freedom in the covariance.
        assert found[term].statistic == pytest.approx(terms.loc[name, "statistic"] * 79 / 80, rel=1e-6)
        assert found[term].degrees == terms.loc[name, "df_constraint"]


def test_two_methods_on_one_model_are_students_paired_test():
    values = some_values(images=12, models=1, methods=2, effect=0.4, seed=3)
    found = compared(values, METHODS[:2])
    (row,) = found.rows
    expected = stats.ttest_rel(values[:, 0, 0], values[:, 0, 1])
    assert (row.term, row.degrees) == ("method", 1)
    assert row.statistic == pytest.approx(expected.statistic**2)
    assert row.p_value == pytest.approx(expected.pvalue)
    interval = stats.ttest_1samp(values[:, 0, 0], 0).confidence_interval(0.95)
    assert found.means["m0", "x"] == pytest.approx((values[:, 0, 0].mean(), *interval))


def test_share_of_complete_data_is_that_of_the_analysis_of_variance():
    values = some_values(seed=4).reshape(80, 6)
    images, cells = values.shape
    residual = values - values.mean(axis=0)
    between = cells * (residual.mean(axis=1) ** 2).sum() / (images - 1)
    within = ((residual - residual.mean(axis=1, keepdims=True)) ** 2).sum() / ((images - 1) * (cells - 1))
    expected = (between - within) / (between + (cells - 1) * within)
    assert fit_random_intercept(values).image_share == pytest.approx(expected, abs=1e-6)


def test_share_is_zero_where_images_are_less_alike_than_chance():
    values = some_values(image_sd=0.0, seed=5).reshape(80, 6)
    assert fit_random_intercept(values - 0.9 * values.mean(axis=1, keepdims=True)).image_share == 0.0


def test_share_is_one_where_images_differ_by_a_shift_only():
    values = np.random.default_rng(6).normal(size=(30, 1)) + np.arange(4)
    fit = fit_random_intercept(values)
    assert fit.image_share == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(fit.means, values.mean(axis=0), atol=1e-6)


def test_incomplete_data_equal_slow_matrix_algebra():
    values = some_values(images=25, missing=0.35, seed=7).reshape(25, 6)
    fit = fit_random_intercept(values)

    def profile(rho):
        information, right, determinants, pieces = np.zeros((6, 6)), np.zeros(6), 0.0, []
        for row in values:
            here = np.flatnonzero(~np.isnan(row))
            design, correlation = np.eye(6)[here], np.full((len(here), len(here)), rho)
            np.fill_diagonal(correlation, 1.0)
            inverse = np.linalg.inv(correlation)
            information += design.T @ inverse @ design
            right += design.T @ inverse @ row[here]
            determinants += np.linalg.slogdet(correlation)[1]
            pieces.append((row[here], design, inverse))
        means = np.linalg.solve(information, right)
        scatter = sum((y - x @ means) @ inverse @ (y - x @ means) for y, x, inverse in pieces)
        freedom = np.isfinite(values).sum() - 6
        criterion = freedom * np.log(scatter) + determinants + np.linalg.slogdet(information)[1]
        return criterion, means, np.linalg.inv(information), pieces

    best, means, bread, pieces = profile(fit.image_share)
    assert 0.1 < fit.image_share < 0.9
    assert all(profile(rho)[0] >= best - 1e-9 for rho in (*np.linspace(0, 0.95, 20), fit.image_share + 1e-3))
    np.testing.assert_allclose(fit.means, means)
    counts = np.isfinite(values).sum(axis=0)
    scale = np.sqrt(counts / (counts - 1))
    scores = [scale * (x.T @ inverse @ (y - x @ means)) for y, x, inverse in pieces]
    np.testing.assert_allclose(fit.covariance, bread @ sum(np.outer(each, each) for each in scores) @ bread)


def false_alarms(simulations, **settings):
    """Share of simulated comparisons without any effect in which each term is found."""
    alarms = np.zeros(3)
    for seed in range(simulations):
        values = some_values(seed=1000 + seed, **settings)
        if settings.get("methods") == 4:
            # The last one is a copy of the first on the first model, and everywhere on half of the images.
            values[:, 0, 3], values[: len(values) // 2, :, 3] = values[:, 0, 0], values[: len(values) // 2, :, 0]
        alarms += [row.p_value < 0.05 for row in compared(values, ["x", "y", "z", "w"][: values.shape[2]]).rows]
    return alarms / simulations


@pytest.mark.parametrize(
    "settings",
    [
        {"images": 30},
        {"images": 60, "image_model_sd": 1.5},
        {"images": 60, "image_model_sd": 1.0, "missing": 0.3},
        {"images": 60, "methods": 4},
    ],
    ids=["few images", "images differ by model", "missing values", "copies"],
)
def test_false_alarms_come_at_the_level(settings):
    found = false_alarms(500, **settings)
    assert (found >= 0.02).all(), found
    assert (found <= 0.08).all(), found


def with_rows_missing(seed, images, missing, image_model_sd):
    """Whole rows are missing, as where no prediction of a model on an image flips; images differ much."""
    values = some_values(images=images, image_sd=3.0, image_model_sd=image_model_sd, seed=seed)
    values[np.random.default_rng(9000 + seed).random(values.shape[:2]) < missing] = np.nan
    return values


@pytest.mark.parametrize(("images", "missing"), [(20, 0.5), (50, 0.6), (100, 0.8), (150, 0.6)])
def test_the_model_term_is_not_found_without_an_effect_where_the_models_share_few_images(images, missing):
    found = []
    for seed in range(200):
        values = with_rows_missing(seed, images, missing, image_model_sd=float(seed % 2))
        found += [row.p_value for row in compared(values).rows if row.term == "model"]
    tested = [p_value for p_value in found if not np.isnan(p_value)]
    # Of all, counting what is not tested as not found; where tests are many, at their level.
    assert np.mean(np.array(found) < 0.05) <= 0.08
    assert (len(tested) == 200) == (images == 150)
    if images == 150:
        assert np.mean(np.array(tested) < 0.05) >= 0.02
    if images in (20, 100):
        assert len(tested) <= 20


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_informative_images_equal_slow_matrix_algebra(share):
    values = some_values(images=25, missing=0.35, seed=7).reshape(25, 6)
    fit = replace(fit_random_intercept(values), image_share=share)
    contrasts = np.array([[1, 1, 1, -1, -1, -1], [1, -1, 0, 1, -1, 0.0]])
    parts = []
    for row in values:
        design = np.eye(6)[np.flatnonzero(~np.isnan(row))]
        correlation = np.full((len(design),) * 2, share) + (1 - share) * np.eye(len(design))
        parts.append(design.T @ np.linalg.inv(correlation) @ design)
    information = sum(parts)
    fit = replace(fit, information=information)
    bread = contrasts @ np.linalg.inv(information)
    scale = np.linalg.inv(bread @ information @ bread.T)
    shares = [np.trace(scale @ bread @ part @ bread.T) for part in parts]
    assert sum(shares) == pytest.approx(2)
    assert fit.informative_images(contrasts) == pytest.approx(4 / sum(each**2 for each in shares))
    whole = fit_random_intercept(some_values(images=25, seed=7).reshape(25, 6))
    assert whole.informative_images(contrasts) == pytest.approx(25)


def test_the_models_own_errors_would_cry_wolf():
    # Why the covariance is the robust one: the classical test of the model term, where images differ by model.
    alarms = 0
    for seed in range(200):
        values = some_values(images=60, image_model_sd=1.5, seed=2000 + seed)
        residual = values - values.mean(axis=0)
        residual -= residual.mean(axis=(1, 2), keepdims=True)
        variance = (residual**2).sum() / (59 * 5)
        shift = values[:, 0].mean() - values[:, 1].mean()
        alarms += shift**2 / (2 * variance / (60 * 3)) > stats.chi2.isf(0.05, 1)
    assert alarms / 200 > 0.15


def test_effects_are_found():
    rows = {row.term: row for row in compared(some_values(images=400, effect=0.5, seed=8)).rows}
    assert rows["method"].p_value < 1e-6
    assert rows["method x model"].p_value < 1e-3
    shift = 0.3 * np.arange(2)[:, None]
    rows = {row.term: row for row in compared(some_values(images=400, seed=8) + shift).rows}
    assert rows["model"].p_value < 1e-6
    assert min(rows["method"].p_value, rows["method x model"].p_value) > 0.01


def test_intervals_cover_their_means():
    covered = []
    for seed in range(300):
        found = compared(some_values(images=40, missing=0.3, seed=3000 + seed))
        covered += [estimate.low <= 0 <= estimate.high for estimate in found.means.values()]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_copies_enter_once_and_are_named():
    values = some_values(seed=9, effect=0.2)
    doubled = np.concatenate([values, values[:, :, :1] + 1e-13, values[:, :, 2:]], axis=2)
    plain, found = compared(values), compared(doubled, ["x", "y", "z", "u", "v"])
    assert found.rows == plain.rows
    assert found.image_share == plain.image_share
    assert found.means["m1", "u"] == found.means["m1", "x"]
    assert found.means["m0", "v"] == plain.means["m0", "z"]
    tables = {"m0": doubled[:, 0], "m1": doubled[:, 1]}
    assert duplicate_methods(tables, ["x", "y", "z", "u", "v"]) == (("x", "u"), ("z", "v"))
    # Values that are missing together do not tell them apart; a value that one has alone does, however late it comes.
    gaps = doubled.copy()
    gaps[5, 0, 0] = gaps[5, 0, 3] = gaps[70, 1, 4] = np.nan
    assert duplicate_methods({"m0": gaps[:, 0], "m1": gaps[:, 1]}, ["x", "y", "z", "u", "v"]) == (("x", "u"),)
    # Copies on one model only are different methods.
    doubled[3, 1, 3] += 0.1
    assert duplicate_methods({"m0": doubled[:, 0], "m1": doubled[:, 1]}, ["x", "y", "z", "u", "v"]) == (("z", "v"),)
    assert {row.degrees for row in compared(doubled, ["x", "y", "z", "u", "v"]).rows} == {1, 3}


def test_all_methods_the_same_and_all_models_the_same():
    one = np.random.default_rng(10).random((40, 1, 1))
    rows = {row.term: row for row in compared(np.broadcast_to(one, (40, 2, 3)).copy()).rows}
    assert all((row.statistic, row.degrees, row.p_value) == (0.0, 0, 1.0) for row in rows.values())
    # The same table for both models: methods differ, models do not.
    table = some_values(images=40, models=1, effect=0.5, seed=11)
    rows = {row.term: row for row in compared(np.repeat(table, 2, axis=1)).rows}
    assert rows["model"].p_value == rows["method x model"].p_value == 1.0
    assert rows["method"].p_value < 0.01
    assert rows["method"].degrees == 2


def test_a_certain_difference_is_certain():
    one = np.random.default_rng(12).random((40, 1, 1))
    rows = {row.term: row for row in compared(one + np.array([[0.0, 0.1, 0.3]] * 2)).rows}
    assert (rows["method"].statistic, rows["method"].p_value) == (np.inf, 0.0)
    assert rows["model"].p_value == 1.0
    constant = compared(np.full((5, 2, 3), 0.5))
    assert np.isnan(constant.image_share)
    assert constant.means["m0", "x"] == (0.5, 0.5, 0.5)


def test_missing_cells_images_and_too_few():
    values = some_values(seed=13)
    values[:, 1, 2] = np.nan
    values[:7] = np.nan
    found = compared(values)
    assert found.num_images == 73
    assert found.num_values == 73 * 5
    assert all(np.isnan([row.statistic, row.p_value]).all() for row in found.rows)
    assert np.isnan(found.means["m1", "z"]).all()
    assert found.means["m1", "y"].value == pytest.approx(values[7:, 1, 1].mean())
    few = compared(some_values(images=2, seed=14))
    assert [np.isnan(row.p_value) for row in few.rows] == [False, True, True]
    alone = compared(some_values(images=1, seed=14))
    assert all(np.isnan(row.p_value) for row in alone.rows)
    assert np.isnan(alone.means["m0", "x"].low)
    assert np.isfinite(alone.means["m0", "x"].value)
    for nothing in (np.full((4, 2, 3), np.nan), np.empty((0, 2, 3))):
        found = compared(nothing)
        assert (found.num_images, found.num_values) == (0, 0)
        assert np.isnan([row.p_value for row in found.rows]).all()
        assert np.isnan(found.image_share)
        assert np.isnan(list(found.means.values())).all()


def test_images_with_one_value_each():
    # Two models that have no image in common: Welch's situation.
    draws = np.random.default_rng(15)
    values = np.full((40, 2, 1), np.nan)
    values[:25, 0, 0], values[25:, 1, 0] = draws.normal(size=25), draws.normal(size=15)
    found = compared(values, ["x"])
    assert np.isnan(found.image_share)
    (row,) = found.rows
    expected = stats.ttest_ind(values[:25, 0, 0], values[25:, 1, 0], equal_var=False)
    assert row.statistic == pytest.approx(expected.statistic**2)


def test_one_model_one_method():
    found = compared(some_values(models=1, methods=1), ["x"])
    assert found.rows == ()
    assert list(found.means) == [("m0", "x")]
    assert [row.term for row in compared(some_values(models=3, methods=1), ["x"]).rows] == ["model"]


def test_wald_equals_hotellings_definition():
    sample = np.random.default_rng(16).normal(0.2, 1, size=(20, 3))
    mean, covariance = sample.mean(axis=0), np.cov(sample.T)
    expected = 20 * mean @ np.linalg.inv(covariance) @ mean
    test = wald_test(mean, covariance / 20, np.eye(3), num_images=20)
    assert test.statistic == pytest.approx(expected)
    assert test.p_value == pytest.approx(stats.f.sf(expected * 17 / (3 * 19), 3, 17))
    turned = np.random.default_rng(17).normal(size=(3, 3))
    assert wald_test(mean, covariance / 20, turned, num_images=20).statistic == pytest.approx(expected)


def test_order_of_models_methods_and_images_does_not_matter():
    values = some_values(missing=0.2, seed=18, effect=0.2)
    expected = {row.term: row.statistic for row in compared(values).rows}
    for images, models, methods in itertools.product([slice(None, None, -1)], [[1, 0]], [[2, 0, 1]]):
        turned = values[images][:, models][:, :, methods]
        assert {row.term: row.statistic for row in compared(turned).rows} == pytest.approx(expected, rel=1e-5)


def test_two_thousand_images_take_a_moment():
    values = some_values(images=2000, models=3, methods=6, missing=0.1, seed=19)
    started = time.perf_counter()
    compared(values, list("abcdef"))
    assert time.perf_counter() - started < 10


def test_what_does_not_fit_is_refused():
    table = np.zeros((5, 3))
    for tables in ({}, {"a": table, "b": table[:4]}):
        with pytest.raises(ArgumentError, match="mixed_comparison.*same images"):
            mixed_comparison(tables, METHODS, measure="consistency")
    with pytest.raises(ArgumentError, match="model 'a'.*images, methods"):
        mixed_comparison({"a": table}, ["x"], measure="consistency")
    with pytest.raises(ArgumentError, match="'robustness'"):
        mixed_comparison({"a": table}, METHODS, measure="robustness")
    with pytest.raises(ArgumentError, match="strictly"):
        mixed_comparison({"a": table}, METHODS, measure="consistency", confidence=95)
    with pytest.raises(ArgumentError, match="value in every cell"):
        fit_random_intercept(np.full((3, 2), np.nan))
