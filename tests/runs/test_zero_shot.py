"""A published scorer beside fitted runs: measured on the same test sides, compared, in tables."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from agiqa.runs.create_scorer import create_scorer
from kit.command import agiqa, refusal
from kit.tiny_workspace import RUN

RESULTS = "runs/mine/letters/random"


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_workspace: Path,
    family_folder: Callable[[str], Path],
) -> Path:
    """A copy of the tiny workspace with a scorer whose answers are letters, as tokens are there."""
    folder = tmp_path_factory.mktemp("scorer") / "workspace"
    shutil.copytree(tiny_workspace, folder)
    about = {
        "name": "letters", "citation": "nobody", "licence": "MIT", "size": "tiny",
        "model": str(family_folder("llava")), "dtype": "float32", "order": "image_first",
        "template": "{image}{prompt}", "prompts": {"good": "good?"},
        "reply": "It is\n", "answers": {"a": 1, "b": 0}, "target": "quality",
        "trained_on": "letters alone",
    }  # fmt: skip
    (folder / "letters.yaml").write_text(yaml.safe_dump(about))
    (folder / "far.yaml").write_text(yaml.safe_dump(about | {"model": "nobody/has-it"}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def metrics(workspace: Path) -> Iterator[dict[str, Any]]:
    """Its figures; everything happens in the workspace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setenv("AGIQA_STORE", str(workspace / "ledger"))
        words = ["evaluate", "mine", "--scorer", "letters.yaml", "--json"]
        yield json.loads(agiqa(*words).stdout)


def test_the_test_sides_of_a_run_are_measured_and_compared(metrics: dict[str, Any]) -> None:
    assert (metrics["dataset"], metrics["protocol"]) == ("mine", "random")
    rows = pd.read_csv(Path(RESULTS, "predictions.csv"))
    fitted = pd.read_csv(Path(RUN, "predictions.csv")).query("model == 'moe'")
    assert rows[["seed", "path", "mos"]].equals(
        fitted[["seed", "path", "mos"]].reset_index(drop=True)
    )
    (score,) = create_scorer("letters.yaml")([f"images/{rows['path'][0]}"])
    assert rows["score"][0] == pytest.approx(score.score, rel=1e-5)
    compared = json.loads(agiqa("compare", RUN, RESULTS, "--json").stdout)
    (difference,) = compared["comparisons"]
    assert difference["figures"]["srcc"]["mean"] == pytest.approx(
        metrics["models"]["zero_shot"]["srcc"]["mean"]
        - json.loads(Path(RUN, "metrics.json").read_text())["models"]["moe"]["srcc"]["mean"]
    )


def test_a_table_marks_it_zero_shot_beside_fitted_models() -> None:
    table = agiqa("table", "--format", "markdown").output
    rows = [line for line in table.splitlines() if line.startswith("| agiqa")]
    assert any("letters, zero-shot" in row for row in rows)
    assert any("mixture of experts" in row for row in rows)
    assert "not trained on these ratings; its model saw letters alone" in table


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["mine", "--scorer", RUN], "expected a published scorer, found a run"),
        (["mine", "--scorer", "letters.yaml", "--target", "beauty"], "has no target 'beauty'"),
        (["absent", "--scorer", "letters.yaml"], "prepared there: mine"),
        ([RUN, "--scorer", "letters.yaml"], "expected a data set's name, found a run"),
        (["absent", "--scorer", "far.yaml"], "absent"),  # before a model is fetched
        (["mine", "--scorer", "letters.yaml"], "a run stands there"),
        ([RUN, "--target", "quality"], "--target goes with --scorer"),
        (["mine", "--scorer", "no-such"], "known:"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: list[str], line: str) -> None:
    refused = agiqa("evaluate", *words, status=None)
    assert refused.exit_code != 0
    assert line in refused.output
    assert "Traceback" not in refused.output


def test_results_are_no_run() -> None:
    for words in (["score", "images/00.png", "--run", RESULTS], ["report", RESULTS]):
        assert "not a run" in refusal(*words)
