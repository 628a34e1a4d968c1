"""The light preset learns what is there to learn, from the training side alone."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Fit, Params, of_a_run
from agiqa.runs.files import Run, load_run, save_run
from agiqa.stage2.features import Features, Sides
from agiqa.stage2.light.ensemble import VARIANTS, Ensemble
from agiqa.stage2.light.training import fit_light
from kit.rated import one_target
from kit.run_files import provenance_of

SETTINGS = Fit(components=20, semantic_components=8)
QUICK = dataclasses.replace(SETTINGS, epochs=20)  # of the gate
IMAGES = 600


@pytest.fixture(scope="module")
def features() -> Features:
    rng = np.random.default_rng(0)
    return Features(
        visual=rng.normal(size=(IMAGES, 20)).astype(np.float32),
        semantic=rng.normal(size=(IMAGES, 2, 8)).astype(np.float32),
        prompts=("semantic_content", "coherence"),
        stores={},
    )


@pytest.fixture(scope="module")
def mos(features: Features) -> np.ndarray:
    """Some of it is visible, some was said, and some of that no line can follow."""
    said = features.semantic[:, 1, 0] - features.semantic[:, 0, 1]
    seen = features.visual[:, 0] + features.visual[:, 1] + 2 * np.abs(features.visual[:, 2])
    return np.asarray(3 + seen + said, dtype=np.float64)


@pytest.fixture(scope="module")
def sides() -> Sides:
    found = {}
    for seed in (0, 1):
        order = np.random.default_rng(seed).permutation(IMAGES)
        found[seed] = {"train": order[:420], "val": order[420:480], "test": order[480:]}
    return found


@pytest.fixture(scope="module")
def fitted(features: Features, mos: np.ndarray, sides: Sides) -> Ensemble:
    return fit_light(features, one_target(mos), sides, SETTINGS)[0]


def _test_srcc(ensemble: Ensemble, features: Features, mos: np.ndarray, sides: Sides) -> dict:
    lowest = {}
    for variant in VARIANTS:
        score = ensemble.predict(features.visual, features.semantic, variant).score[..., 0].numpy()
        lowest[variant] = min(
            spearmanr(score[place][side["test"]], mos[side["test"]]).statistic
            for place, side in enumerate(sides.values())
        )
    return lowest


def test_both_sources_beat_either(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    found = _test_srcc(fitted, features, mos, sides)
    assert found["moe"] > 0.8
    assert found["moe"] > found["visual"] + 0.1
    assert found["moe"] > found["semantic"] + 0.1


def test_the_test_side_is_not_touched(features: Features, mos: np.ndarray, sides: Sides) -> None:
    """Without the test rows' scores and vectors, to the bit the same models."""
    for seed, side in sides.items():
        hidden = mos.copy()
        hidden[side["test"]] = np.nan
        visual, semantic = features.visual.copy(), features.semantic.copy()
        visual[side["test"]] = 0
        semantic[side["test"]] = 0
        blind = dataclasses.replace(features, visual=visual, semantic=semantic)
        alone, _ = fit_light(blind, one_target(hidden), {seed: side}, QUICK)
        again = fit_light(features, one_target(mos), {seed: side}, QUICK)[0].tensors()
        assert {name: torch.equal(t, again[name]) for name, t in alone.tensors().items()} == (
            dict.fromkeys(again, True)
        )


