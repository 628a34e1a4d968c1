from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, Target
from agiqa.data.metrics import krcc, plcc, srcc
from agiqa.data.statistics.ceiling import ceilings_of, known_raters, noise_ceiling


@pytest.mark.parametrize(("raters", "within"), [(4, 0.03), (16, 0.01)])
def test_a_perfect_predictor_reaches_it_and_no_more(raters: int, within: float) -> None:
    """Real raters are simulated; the truth is then as good a predictor as can be."""
    rng = np.random.default_rng(raters)
    true = rng.normal(3, 0.8, 3000)
    spread = rng.uniform(0.5, 1.5, 3000)
    ratings = true[:, None] + spread[:, None] * rng.normal(size=(3000, raters))
    mos, deviation = ratings.mean(axis=1), ratings.std(axis=1, ddof=1)
    ceiling = noise_ceiling(mos, deviation, raters, draws=20)
    assert ceiling.plcc == pytest.approx(plcc(mos, true), abs=0.01)
    assert ceiling.srcc == pytest.approx(srcc(mos, true), abs=within)
    assert ceiling.krcc == pytest.approx(krcc(mos, true), abs=within)
    assert ceiling.rmse == pytest.approx(np.sqrt(np.mean((mos - true) ** 2)), rel=0.05)
    assert ceiling.mae == pytest.approx(np.mean(np.abs(mos - true)), rel=0.1)
    panel = true + spread * rng.normal(size=(raters, 3000)).mean(axis=0)
    assert ceiling.reliability == pytest.approx(plcc(mos, panel), abs=0.02)


def test_more_raters_raise_it() -> None:
    rng = np.random.default_rng(0)
    mos, deviation = rng.normal(size=500), np.full(500, 0.8)
    reached = [noise_ceiling(mos, deviation, raters, draws=5).srcc for raters in (3, 10, 50)]
    assert reached == sorted(reached)
    drowned = noise_ceiling(mos, np.full(500, 9.0), 2)
    assert (drowned.reliability, drowned.srcc, drowned.plcc) == (0, 0, 0)


def test_each_image_has_its_own_raters() -> None:
    rng = np.random.default_rng(1)
    true, raters = rng.normal(3, 0.8, 4000), rng.choice([2, 40], 4000)
    mos = true + rng.normal(size=4000) / np.sqrt(raters)
    ceiling = noise_ceiling(mos, np.ones(4000), raters.astype(float), draws=20)
    assert ceiling.rmse == pytest.approx(np.sqrt(np.mean((mos - true) ** 2)), rel=0.05)
    assert ceiling.plcc == pytest.approx(plcc(mos, true), abs=0.01)
    assert ceiling.raters == raters.mean()
    unknown = np.where(np.arange(4000) < 10, np.nan, raters)
    assert noise_ceiling(mos, np.ones(4000), unknown, draws=2).images == 3990


def test_images_without_score_or_deviation_do_not_count() -> None:
    mos, deviation = np.arange(10.0), np.ones(10)
    mos[0] = deviation[1] = np.nan
    assert noise_ceiling(mos, deviation, 5).images == 8
    assert np.isnan(noise_ceiling(mos[:3], deviation[:3], 5).srcc)
    alike = noise_ceiling(np.full(5, 3.0), np.ones(5), 5)
    assert np.isnan([alike.reliability, alike.srcc, alike.plcc, alike.rmse, alike.mae]).all()
    nobody = np.array([5.0] * 9 + [0.0])
    assert noise_ceiling(np.arange(10.0), np.ones(10), nobody, draws=2).images == 9


def test_what_a_table_says(make_table: Callable[..., ImagesTable]) -> None:
    table = make_table(["a", "b", "c"])
    assert known_raters(table, table.targets[0]) is None
    target = Target("quality", 1.0, 5.0, deviation="quality_sd")
    known = replace(
        table,
        source="AGIQA-3K, https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        frame=table.frame.assign(quality_sd=[0.1, 0.2, 0.3]),
    )
    stated = known_raters(known, target)  # in their paper alone
    assert stated is not None
    assert stated.tolist() == [21, 21, 21]
    counted = replace(known, frame=known.frame.assign(n=[5, 6, 7.0]))
    counts = known_raters(counted, replace(target, raters="n"))
    assert counts is not None
    assert counts.tolist() == [5, 6, 7]
    (row,) = ceilings_of(replace(known, targets=(target,)))
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(np.square([0.1, 0.2, 0.3])) / 21))
    with pytest.raises(AgiqaError, match="deviations are known for no target: without them"):
        ceilings_of(table)
