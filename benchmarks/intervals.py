"""How often 95 % intervals hold the truth: data sets of known truth, drawn again and again.

Scores share an error within each prompt, as those of one prompt's images do, in units that make a
good model's SRCC about .88. Printed for a single test side of few prompts: the ways that were
tried, of which `agiqa.data.statistics.intervals` has `groups, t` below MANY_UNITS prompts and
`groups` from there on; then for what `evaluate` and `compare` make of ten splits, and of two and
three.

    python benchmarks/intervals.py [--trials 1000]
"""

import argparse
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from agiqa.data.metrics import METRICS
from agiqa.data.statistics.intervals import (
    MANY_UNITS,
    Drawn,
    TestSide,
    draw,
    over_splits,
    percentile_interval,
    resample_splits,
    side_interval,
)

FIGURES = ("srcc", "plcc", "rmse_raw", "mae")
IMAGES = 5  # a prompt
NOISE = 0.5
BETWEEN = 0.2  # deviation of what the models of two splits say of one image
RESAMPLES = 1000
PROMPTS = (5, 8, 12, 24, 40, 60)


def main() -> None:
    """Print the share of intervals that hold the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    with threadpool_limits(limits=1):
        print("one test side          prompts  " + "".join(f"{name:>10}" for name in FIGURES))
        for prompts in PROMPTS:
            for way, shares in _one_side(prompts, trials).items():
                _print(f"{way:<22} {prompts:>7}", shares)
        print("\nover splits, 20 % tested")
        for prompts, splits in ((60, 2), (60, 3), (60, 10), (120, 10), (300, 10)):
            figures, gains = _over_splits(prompts, splits, max(1, trials // 5))
            _print(f"median of {splits:<12} {prompts // 5:>7}", figures)
            _print(f"mean difference, {splits:<5} {prompts // 5:>7}", gains)


def _print(head: str, shares: dict[str, float]) -> None:
    print(f"{head}  " + "".join(f"{shares[name]:>10.3f}" for name in FIGURES), flush=True)


def _truth(noise: float) -> dict[str, float]:
    plcc = math.sqrt(2 / (2 + noise**2))
    error = {"rmse_raw": noise, "mae": noise * math.sqrt(2 / math.pi)}
    return {"srcc": 6 / math.pi * math.asin(plcc / 2), "plcc": plcc} | error


def _data_set(rng: np.random.Generator, prompts: int, models: int = 1) -> pd.DataFrame:
    """`prompts` × IMAGES images with their MOS and a score of each model."""
    group = np.repeat(np.arange(prompts), IMAGES)

    def shared() -> np.ndarray:
        return rng.normal(size=len(group)) + rng.normal(size=prompts)[group]

    frame = pd.DataFrame({"group": group.astype(str), "mos": shared()})
    frame["path"] = [f"{row}.png" for row in range(len(frame))]
    for model in range(models):
        frame[f"score_{model}"] = frame["mos"] + NOISE * shared()
    return frame


def _side(frame: pd.DataFrame, model: int) -> TestSide:
    """Without a curve and without KRCC."""
    mos, score = (frame[name].to_numpy(float) for name in ("mos", f"score_{model}"))
    return TestSide(mos, score, score, (mos, mos, mos))


def _measured(side: TestSide, figure: str) -> float:
    return METRICS[figure](side.mos, side.score)


def _one_side(prompts: int, trials: int) -> dict[str, dict[str, float]]:
    """By way and figure, the share of intervals that hold the truth."""
    rng, truth = np.random.default_rng(prompts), _truth(NOISE * math.sqrt(2))
    held: dict[str, dict[str, float]] = {}
    for _ in range(trials):
        frame = _data_set(rng, prompts)
        side = _side(frame, 0)
        grouped = resample_splits(draw([frame], RESAMPLES), [[side]])[0]
        single = resample_splits(draw([frame.assign(group="")], RESAMPLES), [[side]])[0]
        for figure in FIGURES:
            value, left_out = _measured(side, figure), _left_out(frame, figure)
            ways = _ways(grouped[figure][0], single[figure][0], value, left_out, figure)
            for way, (low, high) in ways:
                shares = held.setdefault(way, dict.fromkeys(FIGURES, 0.0))
                shares[figure] += (low <= truth[figure] <= high) / trials
    return held


def _ways(
    grouped: np.ndarray, single: np.ndarray, value: float, left_out: np.ndarray, figure: str
) -> Iterator[tuple[str, tuple[float, float]]]:
    units = len(left_out)
    wide = float(ndtr(-student.ppf(0.975, units - 1) * math.sqrt(units / (units - 1))))
    yield "images", percentile_interval(single)
    yield "groups", percentile_interval(grouped)
    yield "groups, wider quantiles", _quantiles(grouped, wide, 1 - wide)
    yield "groups, BCa", _quantiles(grouped, *_bca(grouped, value, left_out))
    yield "groups, t", side_interval(grouped, value, min(units, MANY_UNITS - 1), figure)


def _quantiles(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    ends = np.quantile(values[np.isfinite(values)], [low, high])
    return float(ends[0]), float(ends[1])


def _bca(values: np.ndarray, value: float, left_out: np.ndarray) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated quantiles, by leaving one group out."""
    gaps = left_out.mean() - left_out
    bend = float((gaps**3).sum() / (6 * max(float((gaps**2).sum()), 1e-30) ** 1.5))
    below = np.clip(np.mean(values < value), 1 / len(values), 1 - 1 / len(values))
    shift = ndtri(below)
    ends = shift + ndtri(np.array([0.025, 0.975]))
    low, high = ndtr(shift + ends / (1 - bend * ends))
    return float(low), float(high)


def _left_out(frame: pd.DataFrame, figure: str) -> np.ndarray:
    groups = frame["group"].to_numpy()
    return np.array(
        [_measured(_side(frame[groups != name], 0), figure) for name in np.unique(groups)]
    )


def _over_splits(
    prompts: int, splits: int, trials: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Of the median, and of the mean difference between two models that are equally good."""
    rng = np.random.default_rng(prompts + splits)
    truth = _truth(math.sqrt(2 * NOISE**2 + BETWEEN**2))
    medians, gains = dict.fromkeys(FIGURES, 0.0), dict.fromkeys(FIGURES, 0.0)
    for _ in range(trials):
        whole = _data_set(rng, prompts, models=2)
        frames = []
        for _ in range(splits):
            chosen = rng.permutation(prompts)[: prompts // 5].astype(str)
            frame = whole[whole["group"].isin(chosen)].copy()
            for model in (0, 1):
                frame[f"score_{model}"] += BETWEEN * rng.normal(size=len(frame))
            frames.append(frame)
        drawn = draw(frames, RESAMPLES)
        sides = [[_side(frame, model) for frame in frames] for model in (0, 1)]
        first, second = resample_splits(drawn, sides)
        for figure in FIGURES:
            low, high = percentile_interval(over_splits(first[figure], drawn))
            medians[figure] += (low <= truth[figure] <= high) / trials
            low, high = percentile_interval(_mean(second[figure] - first[figure], drawn))
            gains[figure] += (low <= 0 <= high) / trials
    return medians, gains


def _mean(values: np.ndarray, drawn: Drawn) -> np.ndarray:
    return np.asarray(np.take_along_axis(values.T, drawn.splits, axis=1).mean(axis=1))


if __name__ == "__main__":
    main()
