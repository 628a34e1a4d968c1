"""The scorer that comes with agiqa: small, of nobody's machine, and used where none is named."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, Semantic, Visual
from agiqa.runs.files import load_run
from agiqa.runs.score import _with_own_libraries, default_run
from agiqa.stage1.nano.assemble import ensure_nano
from agiqa.stage2.features import require_same_stores
from kit.command import agiqa

MOST_BYTES = 10_000_000  # of the run in the wheel

NANO = Params(semantic=Semantic(model="nano"), visual=Visual(model="nano"))


def test_it_is_small_and_of_nobody_s_machine() -> None:
    files = [path for path in default_run().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for path in files:
        if path.suffix != ".safetensors":
            assert not re.search(r"/(home|tmp|root|work|Users)/", path.read_text("utf-8")), path
    run = load_run(default_run())
    assert (run.params.semantic.model, run.params.visual.model) == ("nano", "nano")
    assert run.provenance["targets"] == ["quality"]
    assert len(run.images) == 2972
    assert (default_run() / "README.md").is_file()  # its card


def test_other_versions_of_libraries_are_said_and_other_models_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained = json.loads((default_run() / "provenance.json").read_text())["stores"]
    described = copy.deepcopy(trained)
    for store in described.values():
        for made in store["fingerprints"]:
            made["libraries"]["torch"] = "3.0"
    require_same_stores(_with_own_libraries(trained, described, NANO), described)
    assert "may differ in their last digits: torch 3.0 (2." in caplog.text
    for change in ({"model": "other"}, {"libraries": {"torch": "3.0"}}):
        changed = copy.deepcopy(described)
        changed["semantic"]["fingerprints"][0] |= change
        with pytest.raises(AgiqaError, match="the run was trained on other features"):
            require_same_stores(_with_own_libraries(trained, changed, NANO), changed)


def test_nano_may_be_assembled_by_another_transformers_and_no_other_model() -> None:
    """A stranger's pip brings the newest one, which writes its version into nano's config.json."""
    trained = json.loads((default_run() / "provenance.json").read_text())["stores"]
    described = copy.deepcopy(trained)
    for store in described.values():
        for made in store["fingerprints"]:
            made["libraries"]["transformers"] = "6.0"
            made["model"] = {"sha256": "0" * 64}
    require_same_stores(_with_own_libraries(trained, described, NANO), described)
    other_lmm = replace(NANO, semantic=Semantic(model="somebody/else"))
    for other in (other_lmm, replace(NANO, visual=Visual(model="somebody/else"))):
        with pytest.raises(AgiqaError, match="the run was trained on other features"):
            require_same_stores(_with_own_libraries(trained, described, other), described)


@pytest.mark.nano
@pytest.mark.agiqa3k
def test_a_score_on_the_first_line(agiqa3k_folder: Path, tmp_path: Path) -> None:
    """Without a run; an image of AGIQA-3K is marked as known."""
    try:
        ensure_nano()
    except AgiqaError as error:  # PyPI out of reach
        pytest.skip(str(error))
    image = min(agiqa3k_folder.rglob("*.jpg"))
    out = tmp_path / "scores.json"
    done = agiqa("score", image, "-o", out)
    (row,) = json.loads(out.read_text())["scores"]
    assert 0 < row["score"] < 5
    assert row["trained_on"] is True
    assert "their scores are optimistic" in done.stderr
