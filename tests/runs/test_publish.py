"""`agiqa publish`: a folder that scores anywhere as the run does, and tells of nobody's machine."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agiqa import create_scorer
from agiqa.core.errors import AgiqaError
from agiqa.runs.files import load_run
from agiqa.runs.publish import published_settings
from agiqa.runs.score import default_run
from kit.command import agiqa, refusal
from kit.hub_server import COMMIT, serve
from kit.publishing import make_publishable, use_hub

FILES = {"README.md", "model.safetensors", "params.yaml", "prompts.yaml", "provenance.json"}


@pytest.fixture
def run(
    tiny_workspace: Path, tiny_lmm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An evaluated run whose model is on the hub; the process stands beside it."""
    made = make_publishable(tiny_workspace, tmp_path, tiny_lmm)
    use_hub(monkeypatch, tmp_path / "hub")
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    monkeypatch.chdir(tmp_path)
    return made


def publish(*words: str, status: int = 0) -> str:
    done = agiqa("publish", "run", "-o", "out", *words, status=status)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == (status > 0)
    return lines[0] if lines else done.stdout


def scored(*words: str) -> list[dict[str, Any]]:
    done = agiqa("score", "new.png", "--format", "json", *words)
    return json.loads(done.stdout)["scores"]


def test_a_published_folder_scores_as_the_run(run: Path, tiny_workspace: Path) -> None:
    shutil.copy(tiny_workspace / "images/03.png", "new.png")
    said = publish("--licence", "apache-2.0")
    assert re.search(r"next +agiqa score pictures/ --run out", said)
    shutil.rmtree("run/targets")
    expected, ours = scored("--run", "run"), scored("--run", "out")
    assert ours[0].pop("held_out") is None  # a rating would be needed to know it
    assert expected[0].pop("held_out") is not None
    assert ours == expected
    assert create_scorer("out")("new.png").score == ours[0]["score"]


def test_nothing_of_the_machine_or_its_images_is_in_it(run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "params.yaml").read_text())
    settings["sources"] = {"mine": {"kind": "csv", "path": "/home/someone/labels.csv"}}
    settings["semantic"]["prompts"] = "/home/someone/mine.yaml"
    settings["paper"]["backbone"] = "/home/someone/vit.safetensors"
    (run / "params.yaml").write_text(yaml.safe_dump(settings))
    about = json.loads((run / "provenance.json").read_text())
    about |= {"git_revision": "c0ffee", "imported": {"file": "someone.pt", "sha256": "ab"}}
    assert about["source"] == "labels.csv"
    (run / "provenance.json").write_text(json.dumps(about))
    publish()
    assert {path.name for path in Path("out").iterdir()} == FILES
    private = ("someone", "labels.csv", "c0ffee", str(tmp_path), "0.png", str(Path.home()))
    for path in Path("out").iterdir():
        content = path.read_bytes()
        assert [word for word in private if word.encode() in content] == [], path
    loaded = load_run("out")
    assert loaded.provenance["published"] == "out"
    assert loaded.provenance["imported"] == {"sha256": "ab"}
    assert loaded.images == load_run(run).images


def test_what_cannot_be_published_is_one_line(run: Path, tiny_lmm: Path, tmp_path: Path) -> None:
    (run / "metrics.json").rename(tmp_path / "metrics.json")
    assert "expected metrics.json, found none: run `agiqa evaluate` first" in publish(status=1)
    (tmp_path / "metrics.json").rename(run / "metrics.json")
    text = (run / "params.yaml").read_text()
    for local in (str(tiny_lmm), "./tiny", "~/tiny", "a/b/c", "hub"):  # hub: a folder here
        (run / "params.yaml").write_text(text.replace("tester/tiny", local))
        line = publish(status=1)
        assert f"semantic.model is '{local}', a folder of this machine" in line
        assert "fit with its id there" in line
    (run / "params.yaml").write_text(text)
    assert not Path("out").exists()
    publish()
    assert "a run stands there, which would be lost: give --replace" in publish(status=1)
    publish("--replace")
    again = refusal("publish", "out", "-o", "twice")
    assert "out: is published already: use the folder as it is" in again
    over = refusal("publish", "run", "-o", "run", "--replace")
    assert "run: a run that was fitted stands there" in over
    assert (run / "predictions.csv").is_file()
    Path("out/thesis.tex").write_text("mine")
    assert "found what is no run's (thesis.tex)" in publish("--replace", status=1)
    assert "expects the hub's word for it" in publish("--licence", "Apache 2.0", status=2)
    assert "such as cc-by-nc-4.0" in publish("--licence", "cc-by-nc-9", status=2)
    assert "cannot write there" in agiqa("publish", "run", "-o", "/proc/x", status=1).stderr
    assert "--private goes with --push" in publish("--private", status=2)
    assert "Expected user/name on the hub, found 'run'" in publish("--push", "run", status=2)
    assert "--notes none.md: not a readable text" in publish("--notes", "none.md", status=2)


