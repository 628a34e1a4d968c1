"""Maps of the preset light: exact, and they find what was planted."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.explain import Explainer
from agiqa.runs.explain.gradient import score_gradient
from agiqa.runs.explain.leave_one_out import changes
from agiqa.runs.explain.light_maps import effects
from agiqa.runs.files import load_run
from agiqa.runs.score import Scorer, load_scorer
from kit.spoilt_images import World, spoilt


@pytest.fixture(scope="module")
def explainer(world: World) -> Explainer:
    return Explainer(load_scorer(world.run, world.folder / "ledger"), world.cache)


def _score(explainer: Explainer, visual: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    found = explainer.run.ensemble.predict(visual, semantic).score[..., 0]  # (S, K, N)
    return np.asarray(found.double().mean(dim=(0, 1)).numpy())


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


def test_maps_find_a_planted_defect(explainer: Explainer) -> None:
    """In new images: the noise that the MOS of training fell with pulls the score down."""
    made = [spoilt(1000 + seed) for seed in range(24)]
    maps = explainer.maps([image for image, _ in made])
    found = [
        each.values[cells].mean() < each.values[~cells].mean()
        for each, (_, cells) in zip(maps, made, strict=True)
    ]
    assert sum(found) >= 20
    assert all(abs(float(each.values.sum())) < 0.5 for each in maps)


def test_files_and_memory_have_the_same_maps(explainer: Explainer, world: World) -> None:
    files = sorted(world.images.glob("*.png"))[:3]
    ours, theirs = explainer.maps(files), explainer.maps([decode(file) for file in files])
    for one, other in zip(ours, theirs, strict=True):
        assert one.values.shape == (8, 8)
        np.testing.assert_allclose(one.values, other.values, atol=0.02 * one.peak)


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
    loaded = explainer.neighbours([decode(files[0])], 2, image_prompts=["a 0"])[0]
    assert files[0].name not in [each.path for each in loaded]


def test_what_is_missing_is_said_in_one_sentence(world: World, tmp_path: Path) -> None:
    scorer = Scorer(load_run(world.run), world.folder / "ledger")
    alone = Explainer(scorer)
    assert alone.available["maps"] == ""
    assert "No cache folder" in alone.available["reasons"]
    with pytest.raises(AgiqaError, match="No cache folder is given"):
        alone.neighbours([world.images / "00.png"])
    empty = Explainer(scorer, tmp_path)
    assert f"{tmp_path / 'mine'}: expected images.csv" in empty.available["neighbours"]
    for call in (alone.maps, empty.maps):
        with pytest.raises(AgiqaError, match="No images"):
            call([])
        with pytest.raises(AgiqaError, match="not both in one call"):
            call([world.images / "00.png", decode(world.images / "00.png")])
    assert alone.validity == []
