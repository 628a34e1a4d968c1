"""A ledger that lost its rows gets them back from the pack at the destination, or computes them."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.params import Semantic
from agiqa.core.processes import Process
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor
from agiqa.store import PackError, pack_beside, read_pack
from kit.counting import Counting
from kit.stored_rows import files, flip


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_lost_ledger_comes_back_from_the_packs_and_nothing_is_computed(
    table: ImagesTable,
    semantic: Semantic,
    tmp_path: Path,
    write_prompts: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    suffix: str,
) -> None:
    """Vectors and answers; the same packs to the byte."""
    prompts = write_prompts(
        {"q": "Is it good?", "r": "Is it sharp?"},
        answers=["good", "poor"],
        template="USER: {prompt} {image} ANSWER: ",
    )
    settings = dataclasses.replace(semantic, prompts=prompts)
    store, ledger = tmp_path / f"tiny{suffix}", tmp_path / "ledger"
    first = extract(table, ImageTextExtractor(settings), store, ledger=ledger)
    assert first.computed == 40
    packs = [store, pack_beside(store, "answers")]
    before = [files(pack) for pack in packs]
    shutil.rmtree(ledger)
    again = Counting(settings)
    with caplog.at_level(logging.INFO, logger="agiqa"):
        result = extract(table, again, store, ledger=ledger)
    assert (again.seen, result.computed, result.cached) == (0, 0, 40)
    assert [files(pack) for pack in packs] == before
    for pack in packs:
        assert f"{pack}: 20 vectors taken from the pack, not computed" in caplog.messages
    store.unlink() if store.is_file() else shutil.rmtree(store)
    assert extract(table, again, store, ledger=ledger).computed == 0  # it is all in the ledger
    assert files(store) == before[0]


def test_only_rows_of_the_same_fingerprint_are_taken(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, write_prompts: Callable[..., str]
) -> None:
    store = tmp_path / "tiny.zarr"
    some = dataclasses.replace(table, frame=table.frame.iloc[:6])
    for questions in ({"q": "Is it good?", "r": "Is it sharp?"}, {"x": "Is it good?", "y": "New?"}):
        settings = dataclasses.replace(semantic, prompts=write_prompts(questions))
        extract(some, ImageTextExtractor(settings), store, ledger=tmp_path / "first")
        some = table
        if "q" in questions:
            continue
        result = extract(table, Counting(settings), tmp_path / "b.zarr", ledger=tmp_path / "l")
        assert result.computed == 20
    # The store now holds x (q's numbers under another name) and y of all images.
    settings = dataclasses.replace(semantic, prompts=write_prompts({"q": "Is it good?", "z": "Z?"}))
    result = extract(table, again := Counting(settings), store, ledger=tmp_path / "second")
    assert (result.cached, result.computed) == (10, 10)
    assert again.seen == 12  # three batches of four, for z alone
    assert np.array_equal(
        read_pack(store).vectors[:, 0], read_pack(tmp_path / "b.zarr").vectors[:, 0]
    )


def test_damaged_rows_of_a_pack_are_computed(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, ledger = tmp_path / "tiny.zarr", tmp_path / "ledger"
    extract(table, ImageTextExtractor(semantic), store, ledger=ledger)
    before = files(store)
    flip(store / "vectors/c.0.0.0", 5)
    shutil.rmtree(ledger)
    result = extract(table, ImageTextExtractor(semantic), store, ledger=ledger)
    assert result.computed == 2  # of one image
    assert f"{store}: 2 vectors are damaged and not taken" in caplog.messages
    assert files(store) == before


def test_a_changed_prompt_of_an_image_never_takes_the_old_ones_vector(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, write_prompts: Callable[..., str]
) -> None:
    """The fingerprint does not hold the image's own prompt, but the ids of the pack's rows do."""
    questions = {"own": "Does it show {image_prompt}?", "plain": "Is it good?"}
    settings = dataclasses.replace(semantic, prompts=write_prompts(questions))
    store, ledger = tmp_path / "tiny.zarr", tmp_path / "ledger"
    asked = dataclasses.replace(table, frame=table.frame.assign(prompt="a cat"))
    extract(asked, ImageTextExtractor(settings), store, ledger=ledger)
    before = files(store)
    shutil.rmtree(ledger)
    assert extract(asked, ImageTextExtractor(settings), store, ledger=ledger).computed == 0
    assert files(store) == before
    shutil.rmtree(ledger)
    prompts = ["a dog" if row == 3 else "a cat" for row in range(len(table.frame))]
    changed = dataclasses.replace(table, frame=table.frame.assign(prompt=prompts))
    result = extract(changed, ImageTextExtractor(settings), store, ledger=ledger)
    assert result.computed == 2  # of the one image; the others come from the pack
    fresh = tmp_path / "fresh.zarr"
    extract(changed, ImageTextExtractor(settings), fresh, ledger=tmp_path / "other")
    assert files(store) == files(fresh) != before


def test_several_processes_take_their_shares(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    store, ledger = tmp_path / "tiny.zarr", tmp_path / "ledger"
    extract(table, ImageTextExtractor(semantic), store, ledger=ledger)
    before = files(store)
    shutil.rmtree(ledger)
    for rank in (1, 0):
        again = Counting(semantic)
        result = extract(table, again, store, ledger=ledger, process=Process(rank, 2))
        assert (again.seen, result.computed) == (0, 0)
    assert files(store) == before


def test_what_could_not_be_replaced_stops_before_any_work(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    store = tmp_path / "tiny.zarr"
    store.mkdir()
    (store / "thesis.txt").write_text("years of work")
    extractor = Counting(semantic)
    with pytest.raises(PackError, match=r"not overwritten: .*tiny\.zarr"):
        extract(table, extractor, store, ledger=tmp_path / "ledger")
    assert extractor.seen == 0
    assert (store / "thesis.txt").exists()
