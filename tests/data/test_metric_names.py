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
    of_this_version,
)
from kit.run_files import metrics_of


def test_raw_errors_stand_before_the_fitted_one() -> None:
    assert ERRORS == ("rmse_raw", "mae", "rmse")
    assert sorted((*CORRELATIONS, *ERRORS)) == sorted(FIGURES)
    assert FITTED == ("plcc_logistic", "rmse")
    assert sorted(table.FIGURES) == sorted(FIGURES)  # without its imports, for --help


def test_results_of_an_earlier_version() -> None:
    old = metrics_of(splits=1)
    for figures in old["models"].values():
        del figures["rmse_raw"], figures["mae"]
        figures["srcc"]["sd"] = 0.0  # as it was written for one split
    old["per_split"] = {model: [{"seed": 0, "images": 6, "rmse": 0.1}] for model in old["models"]}
    read = of_this_version(copy.deepcopy(old))["models"]["moe"]
    assert read["mae"] == dict.fromkeys(("median", "mean", "sd", "low", "high")) | {"why": EARLIER}
    assert read["rmse"]["median"] is None  # .1 of six images was the curve's merit
    assert read["rmse"]["why"] == TOO_FEW_TO_FIT
    assert read["srcc"]["sd"] is None
    assert read["srcc"]["median"] == old["models"]["moe"]["srcc"]["median"]
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
