import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agiqa.data.metric_names import CORRELATIONS, FIGURES
from agiqa.data.metrics import METRICS, all_metrics
from agiqa.data.statistics import intervals
from agiqa.data.statistics.intervals import (
    ALIKE,
    NO_NUMBER,
    DrawnCounts,
    Intervals,
    TestSide,
    draw,
    measured_side,
    model_intervals,
    over_splits,
    p_of_no_difference,
    percentile_interval,
    resample_splits,
    resampled,
    side_interval,
)


def side(rng: np.random.Generator, prompts: int, images: int, noise: float) -> pd.DataFrame:
    """A test side whose scores share an error within each prompt."""
    group = np.repeat(np.arange(prompts), images)
    mos = rng.normal(size=len(group)) + rng.normal(size=prompts)[group]
    error = rng.normal(size=len(group)) + rng.normal(size=prompts)[group]
    return pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(len(group))],
            "group": group.astype(str),
            "mos": mos,
            "score": mos + noise * error,
        }
    )


def without_curve(part: pd.DataFrame) -> TestSide:
    """A test side without what its logistic and its KRCC would cost."""
    mos, score = part["mos"].to_numpy(), part["score"].to_numpy()
    return TestSide(mos, score, score, (mos, mos, mos))


def intervals_of(models: dict[str, list[pd.DataFrame]]) -> dict[str, Intervals]:
    figures = {
        name: [all_metrics(side["mos"], side["score"]) for side in sides]
        for name, sides in models.items()
    }
    return model_intervals(models, figures, draw(next(iter(models.values()))))