def test_few_anchors_do_nearly_as_well_and_all_of_them_change_nothing(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    some, few, *all_of_them = (
        fit_light(features, one_target(mos), sides, dataclasses.replace(QUICK, anchors=anchors))[0]
        for anchors in (120, 15, 0, IMAGES)  # the features are wider than 15: another ridge
    )
    for ensemble, anchors in ((some, 120), (few, 15)):
        drawn = [split.kernels[0].rows for split in ensemble.splits]
        assert [len(rows) for rows in drawn] == [anchors, anchors]
        assert not np.array_equal(*drawn)
        for expert in ensemble.experts:  # what they have in common is kept once
            assert len(expert.anchors) == len(np.union1d(*drawn))
    whole = _test_srcc(fitted, features, mos, sides)["moe"]
    assert _test_srcc(some, features, mos, sides)["moe"] == pytest.approx(whole, abs=0.07)
    for same in all_of_them:
        for one, other in zip(same.splits, fitted.splits, strict=True):
            pairs = zip(one.kernels, other.kernels, strict=True)
            assert all(np.array_equal(a.dual, b.dual) for a, b in pairs)


def test_a_score_has_an_interval_that_covers(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    """Nine of ten, on images that no split has trained on."""
    new = np.intersect1d(*(side["test"] for side in sides.values()))
    score = fitted.predict(features.visual[new], features.semantic[new]).score
    low, high = fitted.intervals(score)
    middle = score[..., 0].mean(dim=0).numpy()
    assert (low < middle).all()
    assert (middle < high).all()
    assert 0.75 < np.mean((low <= mos[new]) & (mos[new] <= high)) <= 1
    assert np.ptp(high - low) < 0.5 * np.mean(high - low)


def test_what_was_scored_may_be_explained_after(features: Features, fitted: Ensemble) -> None:
    """Nothing that scoring keeps stands in a gradient's way."""
    fitted.predict(features.visual[:2], features.semantic[:2])
    inputs = fitted.inputs(features.visual[:2], features.semantic[:2])
    components = inputs.components[0].clone().requires_grad_()
    fitted.experts[0].kernel(components).sum().backward()
    assert components.grad is not None
    assert components.grad.abs().max() > 0


def test_an_image_scores_the_same_alone(fitted: Ensemble, features: Features) -> None:
    together = fitted.predict(features.visual, features.semantic)
    for row in (0, 100, IMAGES - 1):
        one = slice(row, row + 1)
        alone = fitted.predict(features.visual[one], features.semantic[one])
        torch.testing.assert_close(alone.score, together.score[:, one], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.gate, together.gate[:, one], atol=1e-5, rtol=1e-5)


def test_a_run_comes_back_from_disk_to_the_bit(
    fitted: Ensemble, features: Features, tmp_path
) -> None:
    params = Params(fit=SETTINGS)
    provenance = provenance_of(experts=features.experts)
    save_run(Run(tmp_path / "run", fitted, params, provenance), [{"epoch": 1}], "")
    run = load_run(tmp_path / "run")
    assert run.params == of_a_run(params)
    for variant in VARIANTS:
        ours = fitted.predict(features.visual, features.semantic, variant)
        theirs = run.ensemble.predict(features.visual, features.semantic, variant)
        assert torch.equal(ours.score, theirs.score)
        assert torch.equal(ours.gate, theirs.gate)
    for mine, back in zip(fitted.splits, run.ensemble.splits, strict=True):
        for name, ridge in mine.ridges.items():
            assert np.array_equal(ridge.weights, back.ridges[name].weights)
            assert np.array_equal(ridge.bias, back.ridges[name].bias)
            assert np.array_equal(ridge.alpha, back.ridges[name].alpha)


def test_a_failed_save_leaves_the_old_run(fitted: Ensemble, features: Features, tmp_path) -> None:
    good = provenance_of(experts=features.experts)
    params = Params(fit=SETTINGS)
    save_run(Run(tmp_path / "run", fitted, params, good), [], "")
    with pytest.raises(TypeError):
        save_run(Run(tmp_path / "run", fitted, params, {"unserialisable": object()}), [], "")
    assert load_run(tmp_path / "run").provenance["seeds"] == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_damaged_and_foreign_runs_are_refused(
    fitted: Ensemble, features: Features, tmp_path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(AgiqaError, match=r"not a run; expected model\.safetensors"):
        load_run(run)
    provenance = provenance_of(experts=features.experts)
    save_run(Run(run, fitted, Params(fit=SETTINGS), provenance), [], "")
    text = (run / "provenance.json").read_text()
    for layout in (2, 99):
        (run / "provenance.json").write_text(text.replace('"layout": 3', f'"layout": {layout}'))
        with pytest.raises(AgiqaError, match=f"run layout {layout}, this agiqa reads 3"):
            load_run(run)
    (run / "provenance.json").write_text(text)
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(AgiqaError, match="damaged weights"):
        load_run(run)


def test_too_few_images_and_flat_scores_are_explained(
    features: Features, mos: np.ndarray, sides: Sides
) -> None:
    few = {7: {"train": np.arange(5), "val": np.arange(5, 9)}}
    with pytest.raises(AgiqaError, match="Split 7 has 5 train images; fit needs at least 8"):
        fit_light(features, one_target(mos), few, SETTINGS)
    with pytest.raises(AgiqaError, match="training images of split 0 have the same score"):
        fit_light(features, one_target(np.ones(IMAGES)), sides, SETTINGS)
