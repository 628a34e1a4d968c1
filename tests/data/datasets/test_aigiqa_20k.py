import shutil
from pathlib import Path

import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import aigiqa_20k
from agiqa.data.datasets.table import read_table, write_table
from kit import official_downloads


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return official_downloads.aigiqa_20k(tmp_path / "aigiqa-20k")


def test_official_layout(official: Path, tmp_path: Path) -> None:
    table = aigiqa_20k.prepare(official)
    frame = table.frame
    assert frame["set"].value_counts().to_dict() == {"train": 18, "test": 9, "val": 6}
    assert frame["path"].iloc[0] == "train/DALLE2_1000.png"
    assert sorted(set(frame["generator"])) == ["DALLE2", "SD1.5", "midjourney_v5.2"]
    assert frame["prompt"].iloc[0] == "a train prompt, number 0"
    assert frame["group"].nunique() == 6 + 2 + 3
    labels = pd.read_csv(official / "info_train.csv")
    assert frame["quality"].iloc[:18].tolist() == labels["mos"].tolist()
    assert frame["quality"].iloc[18:].isna().all()
    assert (table.targets[0].name, table.targets[0].scale) == ("quality", (0, 5))
    write_table(table, tmp_path / "cache")
    again = read_table(tmp_path / "cache")
    pd.testing.assert_frame_equal(again.frame, frame, check_exact=True)


def test_all_images_in_one_folder(tmp_path: Path) -> None:
    by_side = aigiqa_20k.prepare(official_downloads.aigiqa_20k(tmp_path / "sides")).frame
    flat = aigiqa_20k.prepare(official_downloads.aigiqa_20k(tmp_path / "flat", flat=True)).frame
    assert flat["path"].iloc[0] == "DALLE2_1000.png"
    columns = [column for column in flat.columns if column != "path"]
    pd.testing.assert_frame_equal(flat[columns], by_side[columns])


def test_in_the_folder_of_its_archive(official: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    official.rename(tmp_path / "shelf" / "AIGCQA-30K-Image")
    assert len(aigiqa_20k.prepare(tmp_path / "shelf").frame) == 33


def test_the_training_side_alone(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    for side in ("val", "test"):
        shutil.rmtree(official / side)
        (official / f"info_{side}.csv").unlink()
    assert len(aigiqa_20k.prepare(official).frame) == 18
    assert "expected 20,000 rows, sha256 not known; found 18, sha256" in caplog.text


def test_scores_that_came_later_are_read(official: Path) -> None:
    labels = pd.read_csv(official / "info_val.csv").assign(mos=2.5)
    labels.to_csv(official / "info_val.csv", index=False)
    frame = aigiqa_20k.prepare(official).frame
    assert frame["quality"][frame["set"] == "val"].tolist() == [2.5] * 6


def test_partly_unpacked(official: Path) -> None:
    shutil.rmtree(official / "val")
    with pytest.raises(AgiqaError, match=r"6 of the 33 that it lists do not exist \(DALLE2_1018"):
        aigiqa_20k.prepare(official)
    table = aigiqa_20k.prepare(official, skip_bad=True)
    assert (len(table.frame), len(table.skipped)) == (27, 6)


def test_images_without_labels(official: Path) -> None:
    (official / "info_val.csv").unlink()
    with pytest.raises(AgiqaError, match=r"6 have no row in it \(val/DALLE2_1018.png, .*--skip"):
        aigiqa_20k.prepare(official)
    table = aigiqa_20k.prepare(official, skip_bad=True)
    assert len(table.frame) == 27
    assert table.skipped[0].path == "val/DALLE2_1018.png"
    assert table.skipped[0].reason == "has no row in info_train.csv"


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(
        AgiqaError, match=r"expected info_train.csv of AIGIQA-20K, found holiday.txt: .*modelscope"
    ):
        aigiqa_20k.prepare(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name,prompt,mos", "name,prompt,score", "expected the column mos; found name, prompt, sc"),
        (
            ",2.7\n",
            ",27\n",
            r"quality must be from 0 to 5; found others in 1 of 33 rows \(train/mid.*_1017.png: 27",
        ),
        (",2.7\n", ",\n", r"column mos must hold a number .* \(midjourney_v5.2_1017.png\): ''"),
        ("DALLE2_1001.png", "DALLE2_1000.png", "1 image is listed more than once"),
        ("DALLE2_1001.png", "../../x.png", "disagree"),
    ],
)
def test_changed_labels(official: Path, old: str, new: str, message: str) -> None:
    csv = official / "info_train.csv"
    assert old in csv.read_text()
    csv.write_text(csv.read_text().replace(old, new))
    with pytest.raises(AgiqaError, match=message):
        aigiqa_20k.prepare(official)
