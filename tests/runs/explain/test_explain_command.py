"""`agiqa explain`: what it writes and says, and one line for what a user gets wrong."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from agiqa import create_scorer
from agiqa.data.images import decode
from kit.command import agiqa, one_line
from kit.spoilt_images import World, spoilt


@pytest.fixture
def explain(
    world: World, write_aspects: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    """The command, where the run is; whatever it wrote there is removed."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("AGIQA_STORE", str(world.folder / "ledger"))
    write_aspects({"planted": 0.8, "noise": 0.0})
    yield partial(agiqa, "explain")
    shutil.rmtree(world.run / "explanations", ignore_errors=True)


def _refused(words: Sequence[object], *parts: str) -> str:
    return one_line(agiqa("explain", *words, status=1), *parts)


def test_a_runs_worst_best_and_lowest(world: World, explain: Callable[..., Result]) -> None:
    few = ("--worst", 4, "--best", 3, "--lowest", 2, "--neighbours", 2, "--aspects", "tiny-aspects")
    done = explain("runs/mine/grouped", *few)
    written = json.loads((world.run / "explanations/explanations.json").read_text())
    assert written["available"] == {"maps": "", "reasons": "", "neighbours": ""}
    assert 7 <= len(written["images"]) <= 9
    assert written["deletion"] is None
    for name, about in written["images"].items():
        assert decode(world.run / "explanations" / about["overlay"]).width == 64
        assert len(about["neighbours"]) == 2
        assert {"path", "mos", "score", "similarity", "generator", "same_prompt"} == set(
            about["neighbours"][0]
        )
        assert {r["aspect"] for r in about["reasons"]} <= {"planted"}
        assert f"{name}  score " in done.stdout
        assert f"rated {about['neighbours'][0]['mos']:.2f}: " in done.stdout
    assert any(about["reasons"] for about in written["images"].values())
    by_name = {each["aspect"]: each for each in written["reasons_validity"]}
    assert by_name["planted"]["shown"]
    assert not by_name["noise"]["shown"]
    assert by_name["planted"]["low"] == by_name["planted"]["mos_low"] > 0
    assert "Reasons come from 1 of 2 aspects" in done.stdout
    assert "planted (rho " in done.stdout
    assert len(list((world.run / "explanations/maps").iterdir())) == len(written["images"])
    left = [path.name for path in world.run.iterdir() if path.name.startswith(".")]
    assert left == []


