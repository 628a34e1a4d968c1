"""Reasons: only aspects that relate to something speak; the words and numbers are right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.explain import Explainer
from agiqa.runs.explain.reasons import find_answers, levels
from agiqa.store import read_pack
from kit.command import agiqa
from kit.spoilt_images import World, spoilt


@pytest.fixture(scope="module")
def files(world: World) -> list[Path]:
    return sorted(world.images.glob("*.png"))


def _explainer(world: World, aspects: str = "tiny-aspects") -> Explainer:
    return Explainer(create_scorer(world.run, world.folder / "ledger"), world.cache, aspects)


def test_a_planted_aspect_speaks_and_noise_never_does(
    world: World, files: list[Path], write_aspects: Callable[..., Path]
) -> None:
    path = write_aspects({"planted": 0.8, "noise": 0.0, "against": -0.8})
    explainer = _explainer(world)
    assert explainer.available["reasons"] == ""
    assert {each.aspect: each.shown for each in explainer.validity} == {
        "planted": True, "noise": False, "against": False,
    }  # fmt: skip
    found = explainer.reasons(files)
    assert {reason.aspect for image in found for reason in image} == {"planted"}
    store = read_pack(path)
    level = dict(zip(store.image_ids, levels(store.vectors)[:, 0], strict=True))
    assert explainer.rated is not None
    worst = min(range(len(files)), key=lambda row: level[explainer.rated.ids[row]])
    (reason,) = found[worst]
    assert reason.percentile < 10
    assert reason.answer == "bad"
    assert reason.text.startswith(
        f"Planted: the model answers {level[explainer.rated.ids[worst]]:.2f} on the scale from bad "
        "(1) to excellent (5), lower than for 100 % of the well-rated images"
    )
    assert "go with a lower MOS" in reason.text
    planted = explainer.validity[0]
    assert f"rho {planted.rho_mos:.2f}, {planted.low:.2f} to {planted.high:.2f}" in reason.text
    assert reason.strength == pytest.approx(
        (50 - reason.percentile) / 50 * planted.rho_mos, abs=1e-3
    )
    high = [r for image in found for r in image if r.percentile > 50]
    assert all("higher than for" in r.text and "a higher MOS" in r.text for r in high)


def test_an_image_is_not_compared_with_itself(
    world: World, files: list[Path], write_aspects: Callable[..., Path]
) -> None:
    write_aspects({"planted": 0.8, "other": 0.7})
    explainer = _explainer(world)
    percentiles = [r.percentile for image in explainer.reasons(files) for r in image]
    # Among R - 1 others, the best image is above them all; with itself it would be at less.
    assert max(percentiles) == 100.0


def test_new_images_are_refused_where_the_model_would_answer_otherwise(
    world: World, files: list[Path], write_aspects: Callable[..., Path], tmp_path: Path
) -> None:
    write_aspects({"planted": 0.8})
    explainer = _explainer(world)
    spoilt(999)[0].save(tmp_path / "new.png")
    with pytest.raises(AgiqaError, match="no reasons for new images: the answers 'planted' of"):
        explainer.reasons([tmp_path / "new.png"])
    assert len(explainer.reasons(files[:2])) == 2  # those of the data set still have theirs


def test_new_images_are_asked_as_the_store_was(
    world: World, files: list[Path], tmp_path: Path,
    write_aspects: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The tiny model's real answers: a file of the same pixels gets those of the store."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("AGIQA_STORE", str(world.folder / "ledger"))
    asked = tmp_path / "asked.yaml"
    asked.write_text(
        "name: tiny\ncitation: none\norder: image_first\npooling: last\n"
        'template: "USER: {image}\\n{prompt} ASSISTANT: "\nanswers: [bad, fine, good]\n'
        "prompts:\n  sharp: Is it sharp?\n  noisy: Is it noisy?\n"  # in no order
    )
    settings = [f"--set=semantic.prompts={asked}", "--set=semantic.name=real-aspects"]
    agiqa("extract", "mine", "--only", "semantic", *settings)
    own = world.folder / "runs/answers"
    agiqa("fit", "mine", *settings, "--set=fit.answers=true", "--set=fit.epochs=1", "-o", own)
    asked.unlink()
    _explains_a_run_with_answers(own, world, files)
    explainer = _explainer(world, "real-aspects")
    aspects = explainer._aspects
    assert aspects is not None
    store = read_pack(world.cache / "mine/real-aspects-answers.zarr")
    decode(files[0]).save(tmp_path / "same.png", compress_level=1)
    fresh = np.stack(aspects._asked.of_paths([tmp_path / "same.png"]), axis=1)
    assert explainer.rated is not None
    np.testing.assert_allclose(fresh, store.rows([explainer.rated.ids[0]]), atol=2e-3)


def _explains_a_run_with_answers(run: Path, world: World, files: list[Path]) -> None:
    """Its own store of answers is meant, though another is named after aspects."""
    explainer = Explainer(create_scorer(run, world.folder / "ledger"), world.cache)
    assert [each.aspect for each in explainer.validity] == ["sharp", "noisy"]
    assert all(np.isfinite(each.rho_residual) for each in explainer.validity)
    visual, semantic = explainer.visual_and_semantic(files[:2])
    assert semantic.shape[:2] == (2, 3)  # two questions and the answers
    found = explainer.run.ensemble.predict(visual, semantic).score[..., 0].mean(dim=0).numpy()
    expected = [score.score for score in explainer.scorer(files[:2])]
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert explainer.maps(files[:1])[0].peak > 0


def test_which_store_is_meant(
    world: World, write_aspects: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a-answers.zarr", "b-answers.zarr"):
        (tmp_path / name).mkdir()
    with pytest.raises(AgiqaError, match="several stores of answers, a, b"):
        find_answers(tmp_path, None, "tiny")
    assert find_answers(tmp_path, "b", "tiny").name == "b-answers.zarr"
    assert find_answers(tmp_path, None, "a").name == "a-answers.zarr"
    (tmp_path / "c-aspects-answers.h5").touch()
    assert find_answers(tmp_path, None, "tiny").name == "c-aspects-answers.h5"
    with pytest.raises(AgiqaError, match=r"expected the answers of 'd' \(d-answers.zarr\), found"):
        find_answers(tmp_path, "d", "tiny")
    with pytest.raises(AgiqaError, match="no store of answers"):
        find_answers(world.images, None, "tiny")
