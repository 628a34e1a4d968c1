from agiqa.cli import compare
from agiqa.data.metric_names import CORRELATIONS, ERRORS, FIGURES, FITTED


def test_raw_errors_stand_before_the_fitted_one() -> None:
    assert ERRORS == ("rmse_raw", "mae", "rmse")
    assert sorted((*CORRELATIONS, *ERRORS)) == sorted(FIGURES)
    assert FITTED == ("plcc_logistic", "rmse")
    assert sorted(compare.TABLE_FIGURES) == sorted(FIGURES)  # without its imports, for --help
