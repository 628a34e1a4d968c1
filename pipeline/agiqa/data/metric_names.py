"""The figures of every table and file: headings, what they say, and when they are not given.

`agiqa.data.metrics` computes them, `agiqa.views.kit.number` prints them. Raw errors stand before
the fitted one wherever errors are read: the curve was fitted to the test side, so its error is too
kind.
"""

from dataclasses import dataclass


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
