from pathlib import Path

import pandas as pd
import pytest

from agiqa.datasets.sheets import read_text_sheet
from agiqa.errors import AgiqaError


def test_cells_are_text_as_it_stands(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["00001.jpg", "NA"], "mos": [65.25, None], "note": ["", "x"]})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    sheet = read_text_sheet(tmp_path / "a.xlsx")
    assert sheet.to_dict("list") == {
        "name": ["00001.jpg", "NA"],
        "mos": ["65.25", ""],
        "note": ["", "x"],
    }
    assert read_text_sheet(tmp_path / "a.xlsx", header=False)[0].tolist()[0] == "name"


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
