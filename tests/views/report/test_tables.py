from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agiqa.core.model_names import MODELS, ZERO_SHOT
from agiqa.data.metric_names import FIGURES, TOO_FEW_TO_FIT
from agiqa.stage2.predictors import BASELINES, DROPPED
from agiqa.stage2.presets import LIGHT, MIXTURE, TUNED
from agiqa.views.kit.number import DASH, dashes
from agiqa.views.report.content import generator_rows, leaks, model_rows
from agiqa.views.report.results import read_results


def figures(**medians: float) -> dict[str, Any]:
    return {
        model: {column: {"median": value, "mean": value, "sd": 0.01} for column in FIGURES}
        for model, value in medians.items()
    }


def test_the_best_of_a_column_is_the_highest_but_the_lowest_rmse() -> None:
    rows = model_rows({"models": figures(moe=0.9, ridge=0.8, visual=0.90001)})
    assert [row.name for row in rows] == ["Ridge regression", "Kernel ridge", "Mixture of experts"]
    assert [row.main for row in rows] == [False, False, True]
    place = list(FIGURES).index("rmse")
    assert [row.cells[0].best for row in rows] == [False, True, True]  # a tie as shown
    assert [row.cells[place].best for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("mixture", "ridge", "shown"), [(-0.2, -0.3, "−0.300"), (0.9, float("nan"), "–")]
)
def test_a_negative_median_can_be_best_and_none_never_is(
    mixture: float, ridge: float, shown: str
) -> None:
    rows = model_rows({"models": figures(moe=mixture, ridge=ridge)})
    assert rows[0].cells[0].median == shown
    assert [row.cells[0].best for row in rows] == [False, True]


def test_leaks_in_words(tiny_run: Callable[..., Path]) -> None:
    results = read_results(tiny_run(shared=5) / "run")
    found = leaks(results, prompts_known=True)
    assert not found["clean"]
    assert found["sentences"][0].startswith("25 % (15 of 60) of the test images share their prompt")
    assert found["sentences"][1].startswith("5 % (3 of 60) of the test images are byte-identical")
    assert found["sentences"][2].startswith("Counted over 3 splits of 24 training")


def test_no_leak_in_words(finished_run: Path) -> None:
    results = read_results(finished_run / "run")
    found = leaks(results, prompts_known=True)
    assert found["clean"]
    assert found["sentences"][0] == (
        "No test image shares its prompt or its file with a training or validation image."
    )
    unnamed, apart, _ = leaks(results, prompts_known=False)["sentences"]
    assert unnamed.startswith("The data set names no prompts")
    assert apart == "No test image shares its file with a training or validation image."


def test_every_model_that_evaluate_measures_has_a_label() -> None:
    assert tuple(MODELS) == (ZERO_SHOT, *BASELINES, LIGHT, TUNED, MIXTURE, DROPPED)


def test_what_is_not_defined_is_one_dash_without_a_deviation() -> None:
    metrics = {"models": figures(moe=0.9)}
    metrics["models"]["moe"]["rmse"] = {"median": None, "sd": None, "why": TOO_FEW_TO_FIT}
    metrics["models"]["moe"]["srcc"] = {"median": 0.9, "sd": None, "low": None, "high": None,
                                        "why": "4 groups"}  # fmt: skip
    cells = dict(zip(FIGURES, model_rows(metrics)[0].cells, strict=True))
    assert (cells["rmse"].median, cells["rmse"].sd, cells["rmse"].interval) == (DASH, "", "")
    assert (cells["srcc"].median, cells["srcc"].sd, cells["srcc"].interval) == ("0.900", "", "")
    why = dashes(metrics["models"].values(), list(FIGURES))
    assert why == f"– 95 % of SRCC: 4 groups. – RMSE fitted: {TOO_FEW_TO_FIT}."


def test_a_generator_of_few_images_says_so_instead_of_a_figure() -> None:
    """One image a split has no correlation; `– ± –` would say nothing."""
    none = {"median": None, "mean": None, "sd": None}
    some = {"median": 0.9, "mean": 0.9, "sd": 0.02}
    about = {"images": 4, "mean_mos": 3.0, "mean_score": 3.1, "least_for_correlation": 10}
    rows = generator_rows(
        {
            "splits": 10,
            "generators": {
                "small": about | {"most_a_split": 1, "splits": 0, "srcc": none, "plcc": none},
                "part": about | {"most_a_split": 12, "splits": 4, "srcc": some, "plcc": some},
                "whole": about | {"most_a_split": 99, "splits": 10, "srcc": some, "plcc": some},
                "alike": about | {"most_a_split": 99, "splits": 10, "srcc": none, "plcc": none},
                "earlier": {**about, "srcc": none, "plcc": none},
            },
        }
    )
    assert [row.note for row in rows] == [
        "at most 1 test image a split; a correlation needs 10",
        "correlations of 4 of 10 splits",
        "",
        "no correlation: too few images, or all alike",
        "no correlation: too few images, or all alike",
    ]
