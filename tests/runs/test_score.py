"""Stage 1 meets stage 2: files, images in memory and the run's own test side score alike."""

import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

import agiqa
from agiqa.cli import main
from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImagesError, decode
from agiqa.runs.files import load_run
from agiqa.store import Shelf
from agiqa.store.ledger.segment_rows import SegmentRows
from kit.command import agiqa as call
from kit.command import refusal
from kit.tiny_workspace import RUN


@pytest.fixture
def run(tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in a copy of the folder, which is `tmp_path`."""
    shutil.copytree(tiny_workspace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    return tmp_path / RUN


@pytest.mark.gpu
def test_scores_from_files_and_the_command_line_agree(run: Path, tmp_path: Path) -> None:
    files = sorted((tmp_path / "images").glob("*.png"))[:5]
    scorer = agiqa.create_scorer(run)
    from_files = scorer(files)
    for score in from_files:
        assert sum(score.gate.values()) == pytest.approx(1, abs=1e-4)
        assert score.disagreement > 0
    shown = call("score", *files, "--run", run, "--format", "json")
    printed = {row["image"]: row["score"] for row in json.loads(shown.stdout)["scores"]}
    assert printed == {score.image: pytest.approx(score.score) for score in from_files}
    assert list(printed.values()) == sorted(printed.values(), reverse=True)
    whole = call("score", "images", "--run", run, "--format", "csv")
    assert whole.stdout.splitlines()[0] == (
        "image,score,low,high,disagreement,gate_visual,gate_semantic_content,gate_coherence,"
        "trained_on,held_out,target"
    )
    assert len(whole.stdout.splitlines()) == 41
    page = tmp_path / "gallery.html"
    table = call("score", "images", "--run", run, "--top", "3", "--html", page)
    lines = [line.split("\t") for line in table.stdout.splitlines()]
    assert lines[0] == whole.stdout.splitlines()[0].split(",")
    assert len(lines) == 1 + 3
    assert [float(line[1]) for line in lines[1:]] == sorted(
        (float(line[1]) for line in lines[1:]), reverse=True
    )
    assert "quality on the scale of mine" in table.stderr
    # The page has all 40, whatever the table shows.
    assert page.read_text().count(".png") >= 40
    refused = call("score", "images", "--run", run, "--thumbnails", "always", status=1)
    assert "expected a terminal" in refused.stderr


def test_what_cannot_be_written_is_refused_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("agiqa.runs.create_scorer.create_scorer", lambda *_: pytest.fail("work"))
    for options, message in (
        (["-o", "pipe.csv"], "found a pipe or device, which stays as it is"),
        (["-o", "-"], "leave the option out to print"),
        (["-o", "none/x.csv"], "expected the folder none, found none"),
        (["--html", "none/x.html"], "expected the folder none, found none"),
        (["--html", "x.csv"], "--html x.csv: expected a name that ends in .html"),
        (["-o", "x.parquet"], "Parquet needs pyarrow: pip install 'agiqa[parquet]'"),
    ):
        refused = call("score", "images", "--run", run, *options, status=None)
        assert refused.exit_code
        assert message in refused.stderr
    assert (tmp_path / "pipe.csv").is_fifo()
    assert not list(tmp_path.glob("x.*"))
    assert not (tmp_path / "none").exists()


def test_what_is_sent_to_others_names_no_folder_of_this_machine(run: Path, tmp_path: Path) -> None:
    Path("link.json").symlink_to("far.json")
    call("score", "images", "--run", tmp_path / RUN, "-o", "link.json", "--html", "page.html")
    assert json.loads(Path("far.json").read_text())["run"] == "mine/random"
    assert str(tmp_path) not in Path("page.html").read_text()
    assert "by mine/random." in Path("page.html").read_text()


def test_skip_bad_is_not_advised_where_it_was_given(run: Path) -> None:
    Path("cut.png").write_bytes(b"no image")
    assert "leave them out with --skip-bad" in refusal("score", "cut.png", "--run", run)
    line = refusal("score", "cut.png", "--run", run, "--skip-bad", "-o", "cut.csv")
    assert line.endswith("; repair them")
    assert not Path("cut.csv.unfinished").exists()


def test_a_scorer_opens_each_shelf_once_and_reads_no_segment_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, read = Counter[Path](), Counter[tuple[Path, str]]()
    before, sizes_of = Shelf.open, SegmentRows._read_ids

    def counted(root: Path, *made_by: Any) -> Shelf:
        shelf = before(root, *made_by)
        opened[shelf.folder] += 1
        return shelf

    def counted_segments(rows: SegmentRows, sizes: dict[str, int]) -> Any:
        read.update((rows.folder.folder, name) for name in sizes)
        return sizes_of(rows, sizes)

    monkeypatch.setattr(Shelf, "open", counted)
    monkeypatch.setattr(SegmentRows, "_read_ids", counted_segments)
    files = sorted((tmp_path / "images").glob("*.png"))
    scorer = agiqa.create_scorer(run)
    for number in range(4):
        new = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 32), (number, 0, 90)).save(new)
        scorer([new, *files[number : number + 5]])
    assert set(opened.values()) == set(read.values()) == {1}
    shutil.rmtree(tmp_path / "ledger")  # by somebody, while a server runs
    assert scorer(files[:1]) == agiqa.create_scorer(run)(files[:1])


def test_an_image_that_the_run_was_trained_on_comes_with_its_held_out_prediction(
    run: Path, tmp_path: Path
) -> None:
    seen, new = tmp_path / "images/00.png", tmp_path / "new.png"
    Image.new("RGB", (32, 32), "orange").save(new)
    scores = agiqa.create_scorer(run)([seen, new])
    assert [score.trained_on for score in scores] == [True, False]
    predictions = pd.read_csv(run / "predictions.csv")
    tested = predictions[(predictions["model"] == "moe") & (predictions["path"] == "00.png")]
    assert scores[0].held_out == pytest.approx(tested["score"].mean())
    assert scores[1].held_out is None
    words = ["score", str(seen), str(new), "--run", str(run)]
    result = call(*words, "--format", "json")
    printed = json.loads(result.stdout)
    rows = {Path(row["image"]).name: row for row in printed["scores"]}
    assert rows["00.png"]["trained_on"] is True
    assert "1 of 2 images were in the run's training" in printed["notes"][-1]
    assert "1 of 2 images were in the run's training" in result.stderr
    (run / "predictions.csv").unlink()  # fitted, not evaluated
    (score,) = agiqa.create_scorer(run)([seen])
    assert (score.trained_on, score.held_out) == (True, None)
    result = call(*words)
    assert "agiqa evaluate gives what the splits say" in result.stderr
    (run / "predictions.csv").write_text("model,path\nmoe,00.png\n")
    with pytest.raises(AgiqaError, match=r"predictions\.csv"):
        agiqa.create_scorer(run)


def test_files_folders_images_and_bad_files(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = agiqa.create_scorer(str(run))
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("01.png", "00.png"):
        shutil.copy(tmp_path / "images" / name, folder / name)
    expected = scorer([folder / "00.png", folder / "01.png"])
    assert scorer(folder) == scorer(str(folder)) == scorer([folder]) == expected
    first = folder / "00.png"  # one image alone gives its score alone
    assert [scorer(str(first))] == [scorer(first)] == scorer([first])
    assert scorer([decode(first)] * 2)[1].image == "1"
    (folder / "02.png").write_bytes(b"no image")
    with pytest.raises(AgiqaError, match=r"02\.png"):
        scorer(folder)
    assert scorer(folder, skip_bad=True) == expected
    assert "02.png is left out: it" in caplog.text
    assert scorer([folder / "02.png"], skip_bad=True) == []
    with pytest.raises(AgiqaError, match=r"02\.png"):
        scorer(folder / "02.png", skip_bad=True)  # one image: there is no score to give


def test_a_run_prints_five_lines(run: Path) -> None:
    lines = repr(load_run(str(run))).splitlines()
    assert len(lines) == 5
    assert lines[0] == f"Run {run}"
    assert "light, 10 splits" in lines[1]
    assert "visual, semantic_content, coherence" in lines[4]


def test_an_image_that_the_model_does_not_take_ends_no_others_score(
    run: Path, tmp_path: Path, refuse_size: Callable
) -> None:
    refuse_size((61, 7))
    (tmp_path / "new").mkdir()
    for name, size in {"a": (32, 24), "odd": (61, 7), "b": (24, 32)}.items():
        Image.new("RGB", size, "orange").save(tmp_path / f"new/{name}.png")
    words = ["score", "new", "--run", str(run), "--format", "json"]
    stopped = call(*words, status=1)
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("Error: ")]
    assert "1 of 3 images cannot be scored: new/odd.png" in line
    assert "refuses an image of 61 x 7 pixels" in line
    assert "vectors of all others are kept" in line
    done = call(*words, "--skip-bad")
    told = json.loads(done.stdout)
    assert {row["image"] for row in told["scores"]} == {"new/a.png", "new/b.png"}
    assert [bad["path"] for bad in told["skipped"]] == ["new/odd.png"]
    scorer = agiqa.create_scorer(run)
    with pytest.raises(BadImagesError, match=r"odd\.png: \w+ refuses an image") as caught:
        scorer(sorted((tmp_path / "new").glob("*.png")))
    assert [Path(bad.path).name for bad in caught.value.bad] == ["odd.png"]
    names = ["new/a.png", "new/b.png"]
    assert [score.image for score in scorer(names)] == names
    alone = call("score", "new/odd.png", "--run", run, "--skip-bad", status=1)
    assert "1 of 1 images cannot be scored" in alone.stderr


def test_names_that_no_encoding_has_are_scored_and_written(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    image = (tmp_path / "images/00.png").read_bytes()
    names = [b"caf\xe9.png", "snow\u2603.png".encode()]
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(image + name)
    Path(os.fsdecode(bytes(folder) + b"/bad\xff.png")).write_bytes(b"no image")
    words = ["score", str(folder), "--run", str(run), "--skip-bad"]
    for suffix in (".csv", ".tsv", ".json", ".txt"):
        out = tmp_path / f"scores{suffix}"
        result = call(*words, "-o", out)
        text = out.read_text("utf-8")
        assert r"caf\udce9.png" in text
        assert "snow\u2603.png" in text or r"snow\u2603.png" in text
        assert r"Skipped" in result.stderr
        assert r"bad\udcff.png" in result.stderr
    for style in ("table", "csv", "json"):
        done = CliRunner(charset="ascii").invoke(main, [*words, "--format", style])
        assert done.exit_code == 0, done.stderr
        assert rb"snow\u2603.png" in done.stdout_bytes


def test_an_address_keeps_its_slashes(run: Path) -> None:
    result = call("score", "http://127.0.0.1:9/a.png", "--run", run, status=1)
    assert "images cannot be scored: http://127.0.0.1:9/a.png" in result.stderr


def test_bad_files_and_changed_models(run: Path, tmp_path: Path, table: ImagesTable) -> None:
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    result = call("score", "images", "--run", run, status=1)
    assert "1 of" in result.stderr
    assert "broken.png" in result.stderr
    kept = call("score", "images", "--run", run, "--skip-bad")
    assert "Skipped images/broken.png" in kept.stderr
    scorer = agiqa.create_scorer(run)
    with pytest.raises(AgiqaError, match="No images"):
        scorer([])
    text = (run / "params.yaml").read_text()
    (run / "params.yaml").write_text(text.replace("image_size: 32", "image_size: 48"))
    with pytest.raises(AgiqaError, match=r"preprocessing\.size\.height = 32, found 48"):
        agiqa.create_scorer(run)


def test_a_store_made_with_other_settings_is_refused_by_fit(run: Path, tmp_path: Path) -> None:
    """A run on it could never score: its settings would make other vectors."""
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("violations of coherence", "broken coherence"))
    replied = tmp_path / "replied.yaml"
    replied.write_text(f"{text}\nreply: It is\n")
    for extra, field in (
        (f"semantic.prompts={replied}", "prompt.reply = 'It is', found nothing"),
        (f"semantic.prompts={other}", "prompt.text"),
        ("semantic.attention=eager", "attention"),
        ("visual.layers=[1]", "layer"),
        ('visual.pool=["mean"]', "pool"),
    ):
        result = call("fit", "mine", "--set", extra, "-o", "elsewhere", status=1)
        assert field in result.stderr
        assert "run `agiqa extract` with these settings" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    store = tmp_path / "cache/mine/tiny.zarr"
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "cache/mine/tiny-vision.zarr", store)
    result = call("fit", "mine", "-o", "elsewhere", status=1)
    assert "extractor" in result.stderr


def test_a_run_keeps_its_prompts(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted from a path, it scores from any folder, and after the file has changed."""
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("violations of coherence", "odd coherence"))
    options = ["--set", "semantic.prompts=mine.yaml"]
    for words in (["extract", "mine"], ["fit", "mine", "-o", "runs/own"]):
        call(*words, *options)
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    image = tmp_path / "images/00.png"
    call("score", image, "--run", tmp_path / "runs/own")


def test_a_full_disk_keeps_the_old_scores(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agiqa.store.files.os.fsync", full)
    words = ["score", str(tmp_path / "images/00.png"), "--run", str(run), "-o", str(out)]
    result = call(*words, status=1)
    assert str(out) in result.stderr
    assert out.read_text() == "old"
