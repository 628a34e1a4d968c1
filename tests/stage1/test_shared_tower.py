"""One pass of the tower gives the visual vectors that a pass of their own gives, to the bit."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import agiqa
from agiqa.core.params import Params, Semantic, Visual
from agiqa.stage1.data_sets import Kind, extract_data_set
from agiqa.stage1.extractors import VisionExtractor
from agiqa.stage1.extractors.image_text import ImageTextExtractor
from agiqa.stage1.extractors.shared_tower import shared_tower


@pytest.fixture
def visual(semantic: Semantic) -> Visual:
    return Visual(
        name="tiny-vision", model=semantic.model, layers=(1, 3), image_size=32, closeup=0,
        batch_size=4,
    )  # fmt: skip


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(count)
    ]


@pytest.mark.parametrize(("kind", "closeup"), [("AyaVision", 0), ("Llava", 0), ("Llava", 48)])
def test_the_vectors_are_those_of_two_passes(
    build_lmm: Callable[..., Path],
    tmp_path: Path,
    semantic: Semantic,
    visual: Visual,
    kind: str,
    closeup: int,
) -> None:
    folder = str(build_lmm(tmp_path / kind, kind))
    lmm = ImageTextExtractor(replace(semantic, model=folder))
    tower = VisionExtractor(replace(visual, model=folder, closeup=closeup))
    both = shared_tower(lmm, tower)
    assert both
    close = ["closeup1", "closeup3"] if closeup else []
    assert [vector.name for vector in both.vectors] == [
        *("semantic_content", "coherence"), *("layer1", "layer3"), *close,
    ]  # fmt: skip
    samples = [both.preprocess(image) for image in images(4)]
    asked = [lmm.preprocess(image) for image in images(4)]
    seen = [tower.preprocess(image) for image in images(4)]
    own = list(range(len(tower.vectors)))
    expected = [*lmm.extract(asked, [0, 1]), *tower.extract(seen, own)]
    runs = 0
    run = tower.states

    def count(*given: object) -> list[object]:
        nonlocal runs
        runs += 1
        return run(*given)  # type: ignore[arg-type]

    tower.states = count  # type: ignore[method-assign, assignment]
    for wanted in ([0, 1, *(2 + index for index in own)], [1, 3], [1, len(expected) - 1]):
        for index, rows in zip(wanted, both.extract(samples, wanted), strict=True):
            np.testing.assert_array_equal(rows, expected[index])
    assert runs == len(close)  # for the close-up alone, where one was wanted
    np.testing.assert_array_equal(both.extract(samples, [3])[0], expected[3])
    assert runs == len(close) + 1


@pytest.mark.parametrize("changed", [{"image_size": 64}, {"batch_size": 8}, {"dtype": "bfloat16"}])
def test_what_differs_is_not_shared(
    semantic: Semantic, visual: Visual, changed: dict[str, object]
) -> None:
    lmm = ImageTextExtractor(semantic)
    assert shared_tower(lmm, VisionExtractor(visual))
    other = VisionExtractor(replace(visual, **changed))  # type: ignore[arg-type]
    assert shared_tower(lmm, other) is None


def test_an_extraction_runs_the_tower_once(
    tiny_lmm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_images: Callable[..., Path],
) -> None:
    """And so do two, where the first keeps what its pass gives; the packs are the same."""
    monkeypatch.chdir(tmp_path)
    agiqa.prepare("mine", write_images(*(f"{number}.png" for number in range(10))))
    settings = {"model": str(tiny_lmm), "batch_size": 4, "format": "h5"}
    params = Params(
        semantic=Semantic(name="tiny", **settings),  # type: ignore[arg-type]
        visual=Visual(name="tower", layers=(1, 3), image_size=32, closeup=48, **settings),  # type: ignore[arg-type]
    )
    runs = 0
    states = VisionExtractor.states

    def count(*given: object) -> list[object]:
        nonlocal runs
        runs += 1
        return states(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(VisionExtractor, "states", count)
    packs = []
    orders: list[list[Kind | None]] = [[None], ["semantic", "visual"], ["visual", "semantic"]]
    for number, kinds in enumerate(orders):
        monkeypatch.setenv("AGIQA_STORE", str(tmp_path / f"ledger{number}"))
        runs = 0
        for kind in kinds:
            extract_data_set("mine", only=kind, params=params)
        packs.append([Path(f"cache/mine/{name}.h5").read_bytes() for name in ("tiny", "tower")])
        whole = kinds[0] == "visual"  # of 10 images, 4 at a time
        assert runs == 3 * (1 + whole)
        shutil.rmtree("cache/mine")
        agiqa.prepare("mine", tmp_path / "images")
    assert packs[0] == packs[1] == packs[2]
