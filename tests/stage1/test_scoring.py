"""Stage 1 meets stage 2: files, images in memory and the run's own test side score alike."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import agiqa
from agiqa.cli import main
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.images import decode


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images, tiny_lmm: Path) -> Path:
    """A run made by the commands themselves with the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    names = [f"{row:02d}.png" for row in range(40)]
    write_images(*names)
    mos = np.random.default_rng(0).uniform(1, 5, len(names))
    lines = [f"{name},{score:.3f}" for name, score in zip(names, mos, strict=True)]
    (tmp_path / "images/labels.csv").write_text("\n".join(["path,quality", *lines]) + "\n")
    (tmp_path / "params.yaml").write_text(
        f"semantic: {{name: tiny, model: {tiny_lmm}, batch_size: 8}}\n"
        f"visual: {{name: tiny-vision, model: {tiny_lmm}, layers: [1, 3], image_size: 32}}\n"
        "fit: {components: 8, semantic_components: 4, hidden: 8, epochs: 4, batch_size: 16}\n"
    )
    for command in (
        ["prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality"],
        ["extract", "mine"],
        ["fit", "mine"],
        ["evaluate", "runs/mine/random"],
        ["report", "runs/mine/random"],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    return tmp_path / "runs/mine/random"


def test_scores_from_files_memory_and_the_command_line_agree(run: Path, tmp_path: Path) -> None:
    files = sorted((tmp_path / "images").glob("*.png"))[:5]
    scorer = agiqa.load_scorer(run)
    from_files = scorer(files)
    in_memory = scorer([decode(path) for path in files])
    for ours, theirs in zip(from_files, in_memory, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
        assert sum(ours.gate.values()) == pytest.approx(1, abs=1e-4)
        assert ours.spread > 0
    shown = CliRunner().invoke(
        main, ["score", *map(str, files), "--run", str(run), "--format", "json"]
    )
    printed = {row["image"]: row["score"] for row in json.loads(shown.stdout)["scores"]}
    assert printed == {score.image: pytest.approx(score.score) for score in from_files}
    assert list(printed.values()) == sorted(printed.values(), reverse=True)
    whole = CliRunner().invoke(main, ["score", "images", "--run", str(run), "--format", "csv"])
    assert (
        whole.stdout.splitlines()[0]
        == "image,score,spread,gate_visual,gate_semantic_content,gate_coherence"
    )
    assert len(whole.stdout.splitlines()) == 41
    page = tmp_path / "gallery.html"
    table = CliRunner().invoke(
        main, ["score", "images", "--run", str(run), "--top", "3", "--html", str(page)]
    )
    lines = [line.split("\t") for line in table.stdout.splitlines()]
    assert lines[0] == whole.stdout.splitlines()[0].split(",")
    assert len(lines) == 1 + 3
    assert [float(line[1]) for line in lines[1:]] == sorted(
        (float(line[1]) for line in lines[1:]), reverse=True
    )
    assert "quality on the scale of mine" in table.stderr
    # The page has all 40, whatever the table shows.
    assert page.read_text().count(".png") >= 40
    refused = CliRunner().invoke(
        main, ["score", "images", "--run", str(run), "--thumbnails", "always"]
    )
    assert (refused.exit_code, "expected a terminal" in refused.stderr) == (1, True)


def test_bad_files_and_changed_models(run: Path, tmp_path: Path, table: ImagesTable) -> None:
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    result = CliRunner().invoke(main, ["score", "images", "--run", str(run)])
    assert result.exit_code == 1
    assert "1 of" in result.stderr
    assert "broken.png" in result.stderr
    kept = CliRunner().invoke(main, ["score", "images", "--run", str(run), "--skip-bad"])
    assert kept.exit_code == 0, kept.output
    assert "Skipped images/broken.png" in kept.stderr
    scorer = agiqa.load_scorer(run)
    with pytest.raises(AgiqaError, match="No images"):
        scorer([])
    with pytest.raises(AgiqaError, match="not both in one call"):
        scorer([Image.new("RGB", (32, 32)), tmp_path / "images/00.png"])
    text = (run / "params.yaml").read_text()
    (run / "params.yaml").write_text(text.replace("image_size: 32", "image_size: 48"))
    with pytest.raises(AgiqaError, match=r"preprocessing\.size\.height = 32, found 48"):
        agiqa.load_scorer(run)


def test_a_store_made_with_other_settings_is_refused_by_fit(run: Path, tmp_path: Path) -> None:
    """A run on it could never score: its settings would make other vectors."""
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("violations of coherence", "broken coherence"))
    for extra, field in (
        (f"semantic.prompts={other}", "prompt.text"),
        ("semantic.attention=eager", "attention"),
        ("visual.layers=[1]", "layer"),
        ('visual.pool=["mean"]', "pool"),
    ):
        result = CliRunner().invoke(main, ["fit", "mine", "--set", extra, "-o", "elsewhere"])
        assert result.exit_code == 1, result.output
        assert field in result.stderr
        assert "run `agiqa extract` with these settings" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    store = tmp_path / "cache/mine/tiny.zarr"
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "cache/mine/tiny-vision.zarr", store)
    result = CliRunner().invoke(main, ["fit", "mine", "-o", "elsewhere"])
    assert (result.exit_code, "extractor" in result.stderr) == (1, True)


def test_a_run_keeps_its_prompts(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted from a path, it scores from any folder, and after the file has changed."""
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("violations of coherence", "odd coherence"))
    options = ["--set", "semantic.prompts=mine.yaml"]
    for command in (["extract", "mine"], ["fit", "mine", "-o", "runs/own"]):
        assert CliRunner().invoke(main, [*command, *options]).exit_code == 0
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    image = tmp_path / "images/00.png"
    result = CliRunner().invoke(main, ["score", str(image), "--run", str(tmp_path / "runs/own")])
    assert result.exit_code == 0, result.output


def test_a_full_disk_keeps_the_old_scores(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agiqa.feature_store.durable.os.fsync", full)
    command = ["score", str(tmp_path / "images/00.png"), "--run", str(run), "-o", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert str(out) in result.stderr
    assert out.read_text() == "old"
