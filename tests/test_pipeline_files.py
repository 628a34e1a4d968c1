"""dvc.yaml and params.yaml say what the code does."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agiqa.cli.sources import OFFICIAL
from agiqa.params import Params, Source, load

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    return found


def test_params_file_and_code_have_the_same_defaults() -> None:
    """The wheel has no params.yaml; its users must get the same numbers."""
    written = load(REPOSITORY / "params.yaml")
    assert tuple(written.sources) == OFFICIAL
    assert all(written.sources[name] == Source(kind=name) for name in OFFICIAL)
    assert Params(sources=written.sources) == written


def test_every_setting_is_written_down() -> None:
    tree = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section in ("prepare", "splits", "semantic", "visual", "fit", "paper"):
        assert tree[section].keys() == vars(getattr(Params(), section)).keys()


def test_every_stage_describes_itself_and_is_a_matrix(stages: dict[str, Any]) -> None:
    assert list(stages) == [
        "prepare",
        "extract_semantic",
        "extract_other",
        "extract_visual",
        "fit",
        "fit_other",
        "evaluate",
        "evaluate_other",
        "report",
        "report_other",
    ]
    for name, stage in stages.items():
        assert stage["desc"], name
        assert stage["matrix"]["dataset"] == "${datasets}"
        assert stage["cmd"].startswith("agiqa "), name


def test_the_code_that_stages_depend_on_exists(stages: dict[str, Any]) -> None:
    for name, stage in stages.items():
        for dependency in stage["deps"]:
            if dependency.startswith("pipeline/"):
                assert (REPOSITORY / dependency).exists(), f"{name}: {dependency}"


def test_a_prompt_touches_only_the_semantic_store(stages: dict[str, Any]) -> None:
    readers = [
        name
        for name, stage in stages.items()
        if any(dependency.startswith("prompts") for dependency in stage["deps"])
    ]
    assert readers == ["extract_semantic", "extract_other"]


def test_a_learning_rate_touches_only_fit(stages: dict[str, Any]) -> None:
    readers = [name for name, stage in stages.items() if "fit" in stage.get("params", [])]
    assert readers == ["fit", "fit_other"]


@pytest.mark.parametrize("name", ["extract_semantic", "fit", "evaluate", "report"])
def test_other_extractors_have_the_same_stages(stages: dict[str, Any], name: str) -> None:
    """What a stage depends on is written twice; here it is held together."""

    def places(stage: dict[str, Any], run: str, store: str) -> str:
        listed = json.dumps([stage[key] for key in ("deps", "outs", "metrics", "plots")
                             if key in stage])  # fmt: skip
        return listed.replace(run, "RUN").replace(store, "STORE")

    ours = stages[name]
    theirs = stages[f"{name.removesuffix('_semantic')}_other"]
    assert theirs["matrix"] == ours["matrix"] | {"extractor": "${extractors}"}
    run = "runs/${item.dataset}/%s${item.protocol}"
    store = "/%s.${semantic.format}"
    one = places(ours, run % "", store % "${semantic.name}")
    other = places(theirs, run % "${item.extractor}/", store % "${item.extractor}")
    other = other.replace(", ${item.extractor}, ", ", ")  # the scatter's title
    assert one.replace("prompts/${semantic.prompts}.yaml", "prompts") == other
    assert {*theirs.get("params", [])} - {*ours.get("params", [])} <= {
        "extractors.${item.extractor}"
    }
