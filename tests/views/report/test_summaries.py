from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agiqa.views.report import summaries
from agiqa.views.report.results import average_images, read_results


def images(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    count = len(frame)
    for name, value in {"generator": "g", "group": "", "mos": 3.0, "score": 3.0}.items():
        if name not in frame:
            frame[name] = value
    frame["path"] = [f"{row:03d}.png" for row in range(count)]
    return frame.assign(error=frame["score"] - frame["mos"])


def test_residuals_of_a_generator_are_its_own_and_the_lowest_stands_first() -> None:
    frame = images(generator=["b"] * 11 + ["a"] * 3, score=[*np.linspace(3, 4, 11), 2.0, 2.5, 2.7])
    table = summaries.residuals_by_generator(frame)
    assert list(table["generator"]) == ["a", "b"]
    assert list(table["images"]) == [3, 11]
    row = table.iloc[1]
    assert [row[q] for q in ("p10", "q1", "median", "q3", "p90")] == pytest.approx(
        [0.1, 0.25, 0.5, 0.75, 0.9]
    )
    assert table["mean"][0] == pytest.approx(-0.6)


def test_ranges_cover_the_scale_and_its_top_belongs_to_the_last() -> None:
    frame = images(mos=[0.0, 0.49, 0.51, 4.0, 3.9], score=[1.0, 1.49, 0.51, 4.0, 3.0])
    table = summaries.residuals_by_range(frame, 0.0, 4.0)
    assert list(table["low"]) == [0.0, 0.5, 3.5]
    assert list(table["images"]) == [2, 1, 2]
    assert list(table["mean"]) == pytest.approx([1.0, 0.0, -0.45])


def test_prompts_that_are_judged_worst_stand_at_both_ends() -> None:
    count = summaries.MOST + 6
    groups = [f"prompt {row}" for row in range(count) for _ in range(3)] + ["small", "small", ""]
    scores = [3 + (row - count / 2) / 10 for row in range(count) for _ in range(3)] + [9, 9, 9]
    table = summaries.residuals_by_prompt(images(group=groups, score=scores))
    half = summaries.MOST // 2
    wanted = [*range(half), *range(count - half, count)]
    assert list(table["group"]) == [f"prompt {row}" for row in wanted]
    assert "small" not in set(table["group"])


def test_calibration_bins_hold_as_many_images_each() -> None:
    score = np.linspace(1, 5, 100)
    table = summaries.calibration(images(score=score, mos=score + 0.5))
    assert list(table["images"]) == [10] * summaries.BINS
    assert list(table["mos"] - table["score"]) == pytest.approx([0.5] * summaries.BINS)
    assert table["score"].is_monotonic_increasing


def test_gates_are_ordered_by_the_first_experts_weight() -> None:
    frame = images(generator=["a", "b", "c"] * 4)
    weights = {"a": 0.7, "b": 0.1, "c": 0.4}
    frame["gate_x"] = frame["generator"].map(weights)
    frame["gate_y"] = 1 - frame["gate_x"]
    table = summaries.gate_by_generator(frame, ["x", "y"])
    assert list(table["generator"]) == ["b", "c", "a"] * 2
    assert list(table["median"]) == pytest.approx([0.1, 0.4, 0.7, 0.9, 0.6, 0.3])
    along = summaries.gate_by_mos(frame.assign(mos=np.arange(12.0)), ["x"])
    assert along["mos"].is_monotonic_increasing
    assert along["images"].sum() == 12


def test_average_images_average_the_splits(finished_run: Path) -> None:
    root = finished_run
    predictions = pd.read_csv(root / "run" / "predictions.csv")
    moe = predictions[predictions["model"] == "moe"]
    images = average_images(read_results(root / "run"))
    assert len(images) == moe["path"].nunique()
    assert images["splits"].sum() == len(moe)
    first = images.iloc[0]
    own = moe[moe["path"] == first["path"]]
    assert abs(first["score"] - own["score"].mean()) < 1e-9
    assert abs(first["gate_visual"] - own["gate_visual"].mean()) < 1e-9
