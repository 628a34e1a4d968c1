"""The shipped file names each system, with its split, how its epoch was chosen, and its source."""

import json
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import read_yaml
from agiqa.views.tables import published_results, results
from agiqa.views.tables.grids import FIGURES, LEAKED, NOT_SEEN, TEST_SELECTED, Result
from agiqa.views.tables.results import CHECKED, PUBLISHED, SELECTIONS

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
    for cited in published_results():
        system = cited.method.removesuffix(", its released weights")
        system = system.removesuffix(", trained again by a user")
        counted = systems.get(system, {}).get(cited.dataset)
        if "test images are in training" in cited.protocol_note:
            leaked, images = counted["whose_prompt_is_in_training"], counted["test_images"]
            assert f"the prompts of {leaked:,} of {images:,} test" in cited.protocol_note
            assert (LEAKED in cited.marks) == (leaked > 0)
        elif counted and not cited.trained_on:
            pytest.fail(f"{cited.method} on {cited.dataset}: counted, and not said")


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


def test_every_entry_is_complete_and_holds_nothing_else() -> None:
    needed = {"method", "source", "said", "selection", "checked", "dataset", "target", "results"}
    known = {*needed, *FIGURES, *("protocol", "leaked", "splits_sha256", "note", "trained_on")}
    for system in read_yaml(PUBLISHED):
        for entry in (system | result for result in system["results"]):
            assert needed <= {key for key in entry if entry[key]}, entry
            assert set(entry) <= known, entry
            assert entry["selection"] in SELECTIONS, entry
            assert entry["checked"] in CHECKED, entry
            figures = [entry[name] for name in FIGURES if name in entry]
            assert figures, entry
            for figure in figures:  # in quotes, which keep its last zeros
                low, high = [figure] * 2 if isinstance(figure, str) else figure
                assert 0 < float(low + "0") <= float(high + "0"), entry
            leaked, images = map(int, entry.get("leaked", "0 of 0").split(" of "))
            assert 0 <= leaked <= images, entry
            ours = "protocol" in entry and "trained_on" not in entry
            assert ours == ("splits_sha256" in entry), entry


def test_a_damaged_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "published.yaml"
    path.write_text("- {method: a, method: b}\n")
    monkeypatch.setattr(results, "PUBLISHED", path)
    with pytest.raises(AgiqaError, match=r"damaged .*method.*: install agiqa again"):
        published_results()