def test_images_of_ones_own(world: World, explain: Callable[..., Result], tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    spoilt(500)[0].resize((200, 120)).save(own)
    (world.run / "deletion_test.json").write_text('{"images": 40}')
    (world.cache / "mine/tiny-aspects-answers.zarr").rename(tmp_path / "aside")
    for pack in (world.cache / "mine").glob("*-answers.zarr"):  # of other tests
        shutil.rmtree(pack)
    done = explain("runs/mine/grouped", "images/03.png", own, "-o", tmp_path / "why", "--json")
    (world.run / "deletion_test.json").unlink()
    said = json.loads(done.stdout)
    assert said["folder"] == str(tmp_path / "why")
    assert list(said["images"]) == ["03.png", str(own)]
    assert decode(tmp_path / "why" / said["images"][str(own)]["overlay"]).width == 200
    assert "no store of answers" in said["available"]["reasons"]
    assert said["reasons_validity"] == []
    assert said["deletion"] == {"images": 40}
    assert not (world.run / "explanations").exists()
    again = explain("runs/mine/grouped", own, "-o", tmp_path / "why")  # replaces its own
    assert "No reasons: " in again.stdout
    assert len(list((tmp_path / "why/maps").iterdir())) == 1
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    _refused(["runs/mine/grouped", own, bad, "-o", tmp_path / "why"], "with --skip-bad")
    went_on = explain("runs/mine/grouped", own, bad, "--skip-bad", "-o", tmp_path / "why")
    assert f"Skipped {bad}: " in went_on.stderr


def test_an_image_that_the_model_does_not_take_keeps_the_others_explanations(
    world: World, explain: Callable[..., Result], tmp_path: Path, refuse_size: Callable
) -> None:
    refuse_size((61, 7))
    for pack in (world.cache / "mine").glob("*-answers.zarr"):  # made by hand, of no model
        shutil.rmtree(pack)
    odd, fine = tmp_path / "odd.png", tmp_path / "fine.png"
    spoilt(501)[0].resize((61, 7)).save(odd)
    spoilt(502)[0].save(fine)
    done = explain(
        "runs/mine/grouped", odd, fine, "images/03.png", "-o", tmp_path / "why", "--json"
    )
    said = json.loads(done.stdout)["images"]
    assert "refuses an image of 61 x 7 pixels" in said[str(odd)]["problem"]
    assert said[str(odd)]["overlay"] is None
    assert len(said[str(odd)]["neighbours"]) == 5  # they need no such model
    for name in (str(fine), "03.png"):
        assert said[name]["problem"] == ""
        assert decode(tmp_path / "why" / said[name]["overlay"]).width > 7
        assert len(said[name]["neighbours"]) == 5


def test_images_that_went_keep_what_the_cache_knows(
    world: World, explain: Callable[..., Result]
) -> None:
    table = world.images.rename(world.folder / "elsewhere")
    try:
        done = explain("runs/mine/grouped", "--worst", 3, "--best", 0, "--lowest", 0)
    finally:
        table.rename(world.images)
    written = json.loads((world.run / "explanations/explanations.json").read_text())
    for about in written["images"].values():
        assert about["overlay"] is None
        assert about["problem"] == "does not exist"
        assert len(about["neighbours"]) == 5
    assert done.stdout.count("no map   does not exist") == 3


def test_images_alone_are_explained_by_the_scorer_that_comes_with_agiqa(
    world: World, explain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agiqa.runs.score.default_run", lambda: world.run)
    shutil.copy(world.images / "03.png", tmp_path / "new.png")
    Image.open(tmp_path / "new.png").resize((80, 60)).save(tmp_path / "new.png")
    for given in (tmp_path, tmp_path / "new.png"):
        done = explain(given, "-o", tmp_path / "why", "--cache", "empty")
        assert f"{create_scorer(world.run)(tmp_path / 'new.png').score:.2f}" in done.stdout
        assert "pulled down most" in done.stdout
        assert "expected the rated images of 'mine', found no folder" in done.stdout
    assert len(list((tmp_path / "why/maps").iterdir())) == 1


def test_noise_alone_is_said_plainly(
    world: World, explain: Callable[..., Result], write_aspects: Callable[..., Path]
) -> None:
    write_aspects({"one": 0.0, "two": 0.0})
    done = explain("runs/mine/grouped", "images/03.png", "--aspects", "tiny-aspects")
    assert "None of the 2 aspects' answers relates to MOS or error" in done.stdout
    assert "reason   " not in done.stdout


def test_one_line_for_what_a_user_gets_wrong(
    world: World, explain: Callable[..., Result], tmp_path: Path
) -> None:
    run = "runs/mine/grouped"
    _refused(["nowhere"], "nowhere: no such run, image or folder")
    _refused(["nowhere.png"], "nowhere.png: no such run, image or folder")
    _refused(["cache"], "cache: expected images")
    _refused([run, "nothing.png"], "nothing.png: no such file")
    _refused([run, "--aspects", "other"], "expected the answers of 'other'")
    _refused([run, "--cache", "empty"], "empty/mine: expected the rated images of 'mine'")
    _refused([run, "-o", "images"], "images: expected a folder that `agiqa explain` wrote")
    _refused([run, "--worst", 0, "--best", 0, "--lowest", 0], "No images to explain")
    (tmp_path / "text.png").write_text("no image")
    _refused([run, tmp_path / "text.png", "--neighbours", 0], "text.png", "--skip-bad")
    bad = _refused([run, tmp_path / "text.png", "--neighbours", 0, "--skip-bad"], "not an image")
    assert bad.endswith("; repair them")
    shutil.copytree(world.run, tmp_path / "fresh")
    (tmp_path / "fresh/predictions.csv").unlink()
    _refused([tmp_path / "fresh"], "not evaluated yet", "agiqa evaluate")
    (tmp_path / "fresh/predictions.csv").write_text("model,path\nmoe,1.png\n")
    _refused(
        [tmp_path / "fresh", "images/03.png"],
        "predictions.csv: expected the columns seed, image_id, generator",
    )
    header = "seed,model,path,image_id,mos,score,generator,group\n"
    for row, said in (
        ("0,moe,../../out.png,{0},1,1,,", "is not inside the data folder"),
        ("0,moe,1.png,../../out,1,1,,", "no sha256 in image_id"),
        ("0,moe,1.png,{0},one,1,,", "damaged"),
    ):
        (tmp_path / "fresh/predictions.csv").write_text(header + row.format("0" * 64) + "\n")
        _refused([tmp_path / "fresh"], "predictions.csv", said)
    about = json.loads((tmp_path / "fresh/provenance.json").read_text())
    about["stores"]["semantic"]["fingerprints"][0]["extractor"] = "reference-pt"
    (tmp_path / "fresh/provenance.json").write_text(json.dumps(about))
    _refused([tmp_path / "fresh", "images/03.png"], "fitted on vectors that were imported")
    explain(run, "--worst", -1, status=2)
