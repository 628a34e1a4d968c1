"""Runs are found, read and checked; what a user gets wrong is one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.views.tables import find_results
from kit.command import agiqa
from kit.run_files import metrics_of

RUNS = Path("runs")


def test_every_result_of_a_run_is_found(write_run: Callable[..., Path]) -> None:
    inside = {
        "": metrics_of(),
        "targets/align": metrics_of(0.7, target="align"),
        "cross/spaq": metrics_of(0.5, dataset="spaq", protocol="cross", trained_on=["agiqa-3k"]),
        "dvclive": {"nothing": "of ours"},
    }
    write_run("agiqa-3k/grouped", inside)
    found = find_results([RUNS])
    assert [
        (r.dataset, r.target, r.protocol, r.trained_on, r.trained_by) for r in found.results
    ] == [
        ("agiqa-3k", "quality", "grouped", (), ""),
        ("agiqa-3k", "align", "grouped", (), ""),
        ("spaq", "quality", "cross", ("agiqa-3k",), "grouped"),
    ]
    first = found.results[0]
    assert first.method == "agiqa: mixture of experts on nano and nano-vision"
    assert first.figures["srcc"].median == 0.8848
    assert first.figures["srcc"].sd == 0.0093
    assert first.figures["srcc"].interval == pytest.approx((0.8648, 0.9048))
    assert first.source == "runs/agiqa-3k/grouped"
    assert first.splits == 10


def test_what_was_learnt_together_is_said(write_run: Callable[..., Path]) -> None:
    inside = {
        "": metrics_of(),
        "datasets/spaq": metrics_of(0.6, dataset="spaq", protocol="random"),
        "datasets/spaq/targets/align": metrics_of(0.5, dataset="spaq", target="align"),
    }
    together = {"trained_on": ["agiqa-3k", "spaq"], "targets": ["quality", "align"]}
    write_run("agiqa-3k+spaq/grouped", inside, **together)
    found = find_results([RUNS]).results
    assert [(r.dataset, r.target, r.protocol) for r in found] == [
        ("agiqa-3k", "quality", "grouped"),
        ("spaq", "quality", "random"),
        ("spaq", "align", "grouped"),
    ]
    assert all(
        r.method.endswith(", trained on agiqa-3k and spaq, learning quality and align")
        for r in found
    )


def test_what_a_killed_fit_left_is_no_run(write_run: Callable[..., Path]) -> None:
    write_run("a/grouped")
    write_run("a/.grouped-x1y2/old")
    assert [r.source for r in find_results([RUNS]).results] == ["runs/a/grouped"]


def test_models_by_name(write_run: Callable[..., Path]) -> None:
    write_run("a/grouped")
    named = [r.method for r in find_results([RUNS], ["all"]).results]
    assert named == [
        "agiqa: ridge regression on nano-vision",
        "agiqa: mixture of experts on nano and nano-vision",
    ]
    assert [r.model for r in find_results([RUNS], ["ridge_visual"]).results] == ["ridge_visual"]
    with pytest.raises(
        AgiqaError, match="no run has a model ridges; there are: ridge_visual, moe, all"
    ):
        find_results([RUNS], ["moe", "ridges"])


OWL = {"extractor": "owl", "names": ["a"], "fingerprints": [{}]}
PIXELS = OWL | {"extractor": "pixels"}


@pytest.mark.parametrize(
    ("provenance", "method"),
    [
        ({"preset": "paper"}, "agiqa: MA-AGIQA's network on nano and nano-vision"),
        (
            {"preset": "paper-fixed", "stores": {"visual": PIXELS}},
            "agiqa: MA-AGIQA's network, without its quirks",
        ),
        (
            {"preset": "paper", "imported": {}, "stores": {"semantic": OWL}},
            "agiqa: the authors' checkpoint on owl",
        ),
        ({"stores": {}}, "agiqa: mixture of experts"),
    ],
)
def test_what_made_the_scores(
    write_run: Callable[..., Path], provenance: dict[str, object], method: str
) -> None:
    write_run("a/paper", **provenance)
    assert [r.method for r in find_results([RUNS]).results] == [method]


def test_runs_without_results(write_run: Callable[..., Path]) -> None:
    lonely = write_run("a/grouped", {})
    with pytest.raises(AgiqaError, match=r"runs/a/grouped: expected metrics.json, found none"):
        find_results([lonely])
    with pytest.raises(AgiqaError, match=r"no run here is evaluated \(runs/a/grouped\)"):
        find_results([RUNS])
    write_run("a/random")
    found = find_results([RUNS])
    assert found.not_evaluated == [lonely]
    assert len(found.results) == 1


def test_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match="nowhere: expected a run or a folder of runs, found none"):
        find_results([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(AgiqaError, match=r"expected runs \(provenance.json\), found notes.txt"):
        find_results([tmp_path])
    with pytest.raises(AgiqaError, match=r"notes\.txt: expected .* found a file"):
        find_results([tmp_path / "notes.txt"])


def _with(model: object = None, **changed: object) -> str:
    metrics = metrics_of()
    if model is not None:
        metrics["models"]["moe"]["srcc"] = model
    return json.dumps(metrics | changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "expected an object"),
        ("{}", "damaged .no dataset, models"),
        (_with(protocol=7), "damaged .protocol: expected text, found 7"),
        (_with(splits=0), "damaged .splits is 0"),
        (_with(models=[]), "models: expected an object, found a list"),
        (_with({"median": "high"}), "moe.srcc.median: expected a finite number, found 'high'"),
        (_with({"median": True}), "models.moe.srcc.median: expected a finite number, found True"),
        (_with({"median": float("nan")}), "moe.srcc.median: expected a finite number, found nan"),
        (_with(3), "models.moe.srcc: expected an object, found 3"),
        (_with(protocol="cross"), "damaged .no trained_on"),
        (_with(protocol="cross", trained_on=[]), "no trained_on"),
        (_with(protocol="cross", trained_on=[3]), r"trained_on\[0\]: expected text, found 3"),
    ],
)
def test_damaged_results_are_one_line(
    write_run: Callable[..., Path], text: str, message: str
) -> None:
    run = write_run("a/grouped")
    (run / "metrics.json").write_text(text)
    with pytest.raises(AgiqaError, match=message) as caught:
        find_results([RUNS])
    assert str(caught.value).startswith("runs/a/grouped/metrics.json: ")
    assert re.search(r"run `agiqa (evaluate|cross)` again", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_damaged_provenance_is_one_line(write_run: Callable[..., Path]) -> None:
    run = write_run("a/grouped")
    (run / "provenance.json").write_bytes(b"\xff")
    with pytest.raises(AgiqaError, match=r"provenance\.json: damaged .* `agiqa fit` again"):
        find_results([RUNS])


def test_a_figure_that_is_not_defined_is_no_figure(write_run: Callable[..., Path]) -> None:
    metrics = metrics_of()
    metrics["models"]["moe"]["srcc"] = {"median": None, "sd": None, "why": "all are equal"}
    del metrics["models"]["moe"]["rmse"]
    write_run("a/grouped", {"": metrics})
    (result,) = find_results([RUNS]).results
    assert result.figures["srcc"].median is None
    assert result.figures["srcc"].why == "all are equal"
    assert result.figures["rmse"].median is None
    assert result.figures["rmse"].why == "not measured; run `agiqa evaluate` again"


def test_a_damaged_run_leaves_the_others_their_table(write_run: Callable[..., Path]) -> None:
    write_run("good")
    (write_run("bad") / "metrics.json").write_text("{")
    found = find_results([RUNS])
    assert [result.source for result in found.results] == ["runs/good"]
    assert [str(error)[:27] for error in found.damaged] == ["runs/bad/metrics.json: dama"]
    done = agiqa("table", "--no-published", status=1)
    assert "Left out: runs/bad/metrics.json: damaged" in done.stderr
    assert "grouped" in done.stdout
