import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Source
from agiqa.data.datasets import csv_file
from agiqa.data.datasets.table import ImagesTable
from kit.command import agiqa

CSV = "image,mos,said,who\na.png,1.5,A cat,x\nsub/b.png,2,a dog,x\nΑθήνα 猫.png,4.5,a cat,y\n"


def prepare(
    csv: Path, image: str, scores: Sequence[str], *, name: str = "", skip_bad: bool = False,
    **columns: Any,
) -> ImagesTable:  # fmt: skip
    source = Source(path=str(csv), image_column=image, score_columns=tuple(scores), **columns)
    return csv_file.prepare(source, name, skip_bad=skip_bad)


@pytest.fixture
def csv(write_images: Callable[..., Path]) -> Path:
    path = write_images("a.png", "sub/b.png", "Αθήνα 猫.png") / "labels.csv"
    path.write_text(CSV, "utf-8")
    return path


def test_all_columns(csv: Path) -> None:
    table = prepare(csv, "image", ["mos"], prompt_column="said", generator_column="who")
    assert table.name == "labels"
    assert table.frame["path"].tolist() == ["a.png", "sub/b.png", "Αθήνα 猫.png"]
    assert table.frame["mos"].tolist() == [1.5, 2.0, 4.5]
    assert table.frame["group"].tolist() == ["a cat", "a dog", "a cat"]
    assert table.frame["generator"].tolist() == ["x", "x", "y"]
    assert [(t.name, t.low, t.high) for t in table.targets] == [("mos", 1.5, 4.5)]
    assert all(path.is_file() for path in table.paths())
    own_groups = prepare(csv, "image", ["mos"], prompt_column="said", group_column="who").frame
    assert own_groups["group"].tolist() == ["x", "x", "y"]
    bare = prepare(csv, "image", ["mos"], name="mine")
    assert bare.name == "mine"
    assert (bare.frame[["prompt", "group", "generator"]] == "").all(axis=None)


