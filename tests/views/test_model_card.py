"""The card of a published run: what the hub reads of it, and what a person has to know."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from agiqa.core.errors import AgiqaError
from agiqa.runs.files import load_run
from agiqa.views.model_card import model_card
from kit.tiny_workspace import RUN

PUBLICATION = ("hf://tester/run", "apache-2.0", "## Notes\n\nMade for a test.", True)


@pytest.fixture
def run(tiny_workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_workspace / RUN, tmp_path / "run"))


def change(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def head_of(card: str) -> dict[str, Any]:
    """What the hub reads."""
    assert card.startswith("---\n")
    tree: dict[str, Any] = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    return tree


def test_the_hub_finds_licence_tags_and_figures(run: Path) -> None:
    head = head_of(model_card(load_run(run), *PUBLICATION))
    assert (head["license"], head["library_name"]) == ("apache-2.0", "agiqa")
    assert "synthetic-scores" not in head["tags"]
    (result,) = {json.dumps(result["dataset"]) for result in head["model-index"][0]["results"]}
    about = json.loads(result)
    assert about == {
        "name": "mine", "type": "mine", "config": "quality, random", "split": "test",
    }  # fmt: skip
    measured = json.loads((run / "metrics.json").read_text())["models"]["moe"]
    figures = {
        metric["type"]: metric["value"]
        for result in head["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    assert figures == {  # with 8 test images there is no fitted PLCC
        "spearmanr": round(measured["srcc"]["median"], 4),
        "rmse": round(measured["rmse_raw"]["median"], 4),
    }
    assert set(head["metrics"]) == set(figures)


def test_why_a_figure_has_a_dash_is_said(run: Path) -> None:
    card = model_card(load_run(run), *PUBLICATION)
    trial = "**A trial**: a test side has 8 images, too few for results."
    assert f"\nmine, quality, random: {trial} – PLCC fitted: fewer than 30 test" in card


def test_a_reader_finds_protocol_leaks_digests_and_limits(run: Path) -> None:
    about = json.loads((run / "provenance.json").read_text())
    leaks = [leak | {"same_prompt": 3, "same_file": 1} for leak in about["leaks"]]
    change(run / "metrics.json", leaks=leaks)
    card = model_card(load_run(run), *PUBLICATION)
    assert "quality on the scale of mine, 1.07 to 4.83" in card
    assert "of 80 in 10 splits, 30 a prompt, 0 a group, 10 a file" in card
    assert f"scores {about['scores_sha256']}, splits {about['splits_sha256']}" in card
    assert "| their licence | the owner's own |" in card
    srcc = json.loads((run / "metrics.json").read_text())["models"]["moe"]["srcc"]
    assert f"| {srcc['median']:.3f} (".replace("-", "−") in card
    assert "Of the 40 images" in card
    assert "predictions.csv has the names, ratings and scores" in card
    assert card.endswith("## Notes\n\nMade for a test.\n")
    for word in ("synthetic", "labels.csv", "None", "nan"):
        assert word not in card


def test_synthetic_scores_are_said_first(run: Path) -> None:
    change(run / "provenance.json", synthetic=True)
    change(run / "metrics.json", synthetic=True)
    card = model_card(load_run(run), *PUBLICATION)
    assert "synthetic-scores" in head_of(card)["tags"]
    start = card.index("# run")
    assert 0 < card.index("**The scores are synthetic**") - start < 200


def test_every_target_and_data_set_has_its_row(run: Path) -> None:
    for inner in ("targets/align", "datasets/other", "datasets/other/targets/align"):
        (run / inner).mkdir(parents=True)
        shutil.copy(run / "metrics.json", run / inner)
        *_, name = inner.split("/")
        change(run / inner / "metrics.json", dataset=inner.split("/")[1], target=f"{name}|x")
    card = model_card(load_run(run), *PUBLICATION)
    for named in ("align, align\\|x", "other, other\\|x", "other, align\\|x", "mine, quality"):
        assert f"| {named}, random |" in card
    assert len(head_of(card)["model-index"][0]["results"]) == 4
    (run / "targets/align/metrics.json").write_text("{")
    with pytest.raises(AgiqaError, match="damaged"):
        model_card(load_run(run), *PUBLICATION)
