"""The shipped file holds the published figures as printed, each with protocol and source."""

from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.sources import OFFICIAL
from agiqa.views.tables import published_results

SRCC = {  # method, in the order of the data sets, as printed
    "MA-AGIQA": ["0.8939", "0.8644", "", "0.9339", "0.9278"],
    "MA-AGIQA, others' re-runs": ["0.882 0.887", "0.862", "0.838 0.853", "", ""],
    "MANIQA, MA-AGIQA's backbone alone": ["0.8618", "0.8507", "0.827", "0.930", "0.923"],
    "Best printed anywhere": ["0.9045", "0.9076", "0.872", "0.967", "0.947"],
}
PLCC = {
    "MA-AGIQA": ["0.9273", "0.9050", "", "0.9482", "0.9321"],
    "MA-AGIQA, others' re-runs": ["", "", "", "", ""],
    "MANIQA, MA-AGIQA's backbone alone": ["0.9115", "0.8870", "", "", ""],
    "Best printed anywhere": ["0.9317", "0.9292", "0.892", "0.972", "0.948"],
}


@pytest.mark.parametrize(("figure", "expected"), [("srcc", SRCC), ("plcc_logistic", PLCC)])
def test_the_figures_are_those_printed(figure: str, expected: dict[str, list[str]]) -> None:
    found = {method: [""] * len(OFFICIAL) for method in expected}
    for result in published_results():
        if not result.trained_on and figure in result.figures:
            printed = " ".join(result.figures[figure].printed)
            found[result.method][OFFICIAL.index(result.dataset)] = printed
    assert found == expected


def test_across_data_sets() -> None:
    crossed = {(r.trained_on, r.dataset): r.figures for r in published_results() if r.trained_on}
    assert {
        key: [figures[name].median for name in ("srcc", "plcc_logistic", "krcc", "rmse")]
        for key, figures in crossed.items()
    } == {
        (("aigiqa-20k",), "agiqa-3k"): [0.8053, 0.8430, 0.6083, 0.5399],
        (("agiqa-3k",), "aigiqa-20k"): [0.7722, 0.8314, 0.5777, 0.4055],
    }


def test_only_the_split_that_is_ours_image_for_image_has_our_protocol() -> None:
    ours = [r for r in published_results() if r.protocol not in ("as published", "cross")]
    assert [(r.method, r.dataset, r.protocol) for r in ours] == [("MA-AGIQA", "agiqa-3k", "paper")]
    assert all(r.said and r.source for r in published_results())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{method: a}", "entry 1: expected dataset, target, protocol, said, source, found none"),
        ("{%s, srcc: 0.930}", r"number in quotes, or a list of two, found 0\.93"),
        ("{%s, srcc: ['0.1', '0.2', '0.3']}", "a list of two, found"),
        ("{%s, srcc: ['high', 'low']}", "found .'high', 'low'."),
        ("{%s}", r"expected a figure \(srcc, .*\), found none"),
        ("{%s, srcc: '0.9', sroc: '0.9'}", "unknown key sroc"),
        ("{%s, srcc: '0.9', trained_on: [c]}", "trained_on and the protocol cross go together"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, message: str) -> None:
    whole = "method: a, dataset: b, target: quality, protocol: paper, said: c, source: d"
    path = tmp_path / "own.yaml"
    path.write_text(f"- {entry % whole if '%s' in entry else entry}\n")
    with pytest.raises(AgiqaError, match=message):
        published_results(path)
