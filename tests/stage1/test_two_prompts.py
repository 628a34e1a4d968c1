"""One picture made from two prompts: two rows to an LMM that reads them, one to others."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.core.processes import Process
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors
from agiqa.stage2.features import load_features
from agiqa.store import Shelf, pack_beside, read_pack, row_ids_digest, write_pack
from agiqa.store.row_ids import Source, row_id
from agiqa.store.upkeep.export import export
from agiqa.store.upkeep.merge import merge
from agiqa.store.upkeep.verification import check_pack, restore_pack
from kit.stored_rows import files

# Rows 0 to 3 are one picture: made from two prompts, one of which is spelled in two other ways.
PROMPTS = ["a cat", "a dog", " a cat ", "A cat", "a bird"]
ROW_OF = [0, 1, 0, 2, 3]  # in the LMM's pack: white space around it is not read, its case is


@pytest.fixture
def twins(write_images: Callable[..., Path], tmp_path: Path) -> ImagesTable:
    """A data set with an alignment MOS of its own for each row, and its table in cache/twins."""
    images = write_images(*[f"{row}.png" for row in range(len(PROMPTS))])
    for row in (1, 2, 3):
        shutil.copy(images / "0.png", images / f"{row}.png")
    table = folder.prepare(images, "twins")
    frame = table.frame.assign(prompt=PROMPTS, alignment=[4.5, 1.0, 4.4, 4.3, 3.0])
    rated = dataclasses.replace(table, frame=frame, targets=(Target("alignment", 1.0, 5.0),))
    write_table(rated, tmp_path / "cache/twins")
    return rated


@pytest.fixture
def lmm(semantic: Semantic, write_prompts: Callable[..., str]) -> ImageTextExtractor:
    """Two questions, of which one holds the image's prompt; answers to both."""
    questions = {"own": "Does it show {image_prompt}?", "plain": "Is it good?"}
    prompts = write_prompts(questions, template="{prompt} {image} A: ", answers=["no", "yes"])
    return ImageTextExtractor(dataclasses.replace(semantic, prompts=prompts))


@pytest.fixture
def pack(twins: ImagesTable, lmm: ImageTextExtractor, tmp_path: Path) -> Path:
    path = tmp_path / "cache/twins/tiny.zarr"
    done = extract(twins, lmm, path, ledger=tmp_path / "ledger")
    assert (done.images, done.vectors, done.computed) == (4, 4, 2 * (4 + 2))  # plain: by picture
    return path


