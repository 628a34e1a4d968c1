import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agiqa.statistics.intervals import (
    draw,
    model_intervals,
    over_splits,
    percentile_interval,
    resample_splits,
)
from agiqa.statistics.resampling import TestSide


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


def test_images_without_groups_are_as_scipys_bootstrap() -> None:
    frame = side(np.random.default_rng(0), 100, 1, 0.7).assign(group="")
    found = model_intervals({"m": [frame]})["m"]
    assert found.unit == "images"
    theirs = stats.bootstrap(
        (frame["mos"], frame["score"]),
        lambda x, y: stats.pearsonr(x, y)[0],
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.median["plcc"] == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert found.median["plcc"] == found.splits[0]["plcc"]


def test_prompts_give_wider_intervals_than_their_images() -> None:
    frame = side(np.random.default_rng(0), 40, 10, 1.0)
    grouped, single = (
        model_intervals({"m": [each]})["m"].median["srcc"]
        for each in (frame, frame.assign(group=""))
    )
    assert grouped[1] - grouped[0] > 1.3 * (single[1] - single[0])


@pytest.mark.parametrize("splits", [1, 5], ids=["one split", "median of five"])
def test_the_interval_covers_the_truth(splits: int) -> None:
    """Data sets of 60 prompts; models of different splits err differently, as fitted ones do."""
    rng = np.random.default_rng(0)
    noise, trials, covered = 0.6, 80, 0
    # Of the mixture of models: correlation of a score with its MOS.
    between = 0.2 if splits > 1 else 0.0
    truth = math.sqrt(2 / (2 + 2 * noise**2 + between**2))
    for _ in range(trials):
        whole = side(rng, 60, 4, noise)
        parts = []
        for _ in range(splits):
            chosen = rng.permutation(60)[: 60 if splits == 1 else 24].astype(str)
            part = whole[whole["group"].isin(chosen)].copy()
            part["score"] += between * rng.normal(size=len(part))
            parts.append(part)
        drawn = draw(parts, 200)
        found = resample_splits(drawn, [[without_curve(part) for part in parts]])[0]
        low, high = percentile_interval(over_splits(found["plcc"], drawn))
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
    found = model_intervals(
        {
            "constant": [frame.assign(score=1.0)] * 2,
            "broken": [frame.assign(score=math.nan), frame],
            "good": [frame, frame],
        }
    )
    assert all(math.isnan(bound) for bound in found["constant"].median["srcc"])
    assert all(math.isnan(bound) for bound in found["broken"].splits[1]["srcc"])
    assert found["good"] == model_intervals({"good": [frame, frame]})["good"]
    assert percentile_interval(np.array([])) == pytest.approx((math.nan, math.nan), nan_ok=True)
