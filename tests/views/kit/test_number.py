"""How figures are printed: once, for every table, page and command."""

import pytest

from agiqa.data.metric_names import TOO_FEW_TO_FIT
from agiqa.views.kit.number import (
    coverage_line,
    dashes,
    ends,
    gate_line,
    interval,
    number,
    outside_scale,
    probability,
    with_deviation,
    without_zero,
)


@pytest.mark.parametrize(
    ("value", "digits", "signed", "printed"),
    [
        (0.89351, 3, False, "0.894"),
        (-0.5, 2, False, "−0.50"),
        (0.0123, 2, True, "+0.01"),
        (-0.0001, 2, True, "0.00"),
        (None, 3, False, "–"),
        (float("nan"), 3, True, "–"),
        (float("inf"), 3, True, "–"),
    ],
)
def test_number(value: float | None, digits: int, signed: bool, printed: str) -> None:
    assert number(value, digits, signed) == printed


def test_parts_of_a_figure() -> None:
    for nothing in (None, float("nan"), float("inf")):
        assert probability(nothing) == "–"
    assert with_deviation({"median": 0.9, "sd": 0.01}) == "0.900 ± 0.010"
    assert with_deviation({"median": 0.9, "sd": None}) == "0.900"  # one split
    assert with_deviation({"median": None, "sd": None}) == "–"
    assert interval({"low": 0.8, "high": 0.9}) == "0.800…0.900"
    assert interval({"low": float("nan"), "high": 0.9}) == interval({}) == "–"
    assert (ends(-0.1, 0.2, 2), ends(0.1, None)) == ("−0.10 … +0.20", "–")
    assert (probability(0.0004), probability(0.05)) == ("< .001", ".050")


def test_correlations_have_no_zero_before_the_point() -> None:
    assert without_zero(number(0.88481, 3)) == ".885"
    assert without_zero(number(-0.02, 3)) == "−.020"
    assert without_zero(number(-0.0001, 3)) == ".000"
    assert without_zero("10.25") == "10.25"
    assert without_zero("-0.5") == "−.5"  # as a publication prints it


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


def test_what_validation_made_of_the_gate_is_one_line() -> None:
    gain = {"mean": 0.0123, "low": 0.004, "high": 0.0206, "p": 0.012}
    gating = {"epochs": [0, 60, 140], "deviation": 0.31, "gain": gain}
    assert gate_line({}) == ""
    assert gate_line({"gating": gating | {"epochs": [0, 0]}}) == (
        "gate: constant, validation found nothing better."
    )
    assert gate_line({"gating": gating}) == (
        "gate: moves with the image in 2 of 3 splits (epoch 60 to 140 kept), by ± 0.310 over a "
        "test side's images; SRCC +0.0123 beside one constant mixture "
        "(95 %: 0.0040…0.0206, p = 0.012)."
    )
    single = gate_line({"gating": gating | {"gain": gain | {"low": None, "high": None, "p": None}}})
    assert single.endswith("SRCC +0.0123 beside one constant mixture.")


def test_how_many_images_the_intervals_hold_is_one_line() -> None:
    coverage = {"level": 0.9, "covered": 0.9034, "width": 1.236, "splits": [0.871, 0.9342]}
    assert coverage_line({}) == ""
    assert coverage_line({"coverage": coverage}) == (
        "90 % prediction intervals hold 90.3 % of the test images' MOS, by split 87.1 % to 93.4 %; "
        "width 1.24."
    )
    single = coverage_line({"coverage": coverage | {"splits": [0.9034]}})
    assert single.endswith("hold 90.3 % of the test images' MOS; width 1.24.")
