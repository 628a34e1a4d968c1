"""Only what is missing is computed, a kill loses nothing, and the result is the same to the bit."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor, Sample, VisionExtractor
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage2.features import load_features
from agiqa.store import LockedError, read_pack
from kit.changed_weights import change_weights
from kit.counting import Counting
from kit.stored_rows import files, flip


def test_only_missing_rows_and_vectors_are_computed(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    ledger, store = tmp_path / "ledger", tmp_path / "tiny.zarr"
    half = dataclasses.replace(table, frame=table.frame.iloc[:5])
    assert extract(half, ImageTextExtractor(semantic), store, ledger=ledger).computed == 10
    rest = extract(table, ImageTextExtractor(semantic), store, ledger=ledger)
    assert (rest.cached, rest.computed, rest.images) == (10, 10, 10)
    again = Counting(semantic)
    assert extract(table, again, store, ledger=ledger).computed == 0
    assert again.asked == []
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    (tmp_path / "set.yaml").write_text(text + "  anatomy: Are the hands right?\n")
    more = Counting(dataclasses.replace(semantic, prompts=str(tmp_path / "set.yaml")))
    result = extract(table, more, store, ledger=ledger)
    assert (result.cached, result.computed, result.vectors) == (20, 10, 3)
    assert set(more.asked) == {(2,)}


def test_the_order_of_computing_does_not_show(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    """Piece by piece or at once, through half-empty batches: the same pack, byte for byte."""
    for size in (3, 7):
        part = dataclasses.replace(table, frame=table.frame.iloc[:size])
        extract(part, ImageTextExtractor(semantic), tmp_path / "part.zarr", ledger=tmp_path / "a")
    extract(table, ImageTextExtractor(semantic), tmp_path / "a.zarr", ledger=tmp_path / "a")
    extract(table, ImageTextExtractor(semantic), tmp_path / "b.zarr", ledger=tmp_path / "b")
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


def test_identical_files_are_computed_once(
    table: ImagesTable, visual: Visual, tmp_path: Path
) -> None:
    (table.root / "copy.png").write_bytes((table.root / "0.png").read_bytes())
    doubled = folder.prepare(table.root, "eleven")
    result = extract(doubled, VisionExtractor(visual), tmp_path / "v.h5", ledger=tmp_path / "l")
    assert (len(doubled.frame), result.images, result.computed) == (11, 10, 40)
    rows = read_pack(tmp_path / "v.h5").rows(list(doubled.frame["image_id"]))
    copies = doubled.frame["path"].isin(["0.png", "copy.png"]).to_numpy()
    first, second = rows[copies]
    assert np.array_equal(first, second)


def test_images_changed_since_prepare_stop_everything(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    (table.root / "3.png").write_bytes((table.root / "4.png").read_bytes())
    (table.root / "5.png").unlink()
    extractor = Counting(semantic)
    with pytest.raises(AgiqaError, match=r"2 images of 'ten' are not as they were at prepare"):
        extract(table, extractor, tmp_path / "s.zarr", ledger=tmp_path / "l")
    assert extractor.asked == []
    result = extract(table, extractor, tmp_path / "s.zarr", ledger=tmp_path / "l", skip_bad=True)
    assert result.images == 8
    assert sorted(Path(bad.path).name for bad in result.bad) == ["3.png", "5.png"]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_stage_2_leaves_out_what_extract_left_out_and_nothing_else(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, suffix: str
) -> None:
    (table.root / "5.png").unlink()
    store = tmp_path / f"s{suffix}"
    extract(table, ImageTextExtractor(semantic), store, ledger=tmp_path / "l", skip_bad=True)
    kept, features = load_features(table, store, store)
    assert "5.png" not in set(kept.frame["path"])
    assert len(kept.frame) == len(features.visual) == len(table.frame) - 1
    added = table.frame.assign(image_id="f" * 64, path="new.png").iloc[:1]
    grown = dataclasses.replace(table, frame=pd.concat([table.frame, added]))
    with pytest.raises(AgiqaError, match=r"expected rows for 10 images, found 9"):
        load_features(grown, store, store)


def test_damaged_rows_are_computed_again(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    ledger, store = tmp_path / "ledger", tmp_path / "tiny.zarr"
    extract(table, ImageTextExtractor(semantic), store, ledger=ledger)
    good = read_pack(store).vectors
    segment = min(ledger.rglob("*.safetensors"))
    flip(segment, -1)
    elsewhere = tmp_path / "other.zarr"  # so that no pack can give them back
    again = extract(table, ImageTextExtractor(semantic), elsewhere, ledger=ledger)
    assert again.computed == 1  # the others were saved
    assert np.array_equal(read_pack(elsewhere).vectors, good)


class Interrupted(ImageTextExtractor):
    """The real extractor, whose third batch never comes: Ctrl-C."""

    batches = 0

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        self.batches += 1
        if self.batches == 3:
            raise KeyboardInterrupt
        return super().extract(samples, wanted)


def test_an_interruption_keeps_what_was_finished(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    ledger, store = tmp_path / "ledger", tmp_path / "tiny.zarr"
    with pytest.raises(KeyboardInterrupt):
        extract(table, Interrupted(semantic), store, ledger=ledger)
    assert not store.exists()
    assert extract(table, ImageTextExtractor(semantic), store, ledger=ledger).computed == 4  # of 20


def test_two_vectors_that_are_the_same_are_named(
    table: ImagesTable, semantic: Semantic, visual: Visual, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    question = "  one: Are the hands right?\n  two: Are the hands right?\n"
    (tmp_path / "set.yaml").write_text(text + question)
    asked = dataclasses.replace(semantic, prompts=str(tmp_path / "set.yaml"))
    layers = dataclasses.replace(visual, layers=(1, 1))
    size = 32  # the tower's own
    views = dataclasses.replace(visual, layers=(1,), image_size=size, closeup=size)
    for extractor, names in (
        (ImageTextExtractor(asked), "'one' and 'two'"),
        (VisionExtractor(layers), "'layer1' and 'layer1'"),
        (VisionExtractor(views), "'layer1' and 'closeup1'"),
    ):
        with pytest.raises(AgiqaError, match=rf"The vectors {names} of .* are the same"):
            extract(table, extractor, tmp_path / "store.zarr", ledger=tmp_path / "ledger")
    assert not (tmp_path / "store.zarr").exists()


def test_a_second_writer_is_named(table: ImagesTable, semantic: Semantic, tmp_path: Path) -> None:
    extractor = Counting(semantic)
    with (
        LedgerRows(extractor, {}, tmp_path).shelves[0].writer(),
        pytest.raises(LockedError, match=rf"found process {os.getpid()} on .*, writing since"),
    ):
        extract(table, extractor, tmp_path / "tiny.zarr", ledger=tmp_path)
    assert extractor.asked == []


def test_vectors_too_large_for_float16_are_refused_not_stored(
    table: ImagesTable, semantic: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    loud = Path(shutil.copytree(tiny_lmm, tmp_path / "loud"))
    change_weights(loud, lambda name: 1e7 if name == "language_model.model.norm.weight" else 1.0)
    settings = dataclasses.replace(semantic, model=str(loud))
    with pytest.raises(
        AgiqaError,
        match=r"10 images of 'ten' gave vectors that are not finite in float16: .*0\.png",
    ) as caught:
        extract(
            table, ImageTextExtractor(settings), tmp_path / "a.zarr", ledger=tmp_path / "ledger"
        )
    assert "\n" not in str(caught.value)
    exact = ImageTextExtractor(dataclasses.replace(settings, precision="float32"))
    extract(table, exact, tmp_path / "b.zarr", ledger=tmp_path / "ledger")
    assert np.abs(read_pack(tmp_path / "b.zarr").vectors).max() > np.finfo(np.float16).max


def test_nothing_left_to_extract(table: ImagesTable, semantic: Semantic, tmp_path: Path) -> None:
    for path in table.paths():
        path.unlink()
    with pytest.raises(AgiqaError, match=r"10 images of 'ten' .* none would be left"):
        extract(
            table, ImageTextExtractor(semantic), tmp_path / "s.zarr", ledger=tmp_path, skip_bad=True
        )