def test_each_row_has_the_vectors_of_the_picture_with_its_prompt(
    twins: ImagesTable, lmm: ImageTextExtractor, visual: Visual, pack: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "cache/twins/tiny-vision.zarr"
    done = extract(twins, VisionExtractor(visual), seen, ledger=tmp_path / "ledger")
    assert done.images == len(read_pack(seen).image_ids) == 2
    table, features = load_features(twins, pack, seen, answers=True)
    assert list(table.frame["alignment"]) == [4.5, 1.0, 4.4, 4.3, 3.0]
    made = zip(table.frame["image_id"], table.paths(), PROMPTS, strict=True)
    rows = [Source(*row) for row in made]
    packs = [read_pack(pack), read_pack(pack_beside(pack, "answers"))]
    assert all(len(store.image_ids) == 4 for store in packs)
    for number, row in enumerate(rows):
        ledger = tmp_path / f"ledger-{number}"
        vectors_of_files = FileVectors(lmm, ledger, OneMachine(0))
        alone = np.concatenate(vectors_of_files({row.row_id: row}), 1)
        together = np.concatenate([store.rows([row.row_id])[0].ravel() for store in packs])
        assert np.array_equal(together, alone[0])
    own, plain, looks = features.semantic[:, 0], features.semantic[:, 1], features.visual
    assert [len(np.unique(part, axis=0)) for part in (own, plain, looks)] == [4, 2, 2]
    assert np.array_equal(own, own[[ROW_OF.index(row) for row in ROW_OF]])


def test_a_stop_a_share_and_a_lost_ledger_compute_nothing_twice(
    twins: ImagesTable, lmm: ImageTextExtractor, pack: Path, tmp_path: Path
) -> None:
    before, ledger = files(pack), tmp_path / "ledger"
    assert extract(twins, lmm, pack, ledger=ledger).computed == 0
    shutil.rmtree(ledger)
    assert extract(twins, lmm, pack, ledger=ledger).computed == 0
    assert files(pack) == before
    shutil.rmtree(ledger)
    merged = merge([pack, pack_beside(pack, "answers")], ledger)
    assert {one.name: one.rows.added for one in merged} == {"own": 4, "plain": 2}
    shared, some = tmp_path / "shared", dataclasses.replace(twins, frame=twins.frame.iloc[:1])
    assert extract(some, lmm, tmp_path / "b.zarr", ledger=shared).computed == 4
    shutil.rmtree(tmp_path / "b.zarr")
    for rank in (0, 1):
        extract(twins, lmm, tmp_path / "b.zarr", ledger=shared, process=Process(rank, 2))
    assert files(tmp_path / "b.zarr") == before
    (shelf,) = [s for s in map(Shelf.at, shared.iterdir()) if len(s.ids()) == 2 and s.width > 2]
    assert shelf.ids() == set(twins.frame["image_id"])


def test_a_damaged_pack_is_packed_again_and_exported_by_picture(
    twins: ImagesTable, pack: Path, tmp_path: Path
) -> None:
    before = files(pack)
    for part in ("vectors/c.0.0.0", "image_id/c.0.0"):
        (pack / part).write_bytes(b"nothing")
        assert check_pack(pack).findings
        assert restore_pack(pack, tmp_path / "ledger").endswith(
            "4 rows packed again from the ledger"
        )
        assert files(pack) == before
    export(pack, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        assert list(out["path"]) == ["0.png", "1.png", "3.png", "4.png"]
        assert list(out["image_id"]) == list(twins.frame["image_id"].iloc[[0, 1, 3, 4]])
    away = shutil.copytree(pack, tmp_path / "tiny.zarr")
    with pytest.raises(AgiqaError, match=r"expected the images table beside it that says which"):
        export(away, tmp_path / "away.npz")


def test_a_pack_with_one_row_for_each_image_is_told_and_packed_again(
    twins: ImagesTable, lmm: ImageTextExtractor, pack: Path, tmp_path: Path
) -> None:
    new, old = read_pack(pack), tmp_path / "cache/twins/old.zarr"
    ids = list(dict.fromkeys(twins.frame["image_id"]))
    rows = [row_id(ids[0], "a cat"), row_id(ids[1], "a bird")]
    recorded = {"own": row_ids_digest(rows)}
    write_pack(old, new.extractor, new.names, new.fingerprints, ids, new.rows(rows), (), recorded)
    with pytest.raises(AgiqaError, match=r"old\.zarr: expected a row for each image and prompt"):
        read_pack(old)
    assert extract(twins, lmm, old, ledger=tmp_path / "ledger").computed == 0
    assert files(old) == files(pack)


def test_a_row_without_its_prompt_leaves_the_others_of_its_picture(
    twins: ImagesTable, lmm: ImageTextExtractor, visual: Visual, tmp_path: Path
) -> None:
    frame = twins.frame.assign(prompt=["a cat", " ", "a dog", "A cat", "a bird"])
    blank, ledger = dataclasses.replace(twins, frame=frame), tmp_path / "ledger"
    seen, path = tmp_path / "v.zarr", tmp_path / "t.zarr"
    extract(blank, VisionExtractor(visual), seen, ledger=ledger)
    done = extract(blank, lmm, path, ledger=ledger, skip_bad=True)
    assert [Path(image.path).name for image in done.bad] == ["1.png"]
    table, features = load_features(blank, path, seen)
    assert list(table.frame["path"]) == ["0.png", "2.png", "3.png", "4.png"]
    assert len(np.unique(features.semantic[:, 0], axis=0)) == 4
