import copy

import pytest

from agiqa.cli import table
from agiqa.data.metric_names import (
    CORRELATIONS,
    EARLIER,
    ERRORS,
    FIGURES,
    FITTED,
    TOO_FEW_TO_FIT,
    dashes,
    interval,
    number,
    of_this_version,
    outside_scale,
    probability,
    with_deviation,
)
from kit.run_files import metrics_of


def test_raw_errors_stand_before_the_fitted_one() -> None:
    assert ERRORS == ("rmse_raw", "mae", "rmse")
    assert sorted((*CORRELATIONS, *ERRORS)) == sorted(FIGURES)
    assert FITTED == ("plcc_logistic", "rmse")
    assert sorted(table.FIGURES) == sorted(FIGURES)  # without its imports, for --help


def test_numbers() -> None:
    assert number(-0.00001) == "0.000"
    assert number(-0.5, signed=True) == "−0.500"
    assert number(0.5, 2, signed=True) == "+0.50"
    for nothing in (None, float("nan"), float("inf")):
        assert number(nothing) == "–"
        assert probability(nothing) == "–"
    assert with_deviation({"median": 0.9, "sd": 0.01}) == "0.900 ± 0.010"
    assert with_deviation({"median": 0.9, "sd": None}) == "0.900"  # one split
    assert with_deviation({"median": None, "sd": None}) == "–"
    assert interval({"low": 0.8, "high": 0.9}) == "0.800…0.900"
    assert interval({"low": float("nan"), "high": 0.9}) == interval({}) == "–"
    assert (probability(0.0004), probability(0.05)) == ("< .001", ".050")


def test_results_of_an_earlier_version() -> None:
    old = metrics_of(splits=1)
    for figures in old["models"].values():
        del figures["rmse_raw"], figures["mae"]
        figures["srcc"]["sd"] = 0.0  # as it was written for one split
    old["per_split"] = {model: [{"seed": 0, "images": 6, "rmse": 0.1}] for model in old["models"]}
    found = of_this_version(copy.deepcopy(old))["models"]["moe"]
    assert found["mae"] == dict.fromkeys(("median", "mean", "sd", "low", "high")) | {"why": EARLIER}
    assert found["rmse"]["median"] is None  # .1 of six images was the curve's merit
    assert found["rmse"]["why"] == TOO_FEW_TO_FIT
    assert found["srcc"]["sd"] is None
    assert found["srcc"]["median"] == old["models"]["moe"]["srcc"]["median"]
    old["per_split"] = {model: [{"seed": 0, "images": 30}] for model in old["models"]}
    assert of_this_version(old)["models"]["moe"]["rmse"]["median"] == 1.25


@pytest.mark.parametrize(
    "damaged",
    [None, [], {}, {"models": []}, {"models": {"moe": 3}}, {"models": {"moe": {"srcc": 3}}},
     {"models": {"moe": {"rmse": "x"}}, "per_split": {"moe": 3}},
     {"models": {"moe": {}}, "per_split": {"moe": [3, {"images": "x"}]}}],
)  # fmt: skip
def test_damaged_results_are_left_to_their_reader(damaged: object) -> None:
    of_this_version(damaged)


def test_dashes_are_explained_once_a_reason() -> None:
    row = {
        "srcc": {"median": 0.9, "low": None, "why": "4 groups"},
        "mae": {"median": 0.1, "low": None, "why": "4 groups"},
        "rmse": {"median": None, "why": TOO_FEW_TO_FIT},
        "plcc": {"median": 0.9},
    }
    assert dashes([row, row]) == f"– RMSE fitted: {TOO_FEW_TO_FIT}."
    assert dashes([row], ["srcc", "mae"]).startswith(
        "– 95 % of SRCC, 95 % of MAE: 4 groups. – RMSE"
    )
    assert dashes([{"plcc": {"median": 0.9}}]) == ""


def test_scores_outside_the_scale_are_counted() -> None:
    assert outside_scale({}) == ""
    counts = {"low": 1.0, "high": 5.0, "scores": 2000, "below": 0, "above": 0}
    assert outside_scale({"outside_scale": counts}) == ""
    said = outside_scale({"outside_scale": counts | {"below": 2, "above": 3}})
    assert said.startswith("5 of 2,000 test scores")
    assert said.endswith("1.00 to 5.00: 2 below, 3 above.")
