"""Tokens are the block's hidden states, and what cannot be a block is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor


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
