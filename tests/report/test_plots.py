import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agiqa.report import plots
from agiqa.report.results import Results, read_results

TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def images(count: int) -> pd.DataFrame:
    mos = np.linspace(1, 5, count)
    return pd.DataFrame({"mos": mos, "score": mos + 0.1})


def points(svg: str) -> int:
    return len(re.findall(r"<use [^>]*var\(--series-1\)", svg))


def test_few_points_are_drawn_one_by_one_and_many_become_a_bitmap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = plots.scatter(images(200), "MOS")
    assert points(drawn) == 200
    assert "<image" not in drawn
    monkeypatch.setattr(plots, "MOST_POINTS", 100)
    bitmap = plots.scatter(images(200), "MOS")
    assert points(bitmap) == 0
    assert bitmap.count('xlink:href="data:image/png;base64,') == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_scatter_of_hardly_any_points_is_still_drawn(count: int) -> None:
    assert points(plots.scatter(images(count), "MOS")) == count


def of_gates(tiny_run: Callable[..., Path], **columns: list[float]) -> Results:
    results = read_results(tiny_run() / "run")
    rows = {"generator": ["a", "b"] * 5}
    rows |= {f"gate_{name}": values * 5 for name, values in columns.items()}  # type: ignore[misc]
    return replace(results, predictions=pd.DataFrame(rows))


def test_gates_that_share_out_have_the_equal_share_marked(tiny_run: Callable[..., Path]) -> None:
    svg = plots.gates(of_gates(tiny_run, visual=[0.2, 0.6], coherence=[0.8, 0.4]))
    words = TEXT.findall(svg)
    assert "gate weight (dashed: equal shares)" in words
    assert {"visual", "coherence"} <= set(words)
    assert words.index("a") < words.index("b")  # bottom first: by the first expert's weight


def test_linear_gates_may_be_negative_and_have_no_equal_share(
    tiny_run: Callable[..., Path],
) -> None:
    svg = plots.gates(of_gates(tiny_run, visual=[-0.5, 2.0], coherence=[0.8, 0.4]))
    assert "gate weight" in TEXT.findall(svg)


def test_only_the_largest_generators_are_drawn(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = of_gates(tiny_run, visual=[0.2, 0.6], coherence=[0.8, 0.4])
    results.predictions.loc[0, "generator"] = "rare"
    monkeypatch.setattr(plots, "MOST_ROWS", 2)
    words = TEXT.findall(plots.gates(results))
    assert "rare" not in words
    assert {"a", "b"} <= set(words)


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.scatter(images(10), "MOS")
    assert dict(mpl.rcParams) == before
