import numpy as np
import pytest
from scipy import stats

from agiqa.metrics import all_metrics
from agiqa.statistics.resampling import drawn_counts, resampled, test_side


def scores(count: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    mos = np.round(rng.uniform(0, 5, count), decimals)
    return mos, np.round(mos + rng.normal(0, 1, count), decimals)


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "many ties"])
def test_each_image_once_gives_the_figures_themselves(decimals: int) -> None:
    mos, score = scores(150, decimals)
    found = resampled(test_side(mos, score), drawn_counts(np.ones((2, 150)), mos))
    for figure, value in all_metrics(mos, score).items():
        assert found[figure] == pytest.approx([value, value], abs=1e-6), figure


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "many ties"])
def test_counts_are_as_good_as_copies(decimals: int) -> None:
    mos, score = scores(60, decimals)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(60, np.full(60, 1 / 60), size=20).astype(float)
    found = resampled(test_side(mos, score), drawn_counts(counts, mos))
    for row, each in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(60), each)
        assert found["srcc"][row] == pytest.approx(
            stats.spearmanr(mos[drawn], score[drawn]).statistic
        )
        assert found["plcc"][row] == pytest.approx(stats.pearsonr(mos[drawn], score[drawn])[0])


def test_the_linear_part_of_krcc_spreads_as_the_whole() -> None:
    mos, score = scores(120, 8)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(120, np.full(120, 1 / 120), size=400).astype(float)
    linear = resampled(test_side(mos, score), drawn_counts(counts, mos))["krcc"]
    drawn = [np.repeat(np.arange(120), each) for each in counts.astype(int)]
    exact = [stats.kendalltau(mos[rows], score[rows]).statistic for rows in drawn]
    assert linear.std() == pytest.approx(np.std(exact), rel=0.1)
    assert np.corrcoef(linear, exact)[0, 1] > 0.95
