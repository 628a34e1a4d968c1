"""Which of a store's vectors become experts, how the answers join them, what groups are apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage2.features import (
    Targets,
    choose_vectors,
    load_features,
    require_same_stores,
    with_answers,
)
from agiqa.store import pack_beside, write_pack

NAMES = ("a.mean", "a.last", "b.mean", "b.last")
IMAGES = 7


@pytest.fixture
def table(make_table: Callable[..., ImagesTable]) -> ImagesTable:
    return make_table([f"group {row}" for row in range(IMAGES)])


@pytest.fixture
def write(tmp_path: Path, table: ImagesTable) -> Callable[..., Path]:
    """Writes a store of numbers that say which vector and image they are of."""

    def write_store(name: str, names: tuple[str, ...], width: int, rows: int = IMAGES) -> Path:
        ids = list(table.frame["image_id"])
        store = tmp_path / f"{name}.zarr"
        vectors = np.arange(rows * len(names) * width).reshape(rows, len(names), width)
        prints = [{"vector": each, "of": name} for each in names]
        left_out = ids[rows:]
        write_pack(store, name, names, prints, ids[:rows], vectors.astype(np.float32), left_out)
        return store

    return write_store


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], [0, 1, 2, 3]),
        (["*.last"], [1, 3]),
        (["b.mean", "a.*"], [0, 1, 2]),
        (["a.last", "*.last", "[a]*"], [0, 1, 3]),
    ],
)
def test_names_and_patterns(patterns: list[str], chosen: list[int]) -> None:
    assert choose_vectors(NAMES, patterns, "store") == chosen


def test_a_pattern_that_matches_nothing_says_what_there_is() -> None:
    with pytest.raises(
        AgiqaError,
        match=r"lmm\.zarr: fit\.vectors names 'c\*', which .*: a\.mean, a\.last, b\.mean",
    ):
        choose_vectors(NAMES, ["*.last", "c*"], "lmm.zarr")


def test_chosen_vectors_are_the_features_and_their_provenance(
    table: ImagesTable, write: Callable[..., Path]
) -> None:
    semantic, visual = write("lmm", NAMES, 3), write("eye", ("layer1", "layer2"), 2)
    _, whole = load_features(table, semantic, visual)
    _, some = load_features(table, semantic, visual, ["*.last"])
    assert some.experts == ("visual", "a.last", "b.last")
    np.testing.assert_array_equal(some.semantic, whole.semantic[:, [1, 3]])
    np.testing.assert_array_equal(some.visual, whole.visual)
    assert some.stores["semantic"]["names"] == ["a.last", "b.last"]
    assert [
        fingerprint["vector"] for fingerprint in some.stores["semantic"]["fingerprints"]
    ] == list(NAMES[1::2])
    with pytest.raises(AgiqaError, match=r"trained on the semantic vectors a\.last, b\.last, but"):
        require_same_stores(some.stores, whole.stores)


def test_answers_are_one_more_expert(table: ImagesTable, write: Callable[..., Path]) -> None:
    semantic, visual = write("lmm.v1", NAMES, 8), write("eye", ("layer1",), 2)
    with pytest.raises(AgiqaError, match=r"there is no .*lmm\.v1-answers\.zarr: give the prompt"):
        load_features(table, semantic, visual, answers=True)
    store = write("lmm.v1-answers", ("a", "b"), 3, rows=IMAGES - 2)
    assert store == pack_beside(semantic, "answers")
    kept, features = load_features(table, semantic, visual, ["a.last"], answers=True)
    assert len(kept.frame) == IMAGES - 2  # what the answers' store leaves out is left out
    assert features.prompts == ("a.last", "answers")
    assert features.semantic.shape == (IMAGES - 2, 2, 8)
    np.testing.assert_array_equal(features.semantic[1, 1], [6, 7, 8, 9, 10, 11, 0, 0])
    assert features.stores["answers"]["names"] == ["a", "b"]
    changed = {**features.stores["answers"], "fingerprints": [{"of": "x"}, {"of": "x"}]}
    with pytest.raises(AgiqaError, match="answers vector 'a'"):
        require_same_stores(features.stores, {**features.stores, "answers": changed})


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(2, 5))
def test_nothing_of_vectors_or_answers_is_lost(
    prompts: int, width: int, asked: int, answers: int
) -> None:
    """Also where the answers are wider than the vectors."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, prompts, width)).astype(np.float32)
    said = rng.random((3, asked, answers)).astype(np.float32)
    joined = with_answers(vectors, said)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined[:, :-1, :width], vectors)
    np.testing.assert_array_equal(joined[:, -1, : asked * answers], said.reshape(3, -1))
    assert not joined[:, :-1, width:].any()
    assert not joined[:, -1, asked * answers :].any()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(
    tmp_path: Path,
    table: ImagesTable,
    write: Callable[..., Path],
    number: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As somebody else's software may write them: with checksums that are right."""
    ids = list(table.frame["image_id"])
    vectors = np.ones((IMAGES, 1, 3), np.float32)
    vectors[4, 0, 1] = number
    lmm = tmp_path / "lmm.zarr"
    monkeypatch.setattr("agiqa.store.packs.pack_layout.check_vectors", lambda *_: None)
    write_pack(lmm, "lmm", ("a",), [{"vector": "a"}], ids, vectors)
    with pytest.raises(
        AgiqaError, match=rf"expected 7 whole rows, found 1 damaged .* image {ids[4]}"
    ):
        load_features(table, lmm, write("vision", ("v",), 3))


def test_groups_are_held_apart_or_not() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2])
    targets = Targets(np.zeros((6, 1)), ("quality",), ("one",), np.zeros(6, int), groups)
    train = np.array([0, 1, 3])
    apart = targets.held_apart(train, np.array([4, 5]))
    assert apart is not None
    assert apart.tolist() == [0, 0, 1]
    assert targets.held_apart(train, np.array([2, 5])) is None
    unknown = Targets(np.zeros((6, 1)), ("quality",), ("one",), np.zeros(6, int))
    assert unknown.held_apart(train, np.array([4, 5])) is None
