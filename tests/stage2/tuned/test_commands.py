"""The commands with the preset tuned: fit, evaluate, score, explain, stops, and bad input."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file, save_file

from agiqa.core.errors import AgiqaError
from agiqa.runs.explain import Explainer
from agiqa.runs.explain.maps import tail_effects
from agiqa.runs.files import load_run
from agiqa.runs.publish import published_settings
from agiqa.runs.score import Scorer
from agiqa.stage2.training.epochs import Training
from agiqa.stage2.tuned.ensemble import TunedEnsemble, fit_blend
from agiqa.stage2.tuned.inputs import TunedVisual
from kit.command import one_line

Run = Callable[..., Result]


@pytest.mark.gpu
def test_each_part_is_measured_beside_the_whole(fitted: Path) -> None:
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert {"light", "tuned", "moe", "ridge", "constant"} <= metrics["models"].keys()
    assert metrics["models"]["tuned"]["srcc"]["median"] > 0.7
    assert "gating" not in metrics
    assert metrics["coverage"]["images"] > 0
    provenance = json.loads((fitted / "provenance.json").read_text())
    predictions = pd.read_csv(fitted / "predictions.csv")
    for place, share in enumerate(provenance["tail_shares"]):
        tested = predictions[predictions["seed"] == place]
        assert tested.loc[tested["model"] == "moe", "gate_tuned"].to_numpy() == pytest.approx(
            share, abs=1e-4
        )
    curves = pd.read_csv(fitted / "curves.csv")
    assert (curves["model"] == "tuned").sum() == 4  # two epochs of two splits


def test_a_run_keeps_its_tails_in_half_precision(fitted: Path) -> None:
    tensors = load_file(fitted / "model.safetensors")
    tails = [tensor for name, tensor in tensors.items() if name.startswith("tail.")]
    assert {tensor.dtype for tensor in tails} == {torch.float16}


@pytest.mark.gpu
def test_it_scores_as_it_was_evaluated(workspace: Path, fitted: Path) -> None:
    tested = pd.read_csv(fitted / "predictions.csv").query("model == 'moe' and seed == 0")
    scorer = Scorer(load_run(fitted))
    paths = [f"images/{name}" for name in tested["path"][:5]]
    _, semantic = Explainer(scorer).visual_and_semantic(paths)
    assert isinstance(scorer.run.ensemble, TunedEnsemble)
    one = scorer.run.ensemble.only(0)
    with ExitStack() as stack:
        opened = [stack.enter_context(Image.open(path)) for path in paths]
        seen = scorer.visual.images(opened)
    prediction = one.predict(seen, semantic)
    assert prediction.score[0, :, 0].numpy() == pytest.approx(tested["score"][:5], abs=2e-3)
    scores = scorer(paths)
    assert [score.held_out for score in scores] == pytest.approx(
        [pd.read_csv(fitted / "predictions.csv").query("model == 'moe' and path == @name")["score"]
         .mean() for name in tested["path"][:5]], abs=1e-4)  # fmt: skip
    assert all(score.low < score.score < score.high for score in scores)
    assert scores[0].gate.keys() == {"visual", "semantic_content", "coherence", "tuned"}
    with Image.open(paths[0]) as image:
        again = scorer(image)
    assert again.score == pytest.approx(scores[0].score, abs=2e-3)


def test_a_published_run_keeps_what_its_tokens_are(workspace: Path, fitted: Path) -> None:
    run = load_run(fitted)
    own = {name: replace(getattr(run.params, name), model="them/model")
           for name in ("semantic", "visual")}  # fmt: skip
    settings = published_settings(replace(run, params=replace(run.params, **own)))
    assert (settings.visual.tokens, settings.visual.token_size) == (2, 32)


def test_a_map_is_of_both_parts(workspace: Path, fitted: Path) -> None:
    paths = ["images/000.png"]
    explainer = Explainer(Scorer(load_run(fitted)))
    (whole,) = explainer.maps(paths)
    assert np.shape(whole.values) == (4, 4)
    assert "tuned blocks" in whole.method


def test_a_patch_does_to_the_tails_score_what_the_map_says(workspace: Path, fitted: Path) -> None:
    scorer = Scorer(load_run(fitted))
    ensemble = scorer.run.ensemble
    assert isinstance(ensemble, TunedEnsemble)
    _, semantic = Explainer(scorer).visual_and_semantic(["images/000.png"])
    with Image.open("images/000.png") as image:
        tokens = scorer.visual.images([image]).tokens.astype(np.float32)
    effects = tail_effects(ensemble, tokens, semantic, [1.0, 0.5])[0]
    weights = np.array([1.0, 0.5]) * [split.scales.sd[0, 0] for split in ensemble.light.splits] / 2
    for patch in (0, 6):
        moved, step = tokens.reshape(17, -1).copy(), 0.01
        moved[1 + patch] += step * (moved[1:].mean(axis=0) - moved[1 + patch])
        seen = (TunedVisual(np.zeros((1, 192), np.float32), t)
                for t in (tokens, moved.reshape(1, -1)))  # fmt: skip
        before, after = (ensemble.both(own, semantic)[1][:, 0].numpy() for own in seen)
        lost = float(weights @ (before - after)) / step
        assert effects.flat[patch] == pytest.approx(lost, rel=0.1, abs=1e-4)


@contextmanager
def _changed(path: Path) -> Iterator[None]:
    """Put a folder back as it was."""
    kept = path.with_name(f"{path.name}.kept")
    shutil.copytree(path, kept)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        kept.rename(path)


def test_a_stopped_fit_goes_on_to_the_bit(
    workspace: Path, fitted: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = Training._epoch

    def interrupted(self: Training, number: int) -> dict[str, Any]:
        if (self.task.split, number) == (1, 2):
            raise AgiqaError("stopped")
        return epoch(self, number)

    monkeypatch.setattr(Training, "_epoch", interrupted)
    one_line(run("fit", "mine", "-o", "runs/again"), "stopped")
    monkeypatch.setattr(Training, "_epoch", epoch)
    assert run("fit", "mine", "-o", "runs/again").exit_code == 0
    files = [Path(f"runs/{name}/model.safetensors") for name in ("again", "tuned")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((workspace / "ledger").glob("fit-*"))


def test_patience_ends_a_training(workspace: Path, run: Run) -> None:
    rates = ["--set", "tuned.block_lr=1e-12", "--set", "tuned.lr=1e-12"]
    options = ["--set", "tuned.epochs=9", *rates]
    assert run("fit", "mine", "-o", "runs/short", *options).exit_code == 0
    curves = pd.read_csv("runs/short/curves.csv").query("model == 'tuned'")
    assert curves.groupby("seed")["epoch"].max().max() < 9


def test_the_share_is_kept_only_where_it_helps() -> None:
    mos, noise = torch.randn(2, 200, generator=torch.manual_seed(0))
    assert fit_blend(mos + 0.1 * noise, noise, mos).share == 0
    good = fit_blend(mos + noise, mos - noise, mos)
    assert good.share == pytest.approx(0.5, abs=0.01)
    assert good.held_out.errors.max() < 0.1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["visual.tokens=1"], ["tokens.zarr", "tokens", "agiqa extract --only tokens"]),
        (["visual.token_pool=2"], ["token_pool"]),
        (["fit.target=quality,other"], ["target"]),
        (["fit.answers=true"], ["fit.answers is for the preset light"]),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    workspace: Path, run: Run, options: list[str], parts: list[str]
) -> None:
    given = [word for option in options for word in ("--set", option)]
    one_line(run("fit", "mine", "-o", "runs/none", *given), *parts)


def test_stores_that_do_not_fit_are_one_line(
    workspace: Path, run: Run, build_vision: Callable[..., Path]
) -> None:
    store = workspace / "cache/mine/tiny-vision-tokens.zarr"
    fit = ["fit", "mine", "-o", "runs/none"]
    with _changed(store.parent):
        shutil.rmtree(store)
        one_line(run(*fit), "No store of tokens", "visual.tokens=N")
        shutil.copytree(workspace / "cache/mine/tiny-vision.zarr", store)
        one_line(run(*fit), "expected tokens of one block, found other vectors")
        shutil.rmtree(store)
        model = build_vision(workspace / "another", "ViTConfig")
        settings = yaml.safe_load((workspace / "params.yaml").read_text())
        settings["visual"]["model"] = str(model)
        (workspace / "other.yaml").write_text(yaml.safe_dump(settings))
        done = run("extract", "mine", "--only", "tokens", "--params", "other.yaml")
        assert done.exit_code == 0, done.output
        one_line(run(*fit), "tokens of another backbone")


def test_a_tail_that_does_not_fit_is_one_line(workspace: Path, run: Run) -> None:
    path = workspace / "cache/mine/tiny-vision-tail.safetensors"
    fit = ["fit", "mine", "-o", "runs/none"]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-9])
        one_line(run(*fit), "damaged weights", "--only tokens")
        save_file({"norm.weight": torch.ones(3)}, path, metadata={"tail": "{}"})
        one_line(run(*fit), "damaged weights", "--only tokens")
        about = {"heads": 2, "activation": "gelu", "eps": 1e-5, "made_by": "another"}
        save_file({"norm.weight": torch.ones(3)}, path, metadata={"tail": json.dumps(about)})
        one_line(run(*fit), "blocks behind other tokens")
        path.unlink()
        one_line(run(*fit), "the blocks behind the tokens: run `agiqa extract --only tokens`")
        assert run("extract", "mine", "--only", "tokens").exit_code == 0
        assert path.read_bytes() == whole
    finally:
        path.write_bytes(whole)


def test_too_few_images_are_one_line(workspace: Path, run: Run) -> None:
    splits = workspace / "cache/mine/splits"
    with _changed(splits):
        path = splits / "random.csv"
        frame = pd.read_csv(path)
        train = frame.index[(frame["seed"] == 1) & (frame["side"] == "train")]
        frame.drop(train[59:]).to_csv(path, index=False)
        one_line(
            run("fit", "mine", "-o", "runs/none"),
            "Split 1 has 59 train images; fit needs at least 60 of the preset tuned",
            "--preset light",
        )


def test_a_strangers_run_is_held_against_its_header(workspace: Path, fitted: Path) -> None:
    folder = workspace / "runs/strange"
    shutil.copytree(fitted, folder)
    about = json.loads((folder / "provenance.json").read_text())
    about["tail"]["hidden"] = 1 << 19
    (folder / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(AgiqaError, match="does not fit its settings"):
        load_run(folder)
    shutil.copy(fitted / "provenance.json", folder / "provenance.json")
    tensors = load_file(fitted / "model.safetensors")
    name = next(name for name in tensors if name.startswith("tail.0.blocks"))
    tensors[name] = torch.full_like(tensors[name], np.nan)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(AgiqaError, match="does not fit its settings"):
        load_run(folder)
