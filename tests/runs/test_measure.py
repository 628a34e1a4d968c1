"""Figures of predictions: what the gate adds, and how many images the intervals hold."""

import numpy as np
import pandas as pd
import pytest

from agiqa.runs.measure import describe_gating, measure, sides_ratio

IMAGES, SPLITS = 40, 3


def _predictions() -> pd.DataFrame:
    """Three splits of a mixture that is better than the constant one, its interval 0.5 each way."""
    rng = np.random.default_rng(0)
    parts = []
    for seed in range(SPLITS):
        mos = rng.uniform(1, 5, IMAGES)
        about = pd.DataFrame(
            {
                "path": [f"{seed}-{row}.png" for row in range(IMAGES)],
                "image_id": [f"{seed:032x}{row:032x}" for row in range(IMAGES)],
                "generator": ["a", "b"] * (IMAGES // 2),
                "group": [f"{seed} {row // 2}" for row in range(IMAGES)],
                "seed": seed,
                "mos": mos,
            }
        )
        weight = np.where(np.arange(IMAGES) % 2, 0.9, 0.1)
        score = mos + rng.normal(0, 0.3, IMAGES)
        ends = {"low": score - 0.5, "high": score + 0.5}
        gate = {"gate_visual": weight, "gate_semantic": 1 - weight}
        parts.append(about.assign(model="moe", score=score, **ends, **gate))
        parts.append(about.assign(model="constant", score=mos + rng.normal(0, 0.9, IMAGES)))
    return pd.concat(parts, ignore_index=True)


def test_the_gate_is_measured_against_the_constant_mixture() -> None:
    leaks = [{"train": 80, "test": 40}] * SPLITS
    gating = describe_gating(_predictions(), [0, 50, 60], leaks)
    assert gating["epochs"] == [0, 50, 60]
    assert gating["deviation"] == pytest.approx(0.4)
    gain = gating["gain"]
    assert 0 < gain["mean"] < 0.3
    assert gain["low"] < gain["mean"] < gain["high"]
    assert 0 < gain["p"] < 1
    assert sides_ratio(leaks) == 0.5
    assert sides_ratio([]) == pytest.approx(2 / 7)


def test_coverage_is_counted_in_all_and_in_parts() -> None:
    predictions = _predictions()
    metrics = measure(predictions, [], ["visual", "semantic"])
    moe = predictions[predictions["model"] == "moe"]
    held = (moe["mos"] - moe["score"]).abs() <= 0.5
    coverage = metrics["coverage"]
    assert coverage["level"] == 0.9
    assert coverage["covered"] == pytest.approx(held.mean())
    assert coverage["width"] == pytest.approx(1.0)
    assert coverage["images"] == SPLITS * IMAGES
    assert coverage["splits"] == pytest.approx(list(held.groupby(moe["seed"]).mean()))
    assert coverage["generators"]["a"]["covered"] == pytest.approx(
        held[moe["generator"] == "a"].mean()
    )
    ranges = coverage["ranges"]
    assert len(ranges) == 4
    assert sum(part["images"] for part in ranges) == SPLITS * IMAGES
    assert (ranges[0]["low"], ranges[-1]["high"]) == (moe["mos"].min(), moe["mos"].max())
    assert np.mean([part["covered"] for part in ranges]) == pytest.approx(held.mean(), abs=0.01)
    without = measure(predictions.drop(columns=["low", "high"]), [], ["visual", "semantic"])
    assert "coverage" not in without
    assert "gating" not in without


def test_a_weight_deviates_within_a_test_side() -> None:
    """Splits that weigh otherwise, each constant, are no gate that moves."""
    predictions = _predictions()
    for seed in range(SPLITS):
        rows = (predictions["seed"] == seed) & (predictions["model"] == "moe")
        predictions.loc[rows, "gate_visual"] = 0.2 * seed
        predictions.loc[rows, "gate_semantic"] = 1 - 0.2 * seed
    gate = measure(predictions, [], ["visual", "semantic"])["gate"]
    assert gate["visual"]["mean"] == pytest.approx(0.2)
    assert gate["visual"]["sd"] == pytest.approx(0, abs=1e-12)
