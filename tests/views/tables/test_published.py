"""The shipped file names each system, with its split, how its epoch was chosen, and its source."""

import json
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.views.tables import published_results
from agiqa.views.tables.grids import LEAKED, NOT_SEEN, TEST_SELECTED, Result

RESULTS = Path(__file__).parents[3] / "docs/results"


def result(method: str, dataset: str = "agiqa-3k", target: str = "quality") -> Result:
    (found,) = (
        r
        for r in published_results()
        if (r.method, r.dataset, r.target, r.trained_on) == (method, dataset, target, ())
    )
    return found


@pytest.mark.parametrize(
    ("method", "printed", "marks"),
    [
        ("MA-AGIQA", ("0.8939", "0.9273"), (LEAKED,)),
        ("IPCE", ("0.8841", "0.9246"), (TEST_SELECTED,)),
        ("ACL-IQA", ("0.8969", "0.9282"), (TEST_SELECTED,)),
        ("M3-AGIQA", ("0.9045", "0.9317"), (LEAKED, TEST_SELECTED)),
        ("MANIQA, MA-AGIQA's backbone alone", ("0.8618", "0.9115"), (LEAKED, NOT_SEEN)),
        ("SF-IQA", ("0.9024", "0.9314"), (NOT_SEEN,)),
        ("OneAlign, zero-shot", ("0.801", "0.838"), ()),
    ],
)
def test_a_system_has_its_figures_and_its_marks(
    method: str, printed: tuple[str, str], marks: tuple[str, ...]
) -> None:
    found = result(method)
    figures = [found.figures[name].printed for name in ("srcc", "plcc_logistic")]
    assert (tuple(one for (one,) in figures), found.marks) == (printed, marks)


def test_what_was_counted_in_released_splits_is_said() -> None:
    assert (
        "the prompts of 597 of 597 test images are in training" in result("M3-AGIQA").protocol_note
    )
    assert "the prompts of 0 of 5,958 test images are in training" in result("IPCE").protocol_note
    # its AIGCIQA2023 splits are by image, whatever those of AGIQA-3K are
    for method in ("IPCE", "ACL-IQA", "M3-AGIQA"):
        for target in ("quality", "authenticity", "correspondence"):
            assert result(method, "aigciqa2023", target).marks == (LEAKED, TEST_SELECTED)


def test_every_count_of_leaked_prompts_is_one_of_the_released_splits() -> None:
    systems = json.loads((RESULTS / "released-splits.json").read_text())["systems"]
    for published in published_results():
        system = published.method.removesuffix(", its released weights")
        system = system.removesuffix(", trained again by a user")
        counted = systems.get(system, {}).get(published.dataset)
        if "test images are in training" in published.protocol_note:
            leaked, images = counted["whose_prompt_is_in_training"], counted["test_images"]
            assert f"the prompts of {leaked:,} of {images:,} test" in published.protocol_note
            assert (LEAKED in published.marks) == (leaked > 0)
        elif counted and not published.trained_on:
            pytest.fail(f"{published.method} on {published.dataset}: counted, and not said")


@pytest.mark.parametrize("name", ["agiqa-3k-ipce-quality", "agiqa-3k-ipce-alignment"])
def test_our_results_on_the_released_splits_are_of_the_published_split_file(name: str) -> None:
    ours = json.loads((RESULTS / f"{name}.json").read_text())["splits_sha256"]
    counted = json.loads((RESULTS / "agiqa-3k-splits.json").read_text())["splits"]["ipce"]
    assert ours == counted["sha256"]
    published = {result("IPCE", target=target).splits_sha256 for target in ("quality", "align")}
    assert published == {ours[:12]}


def test_across_data_sets() -> None:
    crossed = {
        (r.trained_on, r.dataset): r.figures
        for r in published_results()
        if r.trained_on and r.method == "MA-AGIQA"
    }
    assert {
        key: [figures[name].median for name in ("srcc", "plcc_logistic", "krcc", "rmse")]
        for key, figures in crossed.items()
    } == {
        (("aigiqa-20k",), "agiqa-3k"): [0.8053, 0.8430, 0.6083, 0.5399],
        (("agiqa-3k",), "aigiqa-20k"): [0.7722, 0.8314, 0.5777, 0.4055],
    }


def test_only_a_split_that_is_ours_image_for_image_has_a_protocol_and_its_digest() -> None:
    ours = [r for r in published_results() if r.protocol not in ("as published", "cross")]
    assert {(r.method, r.target, r.protocol, r.splits_sha256) for r in ours} == {
        ("MA-AGIQA", "quality", "paper", "ca202e225b4b"),
        ("MANIQA, MA-AGIQA's backbone alone", "quality", "paper", "ca202e225b4b"),
        *(
            (method, target, "ipce", "a4ced5e6f02b")
            for method in ("IPCE", "ACL-IQA")
            for target in ("quality", "align")
        ),
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{method: a}", "entry 1: expected results, a list with their keys"),
        ("{results: [{srcc: '1'}]}", "expected method, source, said, selection, checked, dataset"),
        ("{%s, results: [{%s, srcc: 0.930}]}", r"number in quotes, or a list of two, found 0\.93"),
        ("{%s, results: [{%s, srcc: ['0.1', '0.2', '0.3']}]}", "a list of two, found"),
        ("{%s, results: [{%s, srcc: ['high', 'low']}]}", "found .'high', 'low'."),
        ("{%s, results: [{%s}]}", r"expected a figure \(srcc, .*\), found none"),
        ("{%s, results: [{%s, srcc: '0.9', sroc: '0.9'}]}", "unknown key sroc"),
        ("{%s, results: [{%s, srcc: '0.9', protocol: paper}]}", "splits_sha256 go together"),
        ("{%s, results: [{%s, srcc: '0.9', leaked: all}]}", "leaked is such as 0 of 597, found"),
        ("{%s, results: [{%s, srcc: '0.9', leaked: 9 of 8}]}", "found '9 of 8' .more than all"),
        ("{%s, results: [{%s, srcc: '0.9', checked: guessed}]}", "one of read, printed; found"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, message: str) -> None:
    system = "method: a, source: d, said: c, selection: test"
    if "checked" not in entry:
        system += ", checked: read"
    path = tmp_path / "own.yaml"
    filled = entry % (system, "dataset: b, target: quality") if "%s" in entry else entry
    path.write_text(f"- {filled}\n")
    with pytest.raises(AgiqaError, match=message):
        published_results(path)