def test_root_elsewhere_absolute_paths_and_a_byte_order_mark(csv: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "labels.csv"
    moved.parent.mkdir()
    moved.write_text(CSV.replace("a.png", f"{csv.parent}/a.png", 1), "utf-8-sig")
    table = prepare(moved, "image", ["mos"], root=str(csv.parent))
    assert table.frame["path"].tolist() == ["a.png", "sub/b.png", "Αθήνα 猫.png"]


def test_tsv(csv: Path) -> None:
    tsv = csv.with_suffix(".tsv")
    tsv.write_text(CSV.replace(",", "\t"), "utf-8")
    assert len(prepare(tsv, "image", ["mos"]).frame) == 3


def test_missing_columns_are_named_with_those_found(csv: Path) -> None:
    message = "expected the columns img, score; found image, mos, said, who"
    with pytest.raises(AgiqaError, match=message):
        prepare(csv, "img", ["mos", "score"])


@pytest.mark.parametrize(
    "value",
    ["", "nan", "good", "inf", "NA", "1e400", "-inf", "1e10", "0x10", "1_000", "٣", "\xa03", "2,5"],
)
def test_scores_that_are_no_numbers(csv: Path, value: str) -> None:
    csv.write_text(CSV.replace(",2,", f',"{value}",'), "utf-8")
    said = rf"column mos must hold a number .* row 2 \(sub/b\.png\): {re.escape(repr(value))}"
    with pytest.raises(AgiqaError, match=said) as caught:
        prepare(csv, "image", ["mos"])
    assert ("write numbers with a point" in str(caught.value)) == ("," in value)


def test_path_leaving_the_root(csv: Path, tmp_path: Path) -> None:
    for path in ("../a.png", f"{tmp_path}/a.png", "sub/../../a.png"):
        csv.write_text(CSV.replace("a.png", path, 1), "utf-8")
        with pytest.raises(AgiqaError, match="not inside the data folder"):
            prepare(csv, "image", ["mos"])


@pytest.mark.parametrize(
    "again",
    [
        "a.png",
        "./a.png",
        "sub/../a.png",
        "sub\\b.png",
        "\u0391\u03b8\u03b7\u0301\u03bd\u03b1 \u732b.png",
    ],
)
def test_a_file_in_any_two_spellings_is_twice(csv: Path, again: str) -> None:
    csv.write_text(CSV + f"{again},3,x,y\n", "utf-8")
    name = "a.png" if again.endswith("a.png") else ".*"
    with pytest.raises(AgiqaError, match=rf"1 image is listed more than once \({name}\)"):
        prepare(csv, "image", ["mos"])


def test_absent_and_broken_images(csv: Path) -> None:
    (csv.parent / "a.png").unlink()
    (csv.parent / "Αθήνα 猫.png").write_text("no image")
    message = r"2 of 3 images .*: a.png does not exist, Αθήνα 猫.png is not an image"
    with pytest.raises(AgiqaError, match=message):
        prepare(csv, "image", ["mos"])
    table = prepare(csv, "image", ["mos"], skip_bad=True)
    assert table.frame["path"].tolist() == ["sub/b.png"]
    assert len(table.skipped) == 2


def test_a_csv_without_rows(csv: Path) -> None:
    """What is no table at all stands in test_text_table.py."""
    csv.write_text("image,mos\n")
    with pytest.raises(AgiqaError, match="expected one row an image, found only the header"):
        prepare(csv, "image", ["mos"])


@pytest.mark.parametrize("column", ["mos ", " mos", "mos\xa0", "MOS", "\u200bmos"])
def test_columns_that_look_alike_are_shown_quoted(csv: Path, column: str) -> None:
    csv.write_text(CSV.replace("mos", column), "utf-8")
    shown = column if column == "MOS" else re.escape(repr(column))
    with pytest.raises(AgiqaError, match=f"the column mos; found image, {shown}, said, who"):
        prepare(csv, "image", ["mos"])
    if column.strip() != column:
        with pytest.raises(AgiqaError, match=f": is {shown} meant"):
            prepare(csv, "image", ["mos"])
        assert prepare(csv, "image", [column]).targets[0].name == "mos"


def test_paths_that_look_alike_are_shown_quoted(csv: Path) -> None:
    csv.write_text(CSV.replace("a.png", "a.png ").replace("sub/b.png", "sub/b.png\xa0"), "utf-8")
    message = r"'a\.png ' does not exist, 'sub/b\.png\\xa0' does not exist"
    with pytest.raises(AgiqaError, match=message):
        prepare(csv, "image", ["mos"])


def test_backslashes_of_windows(csv: Path) -> None:
    csv.write_text(CSV.replace("sub/b", "sub\\b"), "utf-8")
    assert prepare(csv, "image", ["mos"]).frame["path"].tolist()[1] == "sub/b.png"
    csv.write_text(CSV.replace("sub/b", "..\\..\\b"), "utf-8")
    with pytest.raises(AgiqaError, match="not inside the data folder"):
        prepare(csv, "image", ["mos"])
    odd = csv.parent / "sub\\b.png"  # as a name of Linux, the file itself
    odd.write_bytes((csv.parent / "a.png").read_bytes())
    csv.write_text(CSV.replace("sub/b", "sub\\b"), "utf-8")
    assert prepare(csv, "image", ["mos"]).frame["path"].tolist()[1] == "sub\\b.png"


def test_deviations_and_numbers_of_ratings(csv: Path) -> None:
    text = "image,mos,sd,n,al\na.png,1.5,.5,20,1\nsub/b.png,2,0,21,2\nΑθήνα 猫.png,4.5,1,22,3\n"
    csv.write_text(text, "utf-8")
    table = prepare(csv, "image", ["mos"], deviation_columns=["sd"], raters_column="n")
    assert (table.targets[0].deviation, table.targets[0].raters) == ("mos_sd", "mos_raters")
    assert table.frame["mos_sd"].tolist() == [0.5, 0, 1]
    assert table.frame["mos_raters"].tolist() == [20, 21, 22]
    with pytest.raises(AgiqaError, match=r"for each of 2 score columns, .* found 1 \(sd"):
        prepare(csv, "image", ["mos", "al"], deviation_columns=["sd"])
    csv.write_text(text.replace(",.5,20", ",-.5,0"), "utf-8")
    with pytest.raises(AgiqaError, match=r"mos_sd must be at least 0; found a\.png: -0\.5"):
        prepare(csv, "image", ["mos"], deviation_columns=["sd"])
    with pytest.raises(AgiqaError, match=r"mos_raters must be at least 1; found a\.png: 0"):
        prepare(csv, "image", ["mos"], raters_column="n")


def test_no_csv_no_root(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match=r"gone\.csv: does not exist"):
        prepare(tmp_path / "gone.csv", "image", ["mos"])
    with pytest.raises(AgiqaError, match="gone: expected the folder of the images"):
        prepare(csv, "image", ["mos"], root=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "A CSV needs --score-column"),
        (["mos", "mos"], "named twice"),
        (["mos", "MOS"], "named twice"),
        (["a/b"], "none of / "),
        (["../up"], "none of / "),
        (["-x"], "no dot or dash before"),
        (["prompt"], "cannot be called prompt"),
    ],
)
def test_score_columns_that_cannot_be(csv: Path, columns: list[str], message: str) -> None:
    csv.write_text(
        CSV.replace("said,who", "prompt,who,MOS,a/b,../up,-x")
        .replace(",x\n", ",x,1,1,1,1\n")
        .replace(",y\n", ",y,1,1,1,1\n"),
        "utf-8",
    )
    with pytest.raises(AgiqaError, match=message):
        prepare(csv, "image", columns)


def test_scores_of_which_the_lower_is_better(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = csv.read_text("utf-8").splitlines()
    scored = [f"{row},{cell}" for row, cell in zip(text, ("sharp", 1, 2, 3), strict=True)]
    csv.write_text("\n".join(scored), "utf-8")
    table = prepare(csv, "image", ["mos", "sharp"], scale=(1, 5), lower_is_better=["mos"])
    assert table.frame["mos"].tolist() == [4.5, 4.0, 1.5]
    assert table.frame["sharp"].tolist() == [1, 2, 3]  # higher is better, as it was
    assert (table.targets[0].scale, table.source) == ((1, 5), "labels.csv, mos turned round on 1…5")
    assert prepare(csv, "image", ["mos"], scale=(0, 5)).targets[0].scale == (0, 5)
    monkeypatch.chdir(csv.parent)
    options = ["--image-column", "image", "--score-column", "mos", "--scale", "1", "5", "--json"]
    done = agiqa("prepare", "mine", "--from", str(csv), *options, "--lower-is-better", "mos")
    assert '"turned": "mos: lower was better, higher is from here on"' in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lower_is_better": ["mos"]}, "within their scale: give its ends, such as --scale 0 100"),
        ({"lower_is_better": ["dmos"], "scale": (1, 5)}, "better in dmos: expected score columns"),
        ({"scale": (0, 2)}, "mos must be on the scale 0 to 2; found Αθήνα 猫.png: 4.5"),
        ({"scale": (5, 1)}, r"expected two ends, the lower first, found \[5, 1\]"),
        ({"scale": (1, float("inf"))}, "expected two ends"),
    ],
)
def test_a_scale_that_is_none(csv: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(AgiqaError, match=message) as raised:
        prepare(csv, "image", ["mos"], **given)
    assert "\n" not in str(raised.value)
