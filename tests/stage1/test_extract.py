"""Only what is missing is computed, a kill loses nothing, and the result is the same to the bit.

What is there is found again by the bytes of images and by what makes the vectors; a ledger that
lost its rows gets them back from the pack at the destination, or computes them.
"""

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.core.processes import Process
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.batches import in_batches
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor, Sample, VisionExtractor
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage2.features import load_features
from agiqa.store import LockedError, PackError, pack_beside, read_pack
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


@pytest.mark.parametrize(
    ("count", "whole", "sizes"),
    [
        (10, True, [4, 4, 4]),
        (10, False, [4, 4, 2]),
        (1, True, [4]),
        (1, False, [1]),
        (3, False, [4]),
    ],
)
def test_the_last_batch(count: int, whole: bool, sizes: list[int]) -> None:
    samples = [(number, Sample({}, key="one shape")) for number in range(count)]
    batches = list(in_batches(samples, 4, whole=whole))
    assert [len(batch) for _, batch in batches] == sizes
    assert [name for names, _ in batches for name in names] == list(range(count))


def test_of_several_shapes_each_rest_is_filled_to_a_power_of_two() -> None:
    samples = [(number, Sample({}, key=number % 2)) for number in range(3)]
    assert [len(batch) for _, batch in in_batches(samples, 8)] == [2, 1]


Prompts = Callable[..., str]
QUESTIONS = {"sharp": "Is it sharp?", "whole": "Is it whole?"}


@pytest.fixture
def asked(semantic: Semantic, write_prompts: Prompts) -> Semantic:
    return dataclasses.replace(semantic, prompts=write_prompts(QUESTIONS))


@pytest.fixture
def computed(table: ImagesTable, asked: Semantic, tmp_path: Path) -> Callable[..., int]:
    """Vectors computed for these settings and images; two of ten images are there before."""

    def count(settings: Semantic = asked, images: ImagesTable = table) -> int:
        count.calls += 1
        store = tmp_path / "packs" / f"{count.calls}.zarr"  # each its own: none gives rows back
        extractor = ImageTextExtractor(settings)
        return extract(images, extractor, store, ledger=tmp_path / "ledger", workers=0).computed

    count.calls = 0
    assert count() == 20
    return count


def test_renamed_moved_and_copied_files_and_other_data_sets_hit(
    computed: Callable[..., int], table: ImagesTable, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "deeper"
    moved.mkdir(parents=True)
    for number, path in enumerate(table.paths()[:6]):
        shutil.copy(path, moved / f"renamed {number}.png")
        shutil.copy(path, moved / f"copy of {number}.png")
    again = folder.prepare(moved.parent, "another data set")
    assert len(again.frame) == 12
    assert computed(images=again) == 0


def test_prompts_shared_between_sets_hit(
    computed: Callable[..., int], asked: Semantic, write_prompts: Prompts
) -> None:
    more = {"renamed": QUESTIONS["whole"], "fair": "Is it fair?"}
    prompts = write_prompts(more, "other.yaml", name="other", citation="another")
    assert computed(dataclasses.replace(asked, prompts=prompts)) == 10
    assert computed(dataclasses.replace(asked, name="other", batch_size=3, workers=1)) == 0


def test_a_model_of_another_name_hits_and_one_of_another_weight_does_not(
    computed: Callable[..., int], asked: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_lmm, tmp_path / "the same under another name"))
    settings = dataclasses.replace(asked, model=str(model))
    assert computed(settings) == 0
    change_weights(model, lambda name: 1.5 if "multi_modal_projector" in name else 1.0)
    assert computed(settings) == 20


def test_a_changed_byte_is_another_image(computed: Callable[..., int], table: ImagesTable) -> None:
    with table.paths()[3].open("ab") as file:
        file.write(b"\0")  # behind the image's end: it decodes as before
    assert computed(images=folder.prepare(table.root, "ten")) == 2


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
