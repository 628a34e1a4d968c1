import shutil
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import koniq_10k
from kit import official_downloads


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return official_downloads.koniq_10k(tmp_path / "koniq-10k")


def test_official_layout(official: Path) -> None:
    table = koniq_10k.prepare(official)
    first = table.frame.iloc[0]
    assert (first["path"], first["quality"], first["set"]) == (
        "10004473376.jpg",
        77.3836206897,
        "train",
    )
    assert first["quality_sd"] == pytest.approx(25 * 0.527277894494)
    assert sorted(set(table.frame["set"])) == ["test", "train", "val"]
    assert set(table.frame["prompt"]) | set(table.frame["group"]) == {""}
    assert table.root == official / "1024x768"
    target = table.targets[0]
    assert (target.name, target.scale, target.deviation) == ("quality", (0, 100), "quality_sd")
    assert target.raters == "quality_raters"
    assert table.frame["quality_raters"].tolist()[:2] == [105, 96]


def test_the_smaller_images(tmp_path: Path) -> None:
    folder = official_downloads.koniq_10k(tmp_path / "small", sizes=("512x384",))
    assert koniq_10k.prepare(folder).root == folder / "512x384"


def test_the_larger_of_two_sizes_in_the_folder_of_the_archive(tmp_path: Path) -> None:
    sizes = ("512x384", "1024x768")
    folder = official_downloads.koniq_10k(tmp_path / "shelf" / "koniq10k", sizes=sizes)
    assert koniq_10k.prepare(tmp_path / "shelf").root == folder / "1024x768"
    shutil.move(folder / koniq_10k.LABELS, tmp_path / "shelf")
    assert len(koniq_10k.prepare(tmp_path / "shelf").frame) == 20


def test_images_without_the_labels(official: Path) -> None:
    (official / koniq_10k.LABELS).unlink()
    with pytest.raises(
        AgiqaError, match=r"expected koniq10k_dist.* found 1024x768: .*github.com/subpic/koniq"
    ):
        koniq_10k.prepare(official)


def test_labels_without_the_images(official: Path) -> None:
    (official / "1024x768").rename(official / "640x480")
    with pytest.raises(AgiqaError, match=r"in 1024x768 or 512x384, of KonIQ-10k, found 640x480"):
        koniq_10k.prepare(official)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",set", ",split", "expected the column set; found image_name, c1"),
        (",training", ",train", "set must be one of training, validation, test; found train"),
        (
            "77.3836206897",
            "-77",
            r"quality must be from 0 to 100; found others in 1 of 20 rows \(10004473376.jpg: -77",
        ),
        (
            ",105,",
            ",0,",
            r"c_total counts .* at least 1; found others in 1 rows \(10004473376.jpg\)",
        ),
        ("0.527277894494", "", r"column SD must hold a number .* row 1 \(10004473376.jpg\): ''"),
    ],
)
def test_changed_labels(official: Path, old: str, new: str, message: str) -> None:
    csv = official / koniq_10k.LABELS
    assert old in csv.read_text()
    csv.write_text(csv.read_text().replace(old, new))
    with pytest.raises(AgiqaError, match=message):
        koniq_10k.prepare(official)


def test_scores_beyond_the_published_range_are_pointed_out(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    csv = official / koniq_10k.LABELS
    csv.write_text(csv.read_text().replace("77.3836206897", "97.5"))
    koniq_10k.prepare(official)
    assert "quality is 26…97.5, the published range is 3.91…88.39" in caplog.text
