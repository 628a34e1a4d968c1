"""The light preset learns what is there to learn, from the training side alone."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Fit, Params, of_a_run
from agiqa.runs.files import load_run, save_run
from agiqa.stage2.features import Features
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.light.training import fit_light
from agiqa.stage2.predictors import make_predictor
from agiqa.stage2.targets import Sides
from kit.rated import one_target
from kit.run_files import provenance_of

SETTINGS = Fit(
    components=20,
    semantic_components=8,
    hidden=16,
    members=2,
    epochs=30,
    batch_size=32,
    lr=0.01,
    feature_noise=0.05,
    dropout=0.1,
)
QUICK = dataclasses.replace(SETTINGS, epochs=3)
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
    found = {}
    for variant in ensemble.regressors:
        score = (
            ensemble.predict(features.visual, features.semantic, variant)
            .score[..., 0]
            .mean(1)
            .numpy()
        )
        found[variant] = min(
            spearmanr(score[place][side["test"]], mos[side["test"]]).statistic
            for place, side in enumerate(sides.values())
        )
    return found


def test_both_sources_beat_either(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    found = _test_srcc(fitted, features, mos, sides)
    assert found["moe"] > 0.9
    assert found["moe"] > found["visual"] + 0.1
    assert found["moe"] > found["semantic"] + 0.1


def test_the_test_side_is_not_touched(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    """Without the test rows' scores and vectors, to the bit the same regressors."""
    for seed, side in sides.items():
        hidden = mos.copy()
        hidden[side["test"]] = np.nan
        visual, semantic = features.visual.copy(), features.semantic.copy()
        visual[side["test"]] = 0
        semantic[side["test"]] = 0
        blind = dataclasses.replace(features, visual=visual, semantic=semantic)
        alone, _ = fit_light(blind, one_target(hidden), {seed: side}, QUICK)
        again, _ = fit_light(features, one_target(mos), {seed: side}, QUICK)
        for variant, regressor in again.regressors.items():
            for name, weight in regressor.state_dict().items():
                assert torch.equal(weight, alone.regressors[variant].state_dict()[name]), name


def test_few_anchors_do_nearly_as_well_and_all_of_them_change_nothing(
    fitted: Ensemble, features: Features, mos: np.ndarray, sides: Sides
) -> None:
    some, few, *all_of_them = (
        fit_light(
            features,
            one_target(mos),
            sides,
            dataclasses.replace(SETTINGS, anchors=anchors, epochs=30 if anchors == 120 else 1),
        )[0]
        for anchors in (120, 15, 0, 420)  # the features are wider than 15: another ridge
    )
    for ensemble, anchors in ((some, 120), (few, 15)):
        drawn = [[expert.kernel.anchors for expert in split.experts] for split in ensemble.splits]
        assert {len(each) for split in drawn for each in split} == {anchors}
        assert not np.array_equal(drawn[0][0], drawn[1][0])
        for name, ridge in ensemble.splits[0].ridges.items():
            np.testing.assert_allclose(
                ridge.weights, fitted.splits[0].ridges[name].weights, atol=1e-4, err_msg=name
            )
    whole = _test_srcc(fitted, features, mos, sides)["moe"]
    assert _test_srcc(some, features, mos, sides)["moe"] == pytest.approx(whole, abs=0.03)
    for same in all_of_them:
        kernels = zip(same.splits[0].experts, fitted.splits[0].experts, strict=True)
        assert all(np.array_equal(one.kernel.dual, other.kernel.dual) for one, other in kernels)


def test_same_seed_same_weights(features: Features, mos: np.ndarray, sides: Sides) -> None:
    one, again, other = (
        fit_light(features, one_target(mos), sides, dataclasses.replace(QUICK, seed=seed))[0]
        for seed in (0, 0, 1)
    )
    head = one.regressors["moe"].corrections[0].head.weight
    assert head.abs().max() > 0
    assert torch.equal(head, again.regressors["moe"].corrections[0].head.weight)
    assert not torch.equal(head, other.regressors["moe"].corrections[0].head.weight)


def test_the_kept_epoch_is_the_best_on_validation(
    features: Features, mos: np.ndarray, sides: Sides
) -> None:
    ensemble, curves = fit_light(features, one_target(mos), sides, SETTINGS)
    for variant in ("moe", "visual", "semantic"):
        score = (
            ensemble.predict(features.visual, features.semantic, variant)
            .score[..., 0]
            .mean(1)
            .numpy()
        )
        for place, (seed, side) in enumerate(sides.items()):
            val = side["val"]
            srcc = spearmanr(score[place][val], mos[val]).statistic
            plcc = np.corrcoef(score[place][val], mos[val])[0, 1]
            rows = [row for row in curves if row["model"] == variant and row["seed"] == seed]
            best = max(row["val_srcc"] + row["val_plcc"] for row in rows)
            assert srcc + plcc == pytest.approx(best, abs=1e-4)


