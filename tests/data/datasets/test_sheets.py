import warnings
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.sheets import read_text_sheet


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
