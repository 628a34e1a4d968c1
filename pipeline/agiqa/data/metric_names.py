"""The figures of every table and file: headings, what they say, and when they are not given.

`agiqa.data.metrics` computes them, `agiqa.views.kit.number` prints them. Raw errors stand before
the fitted one wherever errors are read: the curve was fitted to the test side, so its error is too
kind.
"""

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
