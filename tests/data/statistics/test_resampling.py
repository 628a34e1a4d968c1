import numpy as np
import pytest

from agiqa.data.metric_names import CORRELATIONS
from agiqa.data.metrics import all_metrics
from agiqa.data.statistics import resampling
from agiqa.data.statistics.resampling import DrawnCounts, measured_side, resampled


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
    monkeypatch.setattr(resampling, "EXACT", 100)
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