def test_images_without_groups_are_as_scipys_bootstrap() -> None:
    frame = side(np.random.default_rng(0), 100, 1, 0.7).assign(group="")
    assert draw([frame]).unit == "images"
    intervals = intervals_of({"m": [frame]})["m"]
    scipys = stats.bootstrap(
        (frame["mos"], frame["score"]),
        lambda x, y: stats.pearsonr(x, y)[0],
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert intervals.median["plcc"] == pytest.approx((scipys.low, scipys.high), abs=0.015)
    assert intervals.median["plcc"] == intervals.splits[0]["plcc"]


def test_prompts_give_wider_intervals_than_their_images() -> None:
    frame = side(np.random.default_rng(0), 40, 10, 1.0)
    grouped, single = (
        intervals_of({"m": [part]})["m"].median["srcc"] for part in (frame, frame.assign(group=""))
    )
    assert grouped[1] - grouped[0] > 1.3 * (single[1] - single[0])


def test_the_interval_of_the_median_covers_the_truth() -> None:
    """Data sets of 60 prompts; models of five splits err differently, as fitted ones do."""
    rng = np.random.default_rng(0)
    noise, between, trials, covered = 0.6, 0.2, 80, 0
    # Of the mixture of models: correlation of a score with its MOS.
    truth = math.sqrt(2 / (2 + 2 * noise**2 + between**2))
    for _ in range(trials):
        whole = side(rng, 60, 4, noise)
        parts = []
        for _ in range(5):
            part = whole[whole["group"].isin(rng.permutation(60)[:24].astype(str))]
            parts.append(part.assign(score=part["score"] + between * rng.normal(size=len(part))))
        drawn = draw(parts, 200)
        figures = resample_splits(drawn, [[without_curve(part) for part in parts]])[0]
        low, high = percentile_interval(over_splits(figures["plcc"], drawn))
        covered += low <= truth <= high
    # 95 % within what chance and a bootstrap of few prompts do to it.
    assert 0.88 * trials <= covered <= trials


def test_a_group_counts_alike_on_every_side_that_has_it() -> None:
    frame = side(np.random.default_rng(0), 30, 2, 0.5)
    drawn = draw([frame.iloc[:50], frame.iloc[10:]])
    assert drawn.unit == "groups"
    assert drawn.units[0][10:].tolist() == drawn.units[1][:40].tolist()
    again = draw([frame.iloc[:50], frame.iloc[10:]])
    assert all((a == b).all() for a, b in zip(drawn.blocks(), again.blocks(), strict=True))


def test_what_is_not_defined_is_nan_and_leaves_other_models_alone() -> None:
    frame = side(np.random.default_rng(0), 30, 2, 0.5)
    intervals = intervals_of(
        {
            "constant": [frame.assign(score=1.0)] * 2,
            "broken": [frame.assign(score=math.nan), frame],
            "good": [frame, frame],
        }
    )
    assert all(math.isnan(bound) for bound in intervals["constant"].median["srcc"])
    assert intervals["constant"].why["srcc"] == "all scores are equal"
    assert math.isfinite(intervals["constant"].median["mae"][0])  # an error has no need of spread
    assert all(math.isnan(bound) for bound in intervals["broken"].splits[1]["srcc"])
    assert intervals["broken"].why["mae"] == "a score or target is not a number in 1 of 2 splits"
    assert intervals["broken"].why_splits[1]["srcc"] == NO_NUMBER
    assert intervals["good"] == intervals_of({"good": [frame, frame]})["good"]
    assert percentile_interval(np.array([])) == pytest.approx((math.nan, math.nan), nan_ok=True)


TRUTH = 1 / math.sqrt(1 + 0.5**2)  # PLCC of `side` with noise .5


def values_of(frames: list[pd.DataFrame], figure: str) -> list[float]:
    return [METRICS[figure](frame["mos"], frame["score"]) for frame in frames]


@pytest.mark.parametrize("prompts", [12, 40, 60])
def test_intervals_of_one_split_cover_at_few_prompts(prompts: int) -> None:
    """With images drawn 12 prompts covered .80; benchmarks/intervals.py has the large run."""
    rng = np.random.default_rng(prompts)
    truth = {
        "srcc": 6 / math.pi * math.asin(TRUTH / 2),
        "plcc": TRUTH,
        "mae": 0.5 * 2 / math.sqrt(math.pi),
    }
    trials, covered = 100, dict.fromkeys(truth, 0)
    for _ in range(trials):
        frame = side(rng, prompts, 5, 0.5)
        drawn = draw([frame], 300)
        figures = resample_splits(drawn, [[without_curve(frame)]])[0]
        for figure, value in truth.items():
            own = METRICS[figure](frame["mos"], frame["score"])
            low, high = side_interval(figures[figure][0], own, prompts, figure)
            covered[figure] += low <= value <= high
    # Of 100 trials at 93 % 87 or fewer come up once in fifty times.
    assert min(covered.values()) >= 88, covered


@pytest.mark.parametrize("prompts", [5, 12])
def test_differences_of_one_split_cover_and_agree_with_their_p(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    trials, false = 100, 0
    for _ in range(trials):
        one, other = side(rng, prompts, 5, 0.5), side(rng, prompts, 5, 0.5)
        error = other["score"] - other["mos"]
        pair = [one, one.assign(score=one["mos"] + error)]
        drawn = draw([one], 300)
        first, second = resample_splits(drawn, [[without_curve(each)] for each in pair])
        gain = float(np.subtract(*reversed(values_of(pair, "mae"))))
        gains = (second["mae"] - first["mae"])[0]
        low, high = side_interval(gains, gain, prompts)
        p = p_of_no_difference(gains, gain, prompts)
        assert (p < 0.05) == (not low <= 0 <= high)
        assert p > 0
        false += p < 0.05
    assert false <= 0.13 * trials


@pytest.mark.parametrize(("prompts", "images"), [(5, 1), (5, 6), (8, 2), (30, 4), (60, 2)])
@pytest.mark.parametrize("noise", [0.01, 0.5, 5.0])
def test_intervals_stay_inside_the_statistics_range(
    prompts: int, images: int, noise: float
) -> None:
    rng = np.random.default_rng(0)
    frame = side(rng, prompts, images, noise)
    intervals = intervals_of({"m": [frame]})["m"]
    for figure in FIGURES:
        low, high = intervals.median[figure]
        if math.isnan(low):
            assert math.isnan(high)
            assert intervals.why[figure]
            continue
        value = METRICS[figure](frame["mos"], frame["score"])
        assert low <= value <= high
        assert (low >= -1 and high <= 1) if figure in CORRELATIONS else low > 0


def test_groups_are_drawn_down_to_five_and_less_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    for prompts in (5, 12, 19):
        assert draw([side(rng, prompts, 4, 0.5)]).unit == "groups"
    few = side(rng, 4, 10, 0.5)
    drawn = draw([few, side(rng, 9, 10, 0.5)])
    assert drawn.sizes == [4, 9]
    assert drawn.too_few == "4 groups on a test side; intervals need 5"
    intervals = intervals_of({"m": [few]})["m"]
    assert all(math.isnan(end) for bounds in intervals.median.values() for end in bounds)
    assert intervals.why["srcc"] == "4 groups on a test side; intervals need 5"
    single = intervals_of({"m": [few.iloc[:1].assign(group="")]})["m"]
    assert single.why["srcc"] == "a single test image"
    assert single.why["mae"] == "1 image on a test side; intervals need 5"


def test_images_without_a_group_among_others_are_groups_of_their_own() -> None:
    frame = side(np.random.default_rng(0), 3, 4, 0.5)
    frame.loc[frame["group"] == "2", "group"] = ""
    drawn = draw([frame])
    assert (drawn.unit, drawn.sizes) == ("groups", [6])


def test_five_images_in_the_right_order_promise_nothing() -> None:
    """Every resample has an SRCC of 1; an interval of no width would claim to know."""
    frame = side(np.random.default_rng(0), 5, 1, 0.0).assign(group="")
    intervals = intervals_of({"m": [frame]})["m"]
    assert math.isnan(intervals.median["srcc"][0])
    assert intervals.why["srcc"] == ALIKE


def scores(count: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    mos = np.round(rng.uniform(0, 5, count), decimals)
    return mos, np.round(mos + rng.normal(0, 1, count), decimals)


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "many ties"])
def test_each_image_once_gives_the_figures_themselves(decimals: int) -> None:
    mos, score = scores(150, decimals)
    resamples = resampled(measured_side(mos, score), DrawnCounts(np.ones((2, 150)), mos))
    figures = all_metrics(mos, score)
    assert sorted(resamples) == sorted(figures)
    for figure, value in figures.items():
        assert resamples[figure] == pytest.approx([value, value], abs=1e-6), figure


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "many ties"])
@pytest.mark.parametrize("count", [6, 60])
def test_counts_are_as_good_as_copies(count: int, decimals: int) -> None:
    mos, score = scores(count, decimals)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=20).astype(float)
    figures = resampled(measured_side(mos, score), DrawnCounts(counts, mos))
    for row, copies in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(count), copies)
        of_copies = all_metrics(mos[drawn], score[drawn])
        for figure in ("srcc", "plcc", "krcc", "rmse_raw", "mae"):
            assert figures[figure][row] == pytest.approx(of_copies[figure], nan_ok=True), figure


