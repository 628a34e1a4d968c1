from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.datasets import csv_file
from agiqa.errors import AgiqaError

CSV = "image,mos,said,who\na.png,1.5,A cat,x\nsub/b.png,2,a dog,x\nΑθήνα 猫.png,4.5,a cat,y\n"


@pytest.fixture
def csv(write_images: Callable[..., Path]) -> Path:
    path = write_images("a.png", "sub/b.png", "Αθήνα 猫.png") / "labels.csv"
    path.write_text(CSV, "utf-8")
    return path


def test_all_columns(csv: Path) -> None:
    table = csv_file.prepare(csv, "image", ["mos"], prompt_column="said", generator_column="who")
    assert table.name == "labels"
    assert table.frame["path"].tolist() == ["a.png", "sub/b.png", "Αθήνα 猫.png"]
    assert table.frame["mos"].tolist() == [1.5, 2.0, 4.5]
    assert table.frame["group"].tolist() == ["a cat", "a dog", "a cat"]
    assert table.frame["generator"].tolist() == ["x", "x", "y"]
    assert [(t.name, t.low, t.high) for t in table.targets] == [("mos", 1.5, 4.5)]
    assert all(path.is_file() for path in table.paths())


def test_only_images_and_scores(csv: Path) -> None:
    table = csv_file.prepare(csv, "image", ["mos"], name="mine")
    assert table.name == "mine"
    assert (table.frame[["prompt", "group", "generator"]] == "").all(axis=None)


def test_group_column_wins_over_the_prompt(csv: Path) -> None:
    table = csv_file.prepare(csv, "image", ["mos"], prompt_column="said", group_column="who")
    assert table.frame["group"].tolist() == ["x", "x", "y"]


def test_root_elsewhere_absolute_paths_and_a_byte_order_mark(csv: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "labels.csv"
    moved.parent.mkdir()
    moved.write_text(CSV.replace("a.png", f"{csv.parent}/a.png", 1), "utf-8-sig")
    table = csv_file.prepare(moved, "image", ["mos"], root=csv.parent)
    assert table.frame["path"].tolist() == ["a.png", "sub/b.png", "Αθήνα 猫.png"]


def test_tsv(csv: Path) -> None:
    tsv = csv.with_suffix(".tsv")
    tsv.write_text(CSV.replace(",", "\t"), "utf-8")
    assert len(csv_file.prepare(tsv, "image", ["mos"]).frame) == 3


def test_missing_columns_are_named_with_those_found(csv: Path) -> None:
    message = "expected the columns img, score; found image, mos, said, who"
    with pytest.raises(AgiqaError, match=message):
        csv_file.prepare(csv, "img", ["mos", "score"])


@pytest.mark.parametrize("value", ["", "nan", "good", "inf", "NA"])
def test_scores_that_are_no_numbers(csv: Path, value: str) -> None:
    csv.write_text(CSV.replace(",2,", f",{value},"), "utf-8")
    with pytest.raises(AgiqaError, match=rf"column mos .* row 2 \(sub/b.png\): '{value}'"):
        csv_file.prepare(csv, "image", ["mos"])


def test_path_leaving_the_root(csv: Path, tmp_path: Path) -> None:
    for path in ("../a.png", f"{tmp_path}/a.png", "sub/../../a.png"):
        csv.write_text(CSV.replace("a.png", path, 1), "utf-8")
        with pytest.raises(AgiqaError, match="not inside the data folder"):
            csv_file.prepare(csv, "image", ["mos"])


@pytest.mark.parametrize("again", ["a.png", "./a.png", "sub/../a.png"])
def test_duplicate_names(csv: Path, again: str) -> None:
    csv.write_text(CSV + f"{again},3,x,y\n", "utf-8")
    with pytest.raises(AgiqaError, match=r"1 image is listed more than once \(a.png\)"):
        csv_file.prepare(csv, "image", ["mos"])


def test_absent_and_broken_images(csv: Path) -> None:
    (csv.parent / "a.png").unlink()
    (csv.parent / "Αθήνα 猫.png").write_text("no image")
    message = r"2 of 3 images .*: a.png does not exist, Αθήνα 猫.png is not an image"
    with pytest.raises(AgiqaError, match=message):
        csv_file.prepare(csv, "image", ["mos"])
    table = csv_file.prepare(csv, "image", ["mos"], skip_bad=True)
    assert table.frame["path"].tolist() == ["sub/b.png"]
    assert len(table.skipped) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable CSV"),
        (b"image,mos\n", "found only the header"),
        (b"image,mos\n\xff\xfe,1\n", "is not UTF-8 text"),
        (b'image,mos\na.png,"1\n', "is not a readable CSV"),
        (b"image;mos\na.png;1\n", "expected the columns image, mos; found image;mos"),
    ],
)
def test_unreadable_csv(csv: Path, content: bytes, message: str) -> None:
    csv.write_bytes(content)
    with pytest.raises(AgiqaError, match=message) as caught:
        csv_file.prepare(csv, "image", ["mos"])
    assert "\n" not in str(caught.value)


def test_no_csv_no_root(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match=r"gone\.csv: does not exist"):
        csv_file.prepare(tmp_path / "gone.csv", "image", ["mos"])
    with pytest.raises(AgiqaError, match="gone: expected the folder of the images"):
        csv_file.prepare(csv, "image", ["mos"], root=tmp_path / "gone")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "at least one score column"),
        (["mos", "mos"], "named twice"),
        (["prompt"], "cannot be called prompt"),
    ],
)
def test_score_columns_that_cannot_be(csv: Path, columns: list[str], message: str) -> None:
    csv.write_text(CSV.replace("said", "prompt"), "utf-8")
    with pytest.raises(AgiqaError, match=message):
        csv_file.prepare(csv, "image", columns)