def test_no_result_is_written_into_a_published_run(run: Path) -> None:
    publish("--results")
    before = sorted(path.name for path in Path("out").iterdir())
    for command in (["evaluate", "out"], ["cross", "out", "--on", "other"]):
        assert "found the published run 'out', which gets no results" in refusal(*command)
    assert "say where to write, -o FILE" in agiqa("report", "out", status=2).stderr
    assert sorted(path.name for path in Path("out").iterdir()) == before
    assert "the published run 'agiqa-3k'" in refusal("evaluate", default_run())


def test_a_damaged_copy_is_to_be_fetched_again(run: Path) -> None:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-20] ^= 1  # still a number
        path.write_bytes(content)

    publish("--results")
    flip(Path("out/predictions.csv"))
    line = refusal("compare", "out")
    assert "out/predictions.csv" in line
    assert line.endswith("remove out and fetch it again")
    for name, damage in (
        ("model.safetensors", flip),
        ("prompts.yaml", Path.unlink),
        ("model.safetensors", Path.unlink),
        ("provenance.json", lambda path: path.write_text("{")),
    ):
        publish("--replace")
        damage(Path("out", name))
        with pytest.raises(AgiqaError, match="fetch it again") as error:
            load_run("out")
        assert name in str(error.value)


def test_the_paper_s_network_needs_no_visual_model(run: Path) -> None:
    loaded = load_run(run)
    params = replace(
        loaded.params,
        fit=replace(loaded.params.fit, preset="paper"),
        visual=replace(loaded.params.visual, model="/home/someone/vit"),
    )
    told = published_settings(replace(loaded, params=params))
    assert told.visual.model == "nano"
    assert told.semantic.model == "tester/tiny"


def test_there_and_back_through_a_hub(
    run: Path, tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploaded, fetched by address, and there without a network from then on."""
    shutil.copy(tiny_workspace / "images/03.png", "new.png")
    Path("run/notes.txt").write_text("not for others")
    with serve({}) as hub:
        use_hub(monkeypatch, tmp_path / "hub", hub.address)
        said = publish("--push", "tester/run", "--private", "--results")
        assert f"hf://tester/run@{COMMIT}" in said
        assert hub.created[0] | {"name": "run", "organization": "tester"} == hub.created[0]
        assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
        assert hub.files.keys() == FILES | {"metrics.json", "predictions.csv"}
        card = hub.files["README.md"].decode()
        assert "--run hf://tester/run" in card
        assert "predictions.csv has the names, ratings and scores" in card
        hub.files["evil.py"] = b"raise SystemExit"
        hub.files["../up.json"] = b"{}"
        agiqa("compare", "hf://tester/run:moe", "run")
    use_hub(monkeypatch, tmp_path / "hub")
    (snapshot,) = (tmp_path / "hub/models--tester--run/snapshots").iterdir()
    assert {path.name for path in snapshot.iterdir()} == FILES - {"README.md"} | {
        "metrics.json", "predictions.csv",
    }  # fmt: skip
    expected = scored("--run", "run")
    for address in ("hf://tester/run", f"hf://tester/run@{COMMIT}", "hf://tester/run@main"):
        assert scored("--run", address) == expected
    explained = agiqa("explain", "hf://tester/run", "new.png", status=2)
    assert "say where to write, -o FOLDER" in explained.stderr
    Path("plain").mkdir()
    monkeypatch.chdir("plain")
    with pytest.raises(AgiqaError, match=r"hf://tester/none cannot be fetched \(Offline"):
        create_scorer("hf://tester/none")


def test_the_scorer_that_ships_is_a_published_run() -> None:
    names = {path.name for path in default_run().iterdir()}
    assert names == FILES
    assert load_run(default_run()).provenance["published"] == "agiqa-3k"
