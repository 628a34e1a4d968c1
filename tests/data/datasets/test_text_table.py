"""CSVs and workbooks of anybody: a table comes out as it stands, all else is one line."""

import csv
import io
import os
import warnings
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import text_table
from agiqa.data.datasets.text_table import read_text_csv, read_text_sheet

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1).filter(lambda r: all(map(any, r))))
def test_every_cell_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    """Quotes, commas and line ends inside of cells too."""
    written = io.StringIO()
    csv.writer(written).writerows([("a", "b b", "ç"), *rows])
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(written.getvalue().encode())
    frame = read_text_csv(path)
    assert list(frame.columns) == ["a", "b b", "ç"]
    assert [tuple(row) for row in frame.itertuples(index=False)] == rows


def read(folder: Path, text: str | bytes, name: str = "t.csv") -> pd.DataFrame:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_text_csv(path)


@pytest.mark.parametrize(
    "text",
    [
        "file,mos\na.png,1\nb.png,2\n",
        "file,mos\r\na.png,1\r\nb.png,2\r\n",
        "file,mos\ra.png,1\rb.png,2",
        "\ufefffile,mos\na.png,1\nb.png,2",
        "\n\nfile,mos\n\na.png,1\n,\nb.png,2\n\n",  # empty lines, and those that Excel leaves
        "file,mos\na.png,1,\nb.png,2,\n",  # trailing commas in the rows alone
        "file,mos,\na.png,1,\nb.png,2,\n",
        ",file,mos\n1,a.png,1\n2,b.png,2\n",  # row names as R's write.csv and pandas write them
    ],
)
def test_what_programs_write_is_the_same_table(tmp_path: Path, text: str) -> None:
    frame = read(tmp_path, text)
    assert frame.to_dict("list") == {"file": ["a.png", "b.png"], "mos": ["1", "2"]}
    tabs = read(tmp_path, text.replace(",", "\t"), "t.TSV")
    assert tabs.to_dict("list") == frame.to_dict("list")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("file,mos\n1,a.png,1\n", r"line 2 has 3 cells, the header 2 \(file, mos\): name the col"),
        ("file,mos\na.png,1,2,3\n", "line 2 has 4 cells, the header 2 .*in quotes"),
        ("file,mos,prompt\n\na.png,1\n", "line 3 has 2 cells, the header 3"),
        ("file,mos,mos\na.png,1,2\n", "the column 'mos' stands twice, as number 2 and 3"),
        ("file;mos\na.png;3,5\n", "line 2 has 2 cells, .*separated by semicolons: save it with c"),
        ('file,mos\n"a.png,1\n', "unexpected end of data"),
        ('file,mos\n"a"b,1\n', "expected after"),
        ("file,mos\nà.png,1\n".encode("latin-1"), r"not UTF-8 text: byte 0xe0 in line 2: save"),
        ("file,mos\na.png,1\n".encode("utf-16"), "not UTF-8 text but UTF-16"),
        (b"file,mos\na\0.png,1\n", "line 2 holds a zero byte"),
        (b"PK\x03\x04file,mos\n", "an archive or a workbook"),
        (b"\x1f\x8b\x08file,mos\n", "an archive or a workbook"),
        ("file,mos\n" + "a" * 1_100_000, "line 2 has over 1,048,576 characters"),
        ("file,mos\n" + "a" * 200_000 + ",1\n", "field larger than field limit"),
        (",".join(f"c{n}" for n in range(1001)), "1,001 columns, the most are 1,000"),
    ],
)
def test_what_is_no_table_is_said_in_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(AgiqaError, match=rf"t\.csv: is not a readable CSV \(.*{message}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_may_be_one_between_semicolons(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file;mos\na.png;3\n")
    message = "expected the column mos; found file;mos: it is separated by semicolons"
    with pytest.raises(AgiqaError, match=message):
        read_text_csv(tmp_path / "t.csv", ["mos"])


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path, message in (
        (tmp_path / "pipe.csv", "is a pipe or device, not a file"),
        (Path("/dev/zero"), "is a pipe or device, not a file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "gone.csv", "does not exist"),
    ):
        with pytest.raises(AgiqaError, match=message):
            read_text_csv(path)
    monkeypatch.setattr(text_table, "MOST_CELLS", 4)
    with pytest.raises(AgiqaError, match="more than 4 cells"):
        read(tmp_path, "a,b\n1,2\n3,4\n5,6\n")


def test_nothing_is_unpacked_for_its_name(tmp_path: Path) -> None:
    """pandas would have."""
    assert read(tmp_path, "a,b\n1,2\n", "t.csv.gz").to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_cells_are_text_as_excel_shows_it(tmp_path: Path) -> None:
    """Whole numbers without a point; neither empty rows nor columns without a name."""
    book = Workbook()
    for row in (
        ["name", None, "mos", "day"],
        [],
        ["00001.jpg", None, 75.0, True],
        ["NA", 0.5, 65.25, 3],
        [None, None, None, "x"],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert read_text_sheet(tmp_path / "a.xlsx").to_dict("list") == {
        "name": ["00001.jpg", "NA", ""], "mos": ["75", "65.25", ""], "day": ["True", "3", "x"],
    }  # fmt: skip
    assert read_text_sheet(tmp_path / "a.xlsx", header=False)[0].tolist()[0] == "name"


def test_one_sheet_and_one_column_of_a_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Workbook()
    book.active.append(["name", "mos", "mos"])
    book.create_sheet("other").append(["name", "mos"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(AgiqaError, match=r"a\.xlsx: the column 'mos' stands twice, as number 2 "):
        read_text_sheet(tmp_path / "a.xlsx")
    assert "of its 2 sheets the first, Sheet, is read" in caplog.text


def rewrite(path: Path, replace: dict[str, bytes], twice: str = "") -> None:
    """The workbook again, with other parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the name that stands twice
        for name, content in (parts | replace).items():
            archive.writestr(name, content)
        if twice:
            archive.writestr(twice, parts[twice])


SHEET = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    b"<sheetData>%s</sheetData></worksheet>"
)
ENTITIES = [b'<!ENTITY %c "%s">' % (97 + n, b"&%c;" % (96 + n) * 10) for n in range(1, 12)]
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(ENTITIES) + b"]>"


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("worksheets/sheet1.xml", SHEET % (b" " * (17 << 20)), "its sheets unpack to 17,"),
        ("styles.xml", b" " * (1 << 20), "other parts to 1,"),
        ("worksheets/sheet1.xml", SHEET % b'<row r="1"><c r="XFD1"><v>1</v></c></row>', "beyond r"),
        ("worksheets/sheet1.xml", SHEET % b'<row r="1048576"><c><v>1</v></c></row>', "beyond row"),
        ("worksheets/sheet1.xml", SHEET % b'<row r="99999999999"><c><v>1</v></c></row>', "beyond"),
        ("worksheets/sheet1.xml", SHEET % b'<row r="x"><c r="1A"/></row>', "could not conv"),
        (
            "worksheets/sheet1.xml",
            LAUGHS + SHEET % b'<row r="1"><c t="str"><v>&l;</v></c></row>',
            "amplification|entit",
        ),
    ],
    ids=["bomb", "styles", "column", "row", "beyond", "letters", "entities"],
)  # fmt: skip
def test_workbooks_that_become_large(
    tmp_path: Path, part: str, content: bytes, message: str
) -> None:
    Workbook().save(tmp_path / "a.xlsx")
    rewrite(tmp_path / "a.xlsx", {f"xl/{part}": content})
    assert (tmp_path / "a.xlsx").stat().st_size < 40_000
    with pytest.raises(AgiqaError, match=rf"a\.xlsx: is not a readable \.xlsx file .*{message}"):
        read_text_sheet(tmp_path / "a.xlsx")


def test_a_part_twice(tmp_path: Path) -> None:
    Workbook().save(tmp_path / "a.xlsx")
    rewrite(tmp_path / "a.xlsx", {}, twice="xl/worksheets/sheet1.xml")
    with pytest.raises(AgiqaError, match="two parts of one name"):
        read_text_sheet(tmp_path / "a.xlsx")


def test_half_a_workbook(tmp_path: Path) -> None:
    pd.DataFrame({"a": range(100)}).to_excel(tmp_path / "a.xlsx")
    whole = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / "a.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AgiqaError, match=r"a.xlsx: is not a readable .xlsx file .*download it aga"):
        read_text_sheet(tmp_path / "a.xlsx")


@pytest.mark.parametrize("content", [b"", b"name,mos\n", b"PK\x03\x04nonsense"])
def test_no_workbook(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(AgiqaError, match=r"a.xlsx: is not a readable .xlsx file"):
        read_text_sheet(tmp_path / "a.xlsx")


def test_absent_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match="does not exist; expected an Excel file"):
        read_text_sheet(tmp_path / "a.xlsx")
    with pytest.raises(AgiqaError, match="cannot be read: Is a directory"):
        read_text_sheet(tmp_path)