def test_an_image_scores_the_same_alone(fitted: Ensemble, features: Features) -> None:
    together = fitted.predict(features.visual, features.semantic)
    for row in (0, 100, IMAGES - 1):
        one = slice(row, row + 1)
        alone = fitted.predict(features.visual[one], features.semantic[one])
        torch.testing.assert_close(alone.score, together.score[:, :, one], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.gate, together.gate[:, :, one], atol=1e-5, rtol=1e-5)


def test_a_softmax_gate_sums_to_one(fitted: Ensemble, features: Features) -> None:
    gate = fitted.predict(features.visual, features.semantic).gate
    torch.testing.assert_close(gate.sum(-2), torch.ones(gate[..., 0, :].shape))
    assert gate.std() > 0.01  # and it does look at the image


def test_a_linear_gate_trains_too(features: Features, mos: np.ndarray, sides: Sides) -> None:
    linear, _ = fit_light(
        features, one_target(mos), sides, dataclasses.replace(SETTINGS, gate="linear", lr=0.003)
    )
    assert _test_srcc(linear, features, mos, sides)["moe"] > 0.75


def test_a_run_comes_back_from_disk_to_the_bit(
    fitted: Ensemble, features: Features, tmp_path
) -> None:
    params = Params(fit=SETTINGS)
    provenance = provenance_of(experts=features.experts)
    save_run(tmp_path / "run", fitted, params, provenance, [{"epoch": 1}], "")
    run = load_run(tmp_path / "run")
    assert run.params == of_a_run(params)
    for variant in fitted.regressors:
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
    save_run(tmp_path / "run", fitted, params, good, [], "")
    with pytest.raises(TypeError):
        save_run(tmp_path / "run", fitted, params, {"unserialisable": object()}, [], "")
    assert load_run(tmp_path / "run").provenance["seeds"] == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_damaged_and_foreign_runs_are_refused(
    fitted: Ensemble, features: Features, tmp_path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(AgiqaError, match=r"not a run; expected model\.safetensors"):
        load_run(run)
    save_run(run, fitted, Params(fit=SETTINGS), provenance_of(experts=features.experts), [], "")
    text = (run / "provenance.json").read_text()
    (run / "provenance.json").write_text(text.replace('"layout": 2', '"layout": 99'))
    with pytest.raises(AgiqaError, match="run layout 99, this agiqa reads 1 and 2"):
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


def test_a_run_of_the_first_layout_scores_as_it_did(
    fitted: Ensemble, features: Features, tmp_path
) -> None:
    """Layout 1: one target without a dimension of its own, and ridges in units of the MOS."""
    run, provenance = tmp_path / "run", provenance_of(experts=features.experts)
    save_run(run, fitted, Params(fit=SETTINGS), provenance, [], "")
    tensors = load_file(run / "model.safetensors")
    for place, split in enumerate(fitted.splits):
        mean, sd = float(split.scales.mean[0, 0]), float(split.scales.sd[0, 0])
        tensors[f"split.{place}.mos"] = torch.tensor([mean, sd], dtype=torch.float64)
        for expert in range(3):
            name = f"split.{place}.kernel.{expert}.dual"
            tensors[name] = tensors[name][:, 0].contiguous()
        for name, ridge in split.ridges.items():
            weights = torch.from_numpy(ridge.weights[:, 0] * sd).contiguous()
            tensors[f"split.{place}.{name}.weights"] = weights
            old = [float(ridge.bias[0]) * sd + mean, float(ridge.alpha[0])]
            tensors[f"split.{place}.{name}.bias_alpha"] = torch.tensor(old, dtype=torch.float64)
    save_file(tensors, run / "model.safetensors")
    text = (run / "provenance.json").read_text()
    (run / "provenance.json").write_text(text.replace('"layout": 2', '"layout": 1'))
    back = load_run(run).ensemble
    for model in ("ridge", "ridge_semantic", "moe"):
        ours, theirs = (
            make_predictor(each, features, Params(), "").predict(model, 1, np.arange(20)).score
            for each in (fitted, back)
        )
        np.testing.assert_allclose(theirs, ours, rtol=1e-5)
