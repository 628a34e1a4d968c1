"""Maps of the preset light: exact, and they find what was planted."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.explain import Explainer
from agiqa.runs.explain.maps import changes, effects, on_grid, score_gradient
from agiqa.runs.files import load_run
from agiqa.runs.score import Scorer
from kit.spoilt_images import World, spoilt


@pytest.fixture(scope="module")
def explainer(world: World) -> Explainer:
    return Explainer(create_scorer(world.run, world.folder / "ledger"), world.cache)


def _score(explainer: Explainer, visual: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    found = explainer.run.ensemble.predict(visual, semantic).score[..., 0]  # (S, N)
    return np.asarray(found.double().mean(dim=0).numpy())


def test_gradient_is_that_of_the_score(explainer: Explainer, world: World) -> None:
    visual, semantic = explainer.visual_and_semantic(sorted(world.images.glob("*.png"))[:6])
    gradient = score_gradient(explainer.run.ensemble, visual, semantic)
    step = np.random.default_rng(0).normal(size=visual.shape).astype(np.float32) * 0.02
    step *= visual.std(axis=0)
    rise = _score(explainer, visual + step, semantic) - _score(explainer, visual - step, semantic)
    np.testing.assert_allclose((gradient * step).sum(axis=1), rise / 2, rtol=0.02, atol=2e-5)


def test_a_patch_is_worth_what_the_score_loses_without_it(
    explainer: Explainer, world: World
) -> None:
    """Against scoring again with the pooled features of all the other patches."""
    path = sorted(world.images.glob("*.png"))[3]
    visual, semantic = explainer.visual_and_semantic([path])
    vision = explainer.vision
    states = [[layer[0] for layer in view] for view in vision.patches(
        [vision.preprocess(decode(path))]
    )]  # fmt: skip
    gradient = score_gradient(explainer.run.ensemble, visual, semantic)[0]
    ours = effects(vision, [states[0], [np.zeros_like(s) for s in states[1]]], gradient)
    first = changes(states[0][0], vision.settings.pool), changes(states[0][1], vision.settings.pool)
    without = np.repeat(visual, 64, axis=0)
    width = vision.width
    without[:, :width] += first[0]
    without[:, width : 2 * width] += first[1]
    lost = _score(explainer, visual, semantic) - _score(
        explainer, without, np.repeat(semantic, 64, axis=0)
    )
    assert np.abs(lost).max() > 1e-3
    assert pearsonr(ours.ravel(), lost)[0] > 0.98
    np.testing.assert_allclose(ours.ravel(), lost, atol=0.2 * np.abs(lost).max())


def test_maps_find_a_planted_defect(explainer: Explainer, tmp_path: Path) -> None:
    """In new images: the noise that the MOS of training fell with pulls the score down."""
    made = [spoilt(1000 + seed) for seed in range(24)]
    files = [tmp_path / f"{number}.png" for number in range(len(made))]
    for file, (image, _) in zip(files, made, strict=True):
        image.save(file)
    maps = explainer.maps(files)
    assert all(each.values.shape == (8, 8) for each in maps)
    found = [
        each.values[cells].mean() < each.values[~cells].mean()
        for each, (_, cells) in zip(maps, made, strict=True)
    ]
    assert sum(found) >= 20
    assert all(abs(float(each.values.sum())) < 0.5 for each in maps)


def test_neighbours_are_rated_images_and_never_the_image(
    explainer: Explainer, world: World
) -> None:
    files = sorted(world.images.glob("*.png"))[:4]
    assert explainer.rated is not None
    mos = dict(zip(explainer.rated.table.frame["path"], explainer.rated.mos, strict=True))
    for file, alike in zip(files, explainer.neighbours(files, 6), strict=True):
        assert len(alike) == 6
        assert file.name not in [each.path for each in alike]
        assert [each.similarity for each in alike] == sorted(
            (each.similarity for each in alike), reverse=True
        )
        assert all(each.mos == mos[each.path] for each in alike)
        twin = f"{int(file.stem) ^ 1:02d}.png"  # two images a prompt
        assert {each.path for each in alike if each.same_prompt} <= {twin}
    everyone = explainer.neighbours(files[:1], 80)[0]
    assert len(everyone) == 79
    assert [each.path for each in everyone if each.same_prompt] == ["01.png"]


def test_what_is_missing_is_said_in_one_sentence(world: World, tmp_path: Path) -> None:
    scorer = Scorer(load_run(world.run), world.folder / "ledger")
    alone = Explainer(scorer)
    assert alone.available["maps"] == ""
    assert "No cache folder" in alone.available["reasons"]
    with pytest.raises(AgiqaError, match="No cache folder is given"):
        alone.neighbours([world.images / "00.png"])
    empty = Explainer(scorer, tmp_path)
    assert f"{tmp_path / 'mine'}: expected the rated images" in empty.available["neighbours"]
    assert alone.validity == []
    with pytest.raises(AgiqaError, match="No images"):
        alone.maps([])


@pytest.mark.parametrize("pools", [("cls", "mean", "std"), ("std", "mean"), ("mean",)])
def test_equals_pooling_the_other_patches(pools: tuple[str, ...]) -> None:
    patches = np.random.default_rng(0).normal(3, 2, (9, 5)).astype(np.float32)
    whole = {"cls": np.zeros(5), "mean": patches.mean(axis=0), "std": patches.std(axis=0, ddof=1)}
    for gone, found in enumerate(changes(patches, pools)):
        rest = np.delete(patches, gone, axis=0)
        ours = {"cls": np.zeros(5), "mean": rest.mean(axis=0), "std": rest.std(axis=0, ddof=1)}
        expected = np.concatenate([ours[pool] - whole[pool] for pool in pools])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_patches_change_nothing() -> None:
    found = changes(np.full((4, 3), 2.5, dtype=np.float32), ("mean", "std"))
    np.testing.assert_array_equal(found, np.zeros((4, 6)))


def test_the_same_grid_is_itself() -> None:
    values = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(on_grid(values, (0, 0, 1, 1), 4), values, atol=1e-12)


def test_a_close_up_fills_its_box_and_keeps_its_sum() -> None:
    values = np.random.default_rng(0).normal(size=(5, 5))
    found = on_grid(values, (0.25, 0.25, 0.75, 0.75), 8)
    np.testing.assert_allclose(found.sum(), values.sum())
    outside = np.ones((8, 8), dtype=bool)
    outside[2:6, 2:6] = False
    np.testing.assert_array_equal(found[outside], 0)
    one = np.zeros((5, 5))
    one[0, 4] = 1  # upper right
    assert np.unravel_index(on_grid(one, (0.25, 0.25, 0.75, 0.75), 8).argmax(), (8, 8)) == (2, 5)