def test_the_linear_part_of_krcc_spreads_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mos, score = scores(120, 8)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(120, np.full(120, 1 / 120), size=400).astype(float)
    exact = resampled(measured_side(mos, score), DrawnCounts(counts, mos))["krcc"]
    monkeypatch.setattr(intervals, "EXACT", 100)
    linear = resampled(measured_side(mos, score), DrawnCounts(counts, mos))["krcc"]
    assert linear.std() == pytest.approx(np.std(exact), rel=0.1)
    assert np.corrcoef(linear, exact)[0, 1] > 0.95


def test_a_resample_of_one_value_has_no_correlation_and_no_rounding_of_one() -> None:
    """A variance of 1e-17 in place of 0 made a PLCC of anything, 1.063 among them."""
    mos, score = np.array([0.1, 0.2, 0.3, 0.7]), np.array([1 / 3, 0.9, 0.1, 0.2])
    counts = np.concatenate([4 * np.eye(4), np.array([[2, 2, 0, 0]])])
    for shift in (0.0, 1e6):
        figures = resampled(measured_side(mos + shift, score), DrawnCounts(counts, mos + shift))
        for figure in CORRELATIONS:
            assert np.isnan(figures[figure][:4]).all(), figure
        for figure in ("srcc", "krcc", "plcc"):
            assert figures[figure][4] == pytest.approx(1.0, abs=1e-9)
            assert figures[figure][4] <= 1
