"""The figures of every table and file: headings, what they say, and when they are not given.

`agiqa.data.metrics` computes them; tables take their words from here. Raw errors stand before the
fitted one wherever errors are read: the curve was fitted to the test side, so its error is too
kind.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """How one figure is called and read."""

    heading: str
    meaning: str
    less_is_better: bool = False
    fitted: bool = False  # after the 4-parameter logistic


FIGURES = {
    "srcc": Figure("SRCC", "Spearman's rank correlation, raw scores"),
    "plcc_logistic": Figure("PLCC fitted", "Pearson's after the 4-parameter logistic", fitted=True),
    "plcc": Figure("PLCC raw", "Pearson's linear correlation, raw scores"),
    "krcc": Figure("KRCC", "Kendall's tau-b, raw scores"),
    "rmse_raw": Figure("RMSE raw", "root mean square error of the scores as they are", True),
    "mae": Figure("MAE", "mean absolute error of the scores as they are", True),
    "rmse": Figure("RMSE fitted", "root mean square error after the logistic", True, True),
}
ERRORS = tuple(name for name, figure in FIGURES.items() if figure.less_is_better)
CORRELATIONS = tuple(name for name in FIGURES if name not in ERRORS)
FITTED = tuple(name for name, figure in FIGURES.items() if figure.fitted)
LEAST_FOR_FITTED = 30  # test images, of a fitted figure
TOO_FEW_TO_FIT = f"fewer than {LEAST_FOR_FITTED} test images to fit a curve to"
SOMEWHERE = "not defined in every split: equal scores or targets, or a single image"
EARLIER = "not measured by the version that evaluated this run; run `agiqa evaluate` again"
DASH = "–"
PARTS = ("median", "mean", "sd", "low", "high")


def of_this_version(metrics: Any) -> Any:
    """Read metrics.json as this version writes it, in place: raw errors of earlier runs are null.

    Fitted figures of too few images, and the deviation of a single split, become null too. What is
    no object, or lacks something, stays as it is: whoever reads it says so.
    """
    if not isinstance(metrics, dict) or not isinstance(metrics.get("models"), dict):
        return metrics
    rows = metrics.get("per_split")
    for model, figures in metrics["models"].items():
        if not isinstance(figures, dict):
            continue
        splits = rows.get(model) if isinstance(rows, dict) else None
        few = [row for row in splits if _few(row)] if isinstance(splits, list) else []
        for row in few:
            row.update(dict.fromkeys(FITTED))
        for name in FIGURES:
            if name not in figures:
                figures[name] = dict.fromkeys(PARTS) | {"why": EARLIER}
            elif name in FITTED and few and isinstance(figures[name], dict):
                figures[name] |= dict.fromkeys(PARTS) | {"why": TOO_FEW_TO_FIT}
            if not isinstance(figures[name], dict):
                continue
            if figures[name].get("median") is None:
                figures[name].setdefault("why", SOMEWHERE)
            if metrics.get("splits") == 1:
                figures[name]["sd"] = None
    return metrics


def _few(row: Any) -> bool:
    images = row.get("images") if isinstance(row, dict) else None
    return isinstance(images, int) and images < LEAST_FOR_FITTED


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A figure with a true minus sign; a dash for what is not defined."""
    if value is None or not math.isfinite(value):
        return DASH
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", "−")


def with_deviation(values: Mapping[str, Any], digits: int = 3) -> str:
    """`0.885 ± 0.009`; without a deviation where there is none, as of a single split."""
    median, sd = number(values.get("median"), digits), number(values.get("sd"), digits)
    return median if DASH in (median, sd) else f"{median} ± {sd}"


def interval(values: Mapping[str, Any], digits: int = 3) -> str:
    """`0.865…0.899`; a dash where there is none."""
    low, high = number(values.get("low"), digits), number(values.get("high"), digits)
    return DASH if DASH in (low, high) else f"{low}…{high}"


def probability(p: float | None) -> str:
    """A p value without its leading zero."""
    if p is None or not math.isfinite(p):
        return DASH
    return "< .001" if p < 0.001 else number(p).removeprefix("0")


def dashes(rows: Iterable[Mapping[str, Mapping[str, Any]]], intervals: Sequence[str] = ()) -> str:
    """Why there are dashes in a table, one sentence a reason; empty where there are none.

    Args:
        rows: of the table, the figures that it shows by name, with `why` where one is not defined.
        intervals: names of those whose intervals it shows.
    """
    by_reason: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, values in row.items():
            reason, missing = values.get("why"), number(values.get("median")) == DASH
            if reason and (missing or name in intervals):
                what = FIGURES[name].heading if missing else f"95 % of {FIGURES[name].heading}"
                by_reason.setdefault(str(reason), {})[what] = None
    return " ".join(f"{DASH} {', '.join(names)}: {why}." for why, names in by_reason.items())


def difference_dashes(differences: Iterable[Mapping[str, Mapping[str, Any]]]) -> str:
    """`dashes`, of tables of differences with their intervals over images."""
    return dashes(
        [
            {name: {"median": values.get("mean", values.get("difference"))} | dict(values)
             for name, values in figures.items()}
            for figures in differences
        ],
        tuple(FIGURES),
    )  # fmt: skip


def ceiling_of(best: Mapping[str, Any], name: str) -> float | None:
    """The most, or the least, that the raters' noise leaves of a figure; raw or fitted alike."""
    value: float | None = best.get({"plcc_logistic": "plcc", "rmse_raw": "rmse"}.get(name, name))
    return value


def outside_scale(metrics: Mapping[str, Any]) -> str:
    """How many scores lie outside the scale of the training, in a sentence; empty where none do."""
    counts = metrics.get("outside_scale")
    if not counts or not counts["below"] + counts["above"]:
        return ""
    beyond = counts["below"] + counts["above"]
    return (
        f"{beyond:,} of {counts['scores']:,} test scores of the mixture lie outside the scale of "
        f"the training, {number(counts['low'], 2)} to {number(counts['high'], 2)}: "
        f"{counts['below']:,} below, {counts['above']:,} above."
    )
