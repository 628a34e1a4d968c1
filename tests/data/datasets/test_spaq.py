import shutil
from pathlib import Path

import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import spaq
from kit import official_downloads


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return official_downloads.spaq(tmp_path / "spaq")


def test_official_layout(official: Path) -> None:
    table = spaq.prepare(official)
    sheet = pd.read_excel(official / "Annotations" / spaq.LABELS)
    assert table.frame["path"].tolist() == sheet["Image name"].tolist()
    for target, column in spaq.COLUMNS.items():
        assert table.frame[target].tolist() == sheet[column].tolist()
    assert [t.name for t in table.targets] == list(spaq.COLUMNS)
    assert {t.scale for t in table.targets} == {(0, 100)}
    assert table.root == official / "TestImage"
    assert "set" not in table.frame


def test_in_the_folder_of_its_archive_and_the_sheet_beside(official: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    official.rename(tmp_path / "shelf" / "SPAQ")
    assert len(spaq.prepare(tmp_path / "shelf").frame) == 20
    shutil.move(tmp_path / "shelf/SPAQ/Annotations" / spaq.LABELS, tmp_path / "shelf")
    assert len(spaq.prepare(tmp_path / "shelf").frame) == 20


def test_changed_header(official: Path) -> None:
    path = official / "Annotations" / spaq.LABELS
    pd.read_excel(path).rename(columns={"MOS": "Mean"}).to_excel(path, index=False)
    with pytest.raises(AgiqaError, match=r"xlsx: expected the column MOS; found Image name, Mean"):
        spaq.prepare(official)


def test_no_sheet(official: Path) -> None:
    shutil.rmtree(official / "Annotations")
    with pytest.raises(
        AgiqaError, match=r"expected Annotations/MOS and .*xlsx of SPAQ, found TestImage: .*h4nwei"
    ):
        spaq.prepare(official)


def test_no_images(official: Path) -> None:
    shutil.rmtree(official / "TestImage")
    with pytest.raises(AgiqaError, match="expected the folder TestImage of SPAQ, found Annotat"):
        spaq.prepare(official)
    (official / "TestImage").mkdir()
    with pytest.raises(AgiqaError, match=r"none of the 20 images .* such as 00001.jpg and 19 more"):
        spaq.prepare(official)


def test_an_image_too_many_and_one_too_few(official: Path) -> None:
    (official / "TestImage" / "00020.jpg").rename(official / "TestImage" / "00021.jpg")
    with pytest.raises(
        AgiqaError,
        match=r"1 of the 20 that it lists does not exist \(00020.jpg\); 1 has no row in it "
        r"\(00021.jpg\)",
    ):
        spaq.prepare(official)
    table = spaq.prepare(official, skip_bad=True)
    assert len(table.frame) == 19
    assert [bad.path for bad in table.skipped] == ["00020.jpg", "00021.jpg"]
