"""The commands on runs of the paper presets: fit, evaluate, report, score; stops, and several
processes."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file

from agiqa.runs.files import load_run
from kit.command import one_line
from kit.processes import AGIQA, process_id

Run = Callable[..., Result]
QUICK = ["--set", "paper.epochs=1"]
FILES = {"model.safetensors", "params.yaml", "prompts.yaml", "provenance.json", "curves.csv",
         "dvclive", "predictions.csv", "metrics.json", "summary.json", "scatter.csv",
         "targets"}  # fmt: skip


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_fit_evaluate_report(evaluated: tuple[Path, list[str]], run_folder: Path, run: Run) -> None:
    fitted, shown = evaluated[1]
    assert json.loads(fitted)["run"] == "runs/mine/paper"
    assert json.loads(fitted)["splits"] == 1
    folder = run_folder
    assert "mixture of experts, visual and semantic" in shown
    assert "preset paper" in shown
    assert "the same, as the authors count: the last batch dropped" in shown
    assert "ridge" not in shown
    assert {path.name for path in folder.iterdir()} == FILES
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["models"].keys() == {"moe", "moe_drop_last"}
    assert metrics["models"]["moe"]["srcc"]["median"] > 0.6
    counted = {model: rows[0]["images"] for model, rows in metrics["per_split"].items()}
    assert counted == {"moe": 9, "moe_drop_last": 8}  # 9 test images in batches of 4
    predictions = pd.read_csv(folder / "predictions.csv")
    splits = pd.read_csv("cache/mine/splits/paper.csv")
    tested = predictions[predictions["model"] == "moe"]
    assert sorted(tested["path"]) == sorted(splits[splits["side"] == "test"]["name"])
    gates = [f"gate_{name}" for name in ("semantic_content", "coherence", "visual")]
    assert tested[gates].notna().all().all()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["preset"] == "paper"
    assert provenance["network"]["semantic_width"] == 12
    _done(run("report", folder))
    page = (folder / "report.html").read_text()
    assert "Mixture of experts" in page
    assert "the last batch dropped" in page
    assert "Ridge" not in page


def test_paper_fixed_scores_every_image_and_needs_no_second_figure(
    workspace: Path, run: Run
) -> None:
    _done(run("fit", "mine", "--preset", "paper-fixed", "--protocol", "random",
              *QUICK, "-o", "runs/fixed"))  # fmt: skip
    assert "last batch" not in _done(run("evaluate", "runs/fixed")).stdout
    metrics = json.loads(Path("runs/fixed/metrics.json").read_text())
    assert metrics["models"].keys() == {"moe"}
    assert metrics["splits"] == 2
    weights = load_run(Path("runs/fixed")).ensemble.weights
    kept = load_file("runs/fixed/model.safetensors").keys() - {"images"}
    assert len(kept) == 2 * len(weights[0])


def test_the_light_preset_is_still_the_default(workspace: Path, run: Run) -> None:
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("preset: paper,", ""))
    one_line(run("fit", "mine"), "No feature store cache/mine/nano-vision.zarr")


def test_a_run_comes_back_to_the_bit(run_folder: Path, run: Run) -> None:
    first = (run_folder / "predictions.csv").read_bytes()
    one, other = (load_run(run_folder) for _ in range(2))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    semantic = np.random.default_rng(0).normal(size=(5, 2, 12)).astype(np.float32)
    before, after = (each.ensemble.predict(pixels, semantic) for each in (one, other))
    assert torch.equal(before.score, after.score)
    assert torch.equal(before.quality_map, after.quality_map)
    _done(run("evaluate", run_folder))
    assert (run_folder / "predictions.csv").read_bytes() == first


def test_a_foreign_run_is_one_line(run_folder: Path, run: Run) -> None:
    about = run_folder / "provenance.json"
    about.write_text(about.read_text().replace('"semantic_width": 12', '"semantic_width": 13'))
    one_line(run("evaluate", run_folder), "does not fit its settings", "split.0.")


def test_a_store_that_does_not_fit_is_one_line(
    run_folder: Path, run: Run, write_store: Callable[..., None]
) -> None:
    write_store(width=10)
    one_line(run("evaluate", run_folder), "semantic vectors 12 wide", "found 10")
    write_store(prompts=("one", "two", "three"))
    one_line(run("fit", "mine", "--replace"), "expected two vectors an image", "one, two, three")
    write_store(prompts=("coherence", "semantic_content"))
    one_line(run("evaluate", run_folder), "trained on the semantic vectors")


def test_two_of_many_vectors(workspace: Path, run: Run, write_store: Callable[..., None]) -> None:
    """Fit, evaluate and provenance take those that fit.vectors names."""
    write_store(prompts=("a.mean", "a.last", "b.mean", "b.last"))
    one_line(run("fit", "mine"), "expected two vectors an image", "fit.vectors")
    one_line(run("fit", "mine", "--set", "fit.vectors=[c]"), "'c', which matches none", "b.last")
    one_line(run("fit", "mine", "--set", "fit.answers=true"), "fit.answers is for the preset light")
    _done(run("fit", "mine", *QUICK, "--set", "fit.vectors=['*.last']"))
    _done(run("evaluate", "runs/mine/paper"))
    provenance = load_run(Path("runs/mine/paper")).provenance
    assert provenance["experts"] == ["a.last", "b.last", "visual"]
    assert provenance["stores"]["semantic"]["names"] == ["a.last", "b.last"]
    write_store(prompts=("a.last", "b.last"))
    _done(run("fit", "mine", *QUICK, "-o", "runs/two"))


def test_prompts_are_known_by_name(
    workspace: Path, run: Run, write_store: Callable[..., None]
) -> None:
    write_store(prompts=("coherence", "semantic_content"))
    _done(run("fit", "mine", *QUICK))
    provenance = json.loads(Path("runs/mine/paper/provenance.json").read_text())
    assert provenance["experts"] == ["semantic_content", "coherence", "visual"]


def test_images_that_are_gone_are_one_line(workspace: Path, run: Run) -> None:
    (workspace / "images/07.png").unlink()
    one_line(run("fit", "mine"), "1 images are not as they were", "07.png", "agiqa prepare")


def test_unknown_presets_and_backbones_are_one_line(workspace: Path, run: Run) -> None:
    heavy = run("fit", "mine", "--set", "fit.preset=heavy")
    one_line(heavy, "fit.preset", "paper-fixed", "'heavy'")
    one_line(run("fit", "mine", "--set", "paper.backbone=nowhere/at/all"), "nowhere/at/all")


def test_the_backbone_may_be_a_local_vit(workspace: Path, run: Run) -> None:
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3,
             "num_attention_heads": 2, "image_size": 32, "patch_size": 4}  # fmt: skip
    transformers.ViTModel(transformers.ViTConfig(**sizes)).save_pretrained("vit")
    fit = ["fit", "mine", *QUICK, "--set", "paper.backbone=vit"]
    one_line(run(*fit, "--set=paper.network.width=32"), "vit", "paper.network")
    _done(run(*fit, "--set=paper.lr=1e-9"))
    ours = load_file("runs/mine/paper/model.safetensors")
    theirs = load_file("vit/model.safetensors")
    (name,) = [name for name in theirs if "layer.1.intermediate.dense.weight" in name]
    start = ours["split.0.backbone.blocks.1.mlp.expand.weight"]
    torch.testing.assert_close(start, theirs[name], atol=1e-6, rtol=0.0)


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_bit(
    run_folder: Path, run: Run, python: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL, the real thing, after the second of three epochs; another fit gave the same."""
    fit = ["fit", "mine", "-o", "runs/resumed"]
    slow = "import time, agiqa.stage2.training.epochs as t; step = t.Steps.step\n"
    slow += "t.Steps.step = lambda *a: (time.sleep(0.02), step(*a))[1]\n"
    command = [*python, "-c", slow + AGIQA[1], *fit]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2 of 3" in line:
                os.kill(process_id(process), signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not Path("runs/resumed").exists()
    _done(run(*fit))
    assert re.search(r"Split 20 goes on after epoch [12]\.", caplog.text)
    assert not list(Path("ledger").glob("fit-*"))  # its work is done
    for name in ("model.safetensors", "curves.csv"):
        assert Path("runs/resumed", name).read_bytes() == (run_folder / name).read_bytes()


STILL = ["--set=paper.network.dropout=0", "--set=paper.network.drop_path=0"]


@pytest.mark.slow
def test_two_processes_train_one_network(workspace: Path, run: Run, python: list[str]) -> None:
    """The same images a step, so the same weights: dropout, drawn by each, is out."""
    fit = ["fit", "mine", "--json", "--set=paper.epochs=2", "--set=paper.drop_last_train=false"]
    fit += STILL
    _done(run(*fit, "-o", "runs/one"))
    launch = ["-c", "from torch.distributed.run import main; main()", "--standalone"]
    launch += ["--nproc-per-node=2", "--no-python", *python, *AGIQA]
    shared = subprocess.run(
        [*python, *launch, *fit, "-o", "runs/two"],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shared.stdout.count('"run": "runs/two"') == 1  # one of them writes and says so
    assert shared.stderr.count("epoch 2 of 2") == 1
    curves = [pd.read_csv(f"runs/{name}/curves.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(curves[0], curves[1], rtol=1e-3)
    one, two = (load_file(f"runs/{name}/model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=2e-3, rtol=1e-2)


@pytest.mark.gpu
def test_score_new_images(workspace: Path, run: Run, tiny_lmm: Path) -> None:
    """With a real (tiny) image-text model, whose vectors the run was trained on."""
    text = (workspace / "params.yaml").read_text()
    lmm = f"semantic: {{name: lmm, model: {tiny_lmm}, batch_size: 8}}"
    (workspace / "params.yaml").write_text(text.replace("semantic: {name: lmm}", lmm))
    _done(run("extract", "mine", "--only", "semantic"))
    _done(run("fit", "mine", *QUICK))
    _done(run("evaluate", "runs/mine/paper"))
    shown = json.loads(
        _done(run("score", "images", "--run", "runs/mine/paper", "--format", "json")).stdout
    )
    assert len(shown["scores"]) == 44
    figures = {
        "image",
        "score",
        "low",
        "high",
        "disagreement",
        "gate",
        "targets",
        "trained_on",
        "held_out",
    }
    assert shown["scores"][0].keys() == figures
    assert list(shown["scores"][0]["gate"]) == ["semantic_content", "coherence", "visual"]
    scored = {Path(row["image"]).name: row["score"] for row in shown["scores"]}
    predictions = pd.read_csv("runs/mine/paper/predictions.csv")
    for path, score in predictions[["path", "score"]].itertuples(index=False):
        assert scored[path] == pytest.approx(score, abs=1e-4)
    _scorer_agrees(scored)


def _scorer_agrees(scored: dict[str, float]) -> None:
    import agiqa
    from agiqa.core.errors import AgiqaError
    from agiqa.data.images import decode
    from agiqa.runs.explain import Explainer

    scorer = agiqa.create_scorer("runs/mine/paper")
    files = [Path(f"images/{row:02d}.png") for row in (0, 1, 0)]
    for score, path in zip(scorer(files), files, strict=True):
        assert score.score == pytest.approx(scored[path.name], abs=1e-5)
        assert score.quality_map is not None
        assert score.quality_map.shape == (8, 8)
    explainer = Explainer(scorer, Path("cache"))
    for score, found in zip(scorer(files), explainer.maps(files), strict=True):
        assert score.quality_map is not None
        expected = score.quality_map - score.quality_map.mean()
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
        assert found.unit == "patch score × weight"
    assert "nano-vision.zarr" in explainer.available["neighbours"]
    in_memory = scorer([decode(path) for path in files])
    assert [s.score for s in in_memory] == pytest.approx([scored[p.name] for p in files], abs=1e-3)
    text = Path("runs/mine/paper/params.yaml").read_text()
    Path("runs/mine/paper/params.yaml").write_text(
        text.replace("dtype: float32", "dtype: bfloat16")
    )
    with pytest.raises(AgiqaError, match="dtype = 'float32', found 'bfloat16'"):
        agiqa.create_scorer("runs/mine/paper")
