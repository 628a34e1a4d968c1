"""One pass of the tower gives the visual vectors that a pass of their own gives, to the bit.

And tokens, the hidden states of one of its blocks.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import agiqa
from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, Semantic, Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.data_sets import Kind, extract_data_set
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor
from agiqa.stage1.extractors.image_text import ImageTextExtractor, shared_tower


@pytest.fixture
def whole(semantic: Semantic) -> Visual:
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
    whole: Visual,
    kind: str,
    closeup: int,
) -> None:
    folder = str(build_lmm(tmp_path / kind, kind))
    lmm = ImageTextExtractor(replace(semantic, model=folder))
    tower = VisionExtractor(replace(whole, model=folder, closeup=closeup))
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
    semantic: Semantic, whole: Visual, changed: dict[str, object]
) -> None:
    lmm = ImageTextExtractor(semantic)
    assert shared_tower(lmm, VisionExtractor(whole))
    other = VisionExtractor(replace(whole, **changed))  # type: ignore[arg-type]
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


@pytest.fixture
def tokens(visual: Visual) -> Visual:
    return replace(visual, tokens=2, token_size=32, closeup=0)


@pytest.mark.parametrize("size", [32, 48])
def test_tokens_are_hidden_states_of_the_block(
    tokens: Visual, table: ImagesTable, size: int
) -> None:
    extractor = TokenExtractor(replace(tokens, token_size=size))
    samples = [extractor.preprocess(decode(path)) for path in table.paths()[:3]]
    (ours,) = extractor.extract(samples, [0])
    tower = VisionExtractor(replace(tokens, layers=(2,), image_size=size))
    tower.load()
    pixels = np.concatenate([sample.arrays["layer"] for sample in samples])
    (states,) = tower.states(pixels, [2])
    assert ours.shape == (3, extractor.vectors[0].width)
    np.testing.assert_allclose(ours, states.numpy().reshape(3, -1), atol=1e-6)


def test_neighbouring_patches_become_their_mean(tokens: Visual, table: ImagesTable) -> None:
    whole, pooled = TokenExtractor(tokens), TokenExtractor(replace(tokens, token_pool=2))
    samples = [whole.preprocess(decode(table.paths()[0]))]
    states = whole.extract(samples, [0])[0].reshape(1, 17, whole.width)
    ours = pooled.extract(samples, [0])[0].reshape(1, 5, whole.width)
    np.testing.assert_allclose(ours[:, 0], states[:, 0], atol=1e-6)  # the class token
    np.testing.assert_allclose(ours[:, 2], states[:, [3, 4, 7, 8]].mean(axis=1), atol=1e-6)
    assert pooled.vectors[0].fingerprint["patches"] == 4


def test_what_changes_the_tokens_changes_the_fingerprint(tokens: Visual) -> None:
    changes = ({}, {"tokens": 1}, {"token_size": 48}, {"token_pool": 2}, {"dtype": "bfloat16"})
    prints = [TokenExtractor(replace(tokens, **change)).vectors[0] for change in changes]
    assert len({str(vector.fingerprint) for vector in prints}) == len(changes)
    same = TokenExtractor(replace(tokens, layers=(1,), pool=("mean",), image_size=64))
    assert same.vectors[0].fingerprint == prints[0].fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 3}, "expects a block from 1 to 2 of .* found 3"),
        ({"tokens": 99}, r"visual.tokens expects .* found \[99\]"),
        ({"token_size": 40, "token_pool": 2}, "expects a multiple of 16 .* found 40"),
        ({"token_size": 33}, "expects a multiple of 8"),
    ],
)
def test_what_cannot_be_is_one_line(tokens: Visual, change: dict[str, int], message: str) -> None:
    with pytest.raises(AgiqaError, match=message):
        TokenExtractor(replace(tokens, **change))


def test_a_tower_of_another_kind_is_named(
    tokens: Visual, build_vision: Callable[..., Path], tmp_path: Path
) -> None:
    model = build_vision(tmp_path / "beit", "BeitConfig")
    with pytest.raises(AgiqaError, match=r"visual.tokens is for towers .* has a beit"):
        TokenExtractor(replace(tokens, model=str(model)))
