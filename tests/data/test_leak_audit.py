import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.folder import prepare
from agiqa.data.datasets.table import ImagesTable, Target
from agiqa.data.images import BadImagesError
from agiqa.data.leak_audit import (
    NEAR,
    audit,
    count_near,
    hashes_file,
    near_hashes,
    perceptual_hashes,
    with_near,
)
from agiqa.data.splits.protocols import make_splits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGIQA_HASHES", str(tmp_path / "hashes"))


@pytest.fixture
def photos(tmp_path: Path, photo: Image.Image) -> ImagesTable:
    """A photograph, its copy, three re-encodings, and four other pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo.save(folder / "0.png")
    photo.save(folder / "1 copy.png")
    photo.convert("RGB").save(folder / "3 encoded.jpg", quality=40)
    photo.resize((80, 53)).save(folder / "4 small.png")
    for number, turned in enumerate((90, 180)):
        photo.rotate(turned, expand=True).save(folder / f"{5 + number} turned.png")
    for number in (7, 8):
        noise = np.random.default_rng(number).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number} noise.png")
    return prepare(folder, "photos")


def split(table: ImagesTable, sides: str) -> pd.DataFrame:
    """One split: a letter a row, t train, v val, e test."""
    names = {"t": "train", "v": "val", "e": "test"}
    return pd.DataFrame(
        {
            "name": table.frame["path"],
            "image_id": table.frame["image_id"],
            "seed": 0,
            "side": [names[letter] for letter in sides],
            "protocol": "mine",
        }
    )


def test_copies_and_re_encodings_are_found(photos: ImagesTable) -> None:
    assert len(photos.frame) == 8
    near = near_hashes(perceptual_hashes(photos), NEAR)
    result = audit(photos, split(photos, "teevttee"), near)
    counts = {(row.side, row.other): (row.images, row.same_file, row.near) for row in result}
    # Test: the copy, the JPEG, and two noises. Train: the photograph and its turned versions.
    assert counts["test", "train"] == (4, 1, 1)
    assert counts["val", "train"] == (1, 0, 1)  # the small one
    assert counts["test", "val"] == (4, 0, 2)  # near the small one: the copy and the JPEG


def test_near_pictures_can_be_kept_on_one_side(photos: ImagesTable) -> None:
    frame = photos.frame.assign(quality=np.arange(8.0), group=["", *"abcdefg"])
    table = replace(photos, frame=frame, targets=(Target("quality", 0, 7),))
    near = with_near(table, NEAR)
    # the photograph, its copy, the JPEG and the small one; no other picture has a relative
    assert near.frame["near"].value_counts().tolist() == [4, 1, 1, 1, 1]
    assert count_near(near).startswith("4 near-identical images of 1 pictures")
    parted = 0
    for table_, together in ((table, False), (near, True)):
        for _, split in make_splits(table_, "grouped", count=8).groupby("seed"):
            sides = split.set_index("name")["side"][["0.png", "3 encoded.jpg", "4 small.png"]]
            assert len(set(sides)) == 1 or not together
            parted += len(set(sides)) > 1
    assert parted  # without the column they fall apart
    same = near.frame.assign(group="one")
    assert count_near(replace(near, frame=same)).startswith("0 near-identical")


def test_prompts_are_counted_where_they_are_named(make_table: Callable[..., ImagesTable]) -> None:
    table = make_table(["a", "a", "", "", "b", "c"])
    hashes = np.array([1 << (9 * row) | (2**40 - 1) << row for row in range(6)], dtype=np.uint64)
    result = audit(table, split(table, "tetvee"), near_hashes(hashes, 0))
    assert {(row.side, row.other): row.same_prompt for row in result} == {
        ("test", "train"): 1, ("val", "train"): 0, ("test", "val"): 0, ("test", "train and val"): 1
    }  # fmt: skip


def test_the_second_time_no_image_is_read(photos: ImagesTable) -> None:
    first = perceptual_hashes(photos)
    elsewhere = replace(photos, root=photos.root / "gone")
    assert perceptual_hashes(elsewhere).tolist() == first.tolist()


def test_changed_images_do_not_get_into_the_cache_and_all_others_do(photos: ImagesTable) -> None:
    with (photos.root / "8 noise.png").open("ab") as file:
        file.write(b" ")
    once = photos.frame[~photos.frame["image_id"].duplicated(keep=False)]
    absent = photos.root / next(name for name in once["path"] if name != "8 noise.png")
    absent.unlink()
    with pytest.raises(BadImagesError, match=r"8 noise.png: has changed since prepare") as e:
        perceptual_hashes(photos)
    assert {Path(bad.path).name for bad in e.value.bad} == {"8 noise.png", absent.name}
    unchanged = photos.frame[~photos.frame["path"].isin(["8 noise.png", absent.name])]
    with sqlite3.connect(hashes_file()) as cache:
        kept = {name for (name,) in cache.execute("SELECT image_id FROM hashes")}
    assert kept >= set(unchanged["image_id"])
    assert kept.isdisjoint(photos.frame.loc[photos.frame["path"] == "8 noise.png", "image_id"])


def test_a_damaged_cache_is_one_line(photos: ImagesTable) -> None:
    perceptual_hashes(photos)
    hashes_file().write_bytes(b"no database" * 100)
    with pytest.raises(AgiqaError, match=r"cannot be used .*remove it, or set AGIQA_HASHES"):
        perceptual_hashes(photos)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 2**64 - 1)), max_size=20),
    st.integers(0, 12),
)
def test_near_pairs_are_those_of_two_loops(
    values: list[int], flips: list[tuple[int, int]], distance: int
) -> None:
    values += [values[bit % len(values)] ^ (flip & (flip >> 1) & (flip >> 7) & (flip >> 13))
               for bit, flip in flips]  # fmt: skip
    near = near_hashes(np.array(values, dtype=np.uint64), distance)
    distinct = sorted(set(values))
    expected = {
        (i, j): (distinct[i] ^ distinct[j]).bit_count()
        for i in range(len(distinct))
        for j in range(i + 1, len(distinct))
        if (distinct[i] ^ distinct[j]).bit_count() <= distance
    }
    pairs = zip(near.first.tolist(), near.second.tolist(), strict=True)
    assert dict(zip(pairs, near.distance.tolist(), strict=True)) == expected
    assert [distinct[row] for row in near.row] == values


def test_a_thousand_copies_are_no_burden(make_table: Callable[..., ImagesTable]) -> None:
    table = make_table(["a"] * 3000)
    splits = make_splits(table, "random", count=2)
    result = audit(table, splits, near_hashes(np.full(3000, 5, dtype=np.uint64), NEAR))
    assert result[0].near == result[0].images


def test_too_great_a_distance_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agiqa.data.leak_audit.MOST_PAIRS", 10)
    with pytest.raises(AgiqaError, match=r"more than 10 pairs .* at most 64 .*smaller --distance"):
        near_hashes(np.arange(50, dtype=np.uint64), 64)
