import doctest
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import curve_fit
from sklearn import metrics as sklearn

from agiqa.cli import compare
from agiqa.core.errors import AgiqaError
from agiqa.data import metric_names, metrics
from agiqa.data.metric_names import FIGURES, TOO_FEW_TO_FIT
from agiqa.data.metrics import (
    METRICS,
    all_metrics,
    fit_logistic,
    krcc,
    mae,
    plcc,
    plcc_logistic,
    rmse,
    rmse_raw,
    srcc,
    summarise,
    why_undefined,
)

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], float]

CORRELATIONS: list[Metric] = [srcc, krcc, plcc, plcc_logistic]
EVERY: list[Metric] = [*CORRELATIONS, rmse, rmse_raw, mae]


def curved(seed: int = 0, count: int = 200, noise: float = 0.1) -> tuple[Array, Array]:
    """MOS from 1 to 5 that a logistic of the scores explains, up to noise."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(-2, 2, count)
    return 1 + 4 / (1 + np.exp(-2.5 * score)) + rng.normal(0, noise, count), score


def logistic_of_the_field(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    """As printed in MANIQA, MA-AGIQA and many others, after VQEG."""
    return np.asarray((b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2)


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(metrics)
    assert results.attempted >= 5
    assert results.failed == 0


@pytest.mark.parametrize("decimals", [8, 1, 0], ids=["no ties", "some ties", "many ties"])
@pytest.mark.parametrize("count", [2, 3, 30, 600])
def test_correlations_equal_scipy(decimals: int, count: int) -> None:
    rng = np.random.default_rng(count)
    mos = np.round(np.linspace(0, 5, count) + rng.normal(0, 0.1, count), decimals)
    score = np.round(mos + rng.normal(0, 1, count), decimals) + np.arange(count) // (count - 1)
    assert srcc(mos, score) == pytest.approx(stats.spearmanr(mos, score).statistic, abs=1e-12)
    assert krcc(mos, score) == pytest.approx(stats.kendalltau(mos, score).statistic, abs=1e-12)
    assert plcc(mos, score) == pytest.approx(stats.pearsonr(mos, score).statistic, abs=1e-12)


def test_the_logistic_is_the_fields() -> None:
    mos, score = curved()
    start = [mos.max(), mos.min(), score.mean(), score.std() / 4]
    parameters, *_ = curve_fit(logistic_of_the_field, score, mos, p0=start, maxfev=10_000)
    mapped = logistic_of_the_field(score, *parameters)
    assert fit_logistic(mos, score) == pytest.approx(mapped, abs=1e-4)
    assert plcc_logistic(mos, score) == pytest.approx(stats.pearsonr(mos, mapped)[0], abs=1e-7)
    assert rmse(mos, score) == pytest.approx(np.sqrt(np.mean((mos - mapped) ** 2)), abs=1e-6)
    assert rmse(mos, score) == pytest.approx(0.1, abs=0.02)  # the noise that was put in
    assert plcc_logistic(mos, score) > plcc(mos, score) + 0.01


def test_scores_the_wrong_way_round_show_in_all_but_the_logistic() -> None:
    mos, score = curved()
    assert srcc(mos, -score) == pytest.approx(-srcc(mos, score))
    assert krcc(mos, -score) == pytest.approx(-krcc(mos, score))
    assert plcc(mos, -score) == pytest.approx(-plcc(mos, score))
    assert plcc_logistic(mos, -score) == pytest.approx(plcc_logistic(mos, score), abs=1e-6)


def test_where_no_start_converges_it_is_logged_and_no_worse_than_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mos, score = curved()
    slope, offset = np.polyfit(score, mos, 1)
    line = np.sqrt(np.mean((mos - slope * score - offset) ** 2))
    monkeypatch.setattr(metrics, "MAX_EVALUATIONS", 1)
    with caplog.at_level("DEBUG", logger="agiqa.data.metrics"):
        assert rmse(mos, score) <= line
        assert rmse(slope * score + offset, score) == pytest.approx(0, abs=1e-9)
    assert "did not converge on 200 images" in caplog.text


def test_a_power_law_gets_the_closest_logistic() -> None:
    mos = np.linspace(0, 1, 300)
    assert plcc(mos, mos**9) < 0.75
    assert plcc_logistic(mos, mos**9) > 0.9


@pytest.mark.parametrize("count", [2, 3, 4])
def test_four_images_or_fewer_are_not_fitted_through(count: int) -> None:
    mos, score = np.array([1.0, 3.0, 2.0, 5.0])[:count], np.arange(4.0)[:count]
    assert plcc_logistic(mos, score) == pytest.approx(abs(plcc(mos, score)))


def test_rmse_of_constant_scores_is_the_spread_of_the_mos() -> None:
    mos = np.array([1.0, 2.0, 4.0, 5.0])
    assert rmse(mos, np.full(4, 7.0)) == pytest.approx(mos.std())
    assert rmse(np.full(4, 7.0), mos) == 0.0
    assert math.isnan(rmse(mos[:1], mos[:1]))
    assert math.isnan(rmse(mos, np.array([1.0, 2.0, math.nan, 3.0])))


@pytest.mark.parametrize("metric", EVERY)
def test_sides_of_different_length_are_refused(metric: Metric) -> None:
    with pytest.raises(AgiqaError, match=r"equal length; found shapes \(3,\) and \(2,\)"):
        metric(np.arange(3.0), np.arange(2.0))
    with pytest.raises(AgiqaError, match=r"found shapes \(2, 2\) and \(2, 2\)"):
        metric(np.ones((2, 2)), np.ones((2, 2)))


def test_fit_logistic_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(AgiqaError, match="found 2 images with 1 that are not finite"):
        fit_logistic([1, math.nan], [1, 2])


def test_all_metrics_are_the_single_ones() -> None:
    mos, score = curved(3)
    figures = all_metrics(mos, score)
    assert list(figures) == ["srcc", "krcc", "plcc", "rmse_raw", "mae", "plcc_logistic", "rmse"]
    assert sorted(figures) == sorted(FIGURES)
    for name, metric in METRICS.items():
        assert figures[name] == metric(mos, score)
    assert all(type(value) is float for value in figures.values())


def test_six_images_get_their_raw_errors_and_no_flattering_fit() -> None:
    """Splits of six printed PLCC .973 and RMSE .124 where the scores were off by .585."""
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 6)
    score = mos + rng.normal(0.5, 0.3, 6)
    assert rmse(mos, score) < 0.6 * rmse_raw(mos, score)  # what the curve makes of it
    measured = all_metrics(mos, score)
    assert measured["rmse_raw"] == pytest.approx(np.sqrt(np.mean((mos - score) ** 2)))
    assert math.isnan(measured["plcc_logistic"])
    assert math.isnan(measured["rmse"])
    assert set(why_undefined(mos, score, measured).values()) == {TOO_FEW_TO_FIT}
    for count, fitted in ((29, False), (30, True)):
        figures = all_metrics(*(side[:count] for side in curved(0)))
        assert math.isfinite(figures["rmse"]) == fitted
        assert math.isfinite(figures["plcc_logistic"]) == fitted


@pytest.mark.parametrize(
    ("mos", "score", "reason", "defined"),
    [
        ([], [], "no test image", set()),
        ([1.0], [2.0], "a single test image", {"rmse_raw", "mae"}),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "all scores are equal", {"rmse_raw", "mae"}),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "all targets are equal", {"rmse_raw", "mae"}),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0], "a score or target is not a number", set()),
        ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0], "a score or target is not a number", set()),
    ],
)
def test_what_is_not_defined_is_nan_and_says_why(
    mos: list[float], score: list[float], reason: str, defined: set[str]
) -> None:
    figures = all_metrics(mos, score)
    assert {name for name, value in figures.items() if not math.isnan(value)} == defined
    assert why_undefined(mos, score, figures)["srcc"] == reason
    assert math.isnan(plcc_logistic(mos, score))  # a warning would be an error here


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int64, object])
@pytest.mark.parametrize("offset", [0, 1e6])
def test_figures_equal_scipys_and_scikit_learns(dtype: type, offset: float) -> None:
    """Any type of number, and a large offset, which both sides have."""
    if np.dtype(dtype).kind == "i" and offset > np.iinfo(np.int16).max:
        dtype = np.int64
    rng = np.random.default_rng(0)
    mos = (rng.uniform(1, 5, 200) + offset).astype(dtype)
    score = (np.asarray(mos, float) + rng.normal(0, 1, 200)).astype(dtype)
    exact = np.asarray(mos, float), np.asarray(score, float)
    assert srcc(mos, score) == pytest.approx(stats.spearmanr(*exact).statistic, abs=1e-12)
    assert krcc(mos, score) == pytest.approx(stats.kendalltau(*exact).statistic, abs=1e-12)
    assert plcc(mos, score) == pytest.approx(stats.pearsonr(*exact).statistic, abs=1e-9)
    assert rmse_raw(mos, score) == pytest.approx(sklearn.root_mean_squared_error(*exact))
    assert mae(mos, score) == pytest.approx(sklearn.mean_absolute_error(*exact))
    assert plcc_logistic(mos, score) >= abs(plcc(mos, score)) - 1e-9


def test_what_a_masked_array_hides_is_missing() -> None:
    mos = np.ma.masked_values([1.0, 2.0, -1.0, 4.0], -1.0)
    figures = all_metrics(mos, [1.0, 2.0, 3.0, 4.0])
    assert all(math.isnan(value) for value in figures.values())
    assert math.isnan(srcc([1.0, None, 3.0], [1.0, 2.0, 3.0]))
    rated = ~np.ma.getmaskarray(mos)
    assert srcc(mos[rated], np.arange(4.0)[rated]) == pytest.approx(1)


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize(
    "wrong",
    [
        ["a", "b", "c"],
        [[1.0], [2.0, 3.0]],
        np.array([1 + 2j, 3, 4]),
        np.array(["2020-01-01"] * 3, dtype="datetime64[D]"),
    ],
    ids=["text", "ragged", "complex", "dates"],
)
def test_what_is_no_row_of_numbers_is_refused_in_one_line(metric: Metric, wrong: Any) -> None:
    with pytest.raises(AgiqaError, match="expected scores as a row of numbers: ") as raised:
        metric(np.arange(3.0), wrong)
    assert "\n" not in str(raised.value)
    with pytest.raises(AgiqaError, match="expected MOS as a row of numbers: "):
        metric(wrong, np.arange(3.0))


def test_summarise() -> None:
    assert summarise([1.0, 2.0, 6.0]) == {
        "median": 2.0,
        "mean": 3.0,
        "sd": pytest.approx(math.sqrt(7)),
    }
    single = summarise([0.5])
    assert (single["median"], single["mean"]) == (0.5, 0.5)
    assert math.isnan(single["sd"])  # one split has no deviation; 0 would be a claim
    for undefined in ([], [0.5, math.nan]):
        assert all(math.isnan(value) for value in summarise(undefined).values())


def pairs(elements: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[Array, Array]]:
    """Two sides of 2 to 30 images."""
    return st.integers(2, 30).flatmap(
        lambda count: st.tuples(*[npst.arrays(np.float64, count, elements=elements)] * 2)
    )


PAIRS = pairs(st.integers(-1000, 1000).map(float))
WILD = pairs(st.floats(allow_nan=False, allow_infinity=False))


def same(first: float, second: float, tolerance: float = 1e-9) -> bool:
    return (math.isnan(first) and math.isnan(second)) or abs(first - second) <= tolerance


@settings(deadline=None)
@given(PAIRS)
def test_correlations_are_symmetric_and_those_of_ranks_keep_under_monotone_maps(
    pair: tuple[Array, Array],
) -> None:
    mos, score = pair
    for metric in (srcc, krcc, plcc):
        assert same(metric(mos, score), metric(score, mos))
    for metric in (srcc, krcc):
        assert same(metric(mos, score), metric(mos, np.arctan(score) * 3 - 1))
        assert same(metric(mos, score), metric(mos**3, score))
        assert same(metric(mos, score), -metric(mos, -score))


@settings(deadline=None, max_examples=25)
@given(PAIRS, st.floats(0.01, 100), st.floats(-100, 100))
def test_linear_figures_keep_under_positive_linear_maps(
    pair: tuple[Array, Array], slope: float, offset: float
) -> None:
    mos, score = pair
    assert same(plcc(mos, score), plcc(mos, slope * score + offset), 1e-6)
    assert same(rmse(slope * mos + offset, score), slope * rmse(mos, score), 1e-3 * slope * 2000)


def test_units_do_not_choose_between_optima() -> None:
    """Of scores that say nothing; a last digit of the MOS used to move the RMSE by 1.4 %."""
    mos = np.array([-687, -90, 280, 569, -243, 800, -163, -163, 162, 241, 341, -504, -1, -273.0])
    score = np.array([506, 0, -549, 1, -187, 98, 191, -883, -247, 177, -549, 47, 0, -174.0])
    for slope in (1.9999999999999858, 2.0, 0.1, 1 / 3, 7e5):
        assert rmse(slope * mos, score) == pytest.approx(slope * rmse(mos, score), rel=1e-9)
        assert rmse(mos, slope * score) == pytest.approx(rmse(mos, score), rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_the_logistic_never_does_worse_than_a_line(pair: tuple[Array, Array]) -> None:
    mos, score = pair
    raw, mapped = plcc(mos, score), plcc_logistic(mos, score)
    assert math.isnan(raw) == math.isnan(mapped)
    if not math.isnan(raw):
        assert mapped >= abs(raw) - 1e-9
    assert rmse(mos, score) <= mos.std() * (1 + 1e-9)


@settings(deadline=None)
@given(WILD)
def test_any_finite_numbers_give_a_figure_in_range_or_nan(pair: tuple[Array, Array]) -> None:
    for metric in CORRELATIONS:  # overflow or division by zero would warn, and so fail
        figure = metric(*pair)
        assert math.isnan(figure) or -1 <= figure <= 1


def test_raw_errors_stand_before_the_fitted_one() -> None:
    assert metric_names.ERRORS == ("rmse_raw", "mae", "rmse")
    assert sorted((*metric_names.CORRELATIONS, *metric_names.ERRORS)) == sorted(FIGURES)
    assert metric_names.FITTED == ("plcc_logistic", "rmse")
    assert sorted(compare.TABLE_FIGURES) == sorted(FIGURES)  # without its imports, for --help
