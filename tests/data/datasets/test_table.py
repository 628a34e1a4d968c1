import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import (
    DATASET_JSON,
    IMAGES_CSV,
    ROOT_JSON,
    ImagesTable,
    Target,
    build_table,
    inner_path,
    read_table,
    write_table,
)
from agiqa.data.images import BadImagesError, image_id


def rows(*paths: str, scores: list[float] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame({"path": list(paths), "prompt": "p", "group": "p", "generator": "g"})
    return frame if scores is None else frame.assign(quality=scores)


def build(root: Path, frame: pd.DataFrame, skip_bad: bool = False) -> ImagesTable:
    targets = [column for column in frame.columns if column == "quality"]
    return build_table(
        "tiny", root, frame, targets, licence="none", source="a test", skip_bad=skip_bad
    )


def test_table_survives_the_disk_to_the_bit(
    write_images: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["a.png", "sub/b, \"quoted\".png", "NA.png", "猫 Größe.png"]  # fmt: skip
    table = build(write_images(*names), rows(*names, scores=[0.1 + 0.2, 1 / 3, 1e-17, 5.0]))
    for _ in range(2):  # the second time over the first
        write_table(table, tmp_path / "cache")
    files = [DATASET_JSON, IMAGES_CSV, ROOT_JSON]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == files
    again = read_table(tmp_path / "cache")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_exact=True)
    assert (again.name, again.root, again.targets) == (table.name, table.root, table.targets)
    assert (again.synthetic, again.licence, again.source) == (False, "none", "a test")
    assert all(path.is_file() for path in again.paths())
    assert list(table.frame.columns[:5]) == ["image_id", "path", "prompt", "group", "generator"]
    assert table.frame["image_id"].tolist() == [image_id(path) for path in table.paths()]
    assert (table.targets[0].low, table.targets[0].high) == (1e-17, 5.0)


def test_scores_kept_secret_sides_scale_and_deviations_survive_the_disk(
    write_images: Callable[..., Path], tmp_path: Path
) -> None:
    frame = rows("a.png", "b.png", "c.png").assign(
        set=["train", "val", ""], quality=[1.5, np.nan, 4.0], quality_sd=[0.5, np.nan, 0.25]
    )
    table = build_table(
        "tiny",
        write_images("a.png", "b.png", "c.png"),
        frame,
        ["quality"],
        licence="none",
        source="a test",
        scale=(0, 5),
        synthetic=True,
    )
    assert table.targets == (Target("quality", 1.5, 4.0, (0, 5), "quality_sd"),)
    write_table(table, tmp_path / "cache")
    again = read_table(tmp_path / "cache")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_exact=True)
    assert again.targets == table.targets
    assert again.synthetic
    assert again.frame["quality"].isna().tolist() == [False, True, False]
    assert again.frame["set"].tolist() == ["train", "val", ""]
    about = json.loads((tmp_path / "cache" / DATASET_JSON).read_text())
    assert about["targets"][0]["direction"] == "higher is better"
    assert about["targets"][0]["scale"] == [0, 5]


def test_progress(
    write_images: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("agiqa.core.progress.LINE_EVERY", 0.0)
    with caplog.at_level("INFO"):
        build(write_images("a.png", "b.png"), rows("a.png", "b.png"))
    assert "Images: 1 of 2, " in caplog.text
    assert "Images: 2 done in " in caplog.text


def test_no_score_at_all(write_images: Callable[..., Path]) -> None:
    with pytest.raises(AgiqaError, match="no image has a score in quality"):
        build(write_images("a.png"), rows("a.png", scores=[float("nan")]))


def test_another_direction_or_side_is_refused(
    stored: Path, write_images: Callable[..., Path]
) -> None:
    about = json.loads((stored / DATASET_JSON).read_text())
    about["targets"][0]["direction"] = "lower is better"
    (stored / DATASET_JSON).write_text(json.dumps(about))
    with pytest.raises(AgiqaError, match=r"damaged .*direction of quality is 'lower is better'"):
        read_table(stored)
    frame = rows("a.png", scores=[1]).assign(set="training")
    write_table(build(write_images("a.png"), frame), stored)
    with pytest.raises(AgiqaError, match="column set holds training, no known side"):
        read_table(stored)


def test_the_folder_can_move_when_the_images_are_in_it(
    write_images: Callable[..., Path], tmp_path: Path
) -> None:
    table = build(write_images("a.png", folder="cache/images"), rows("a.png"))
    write_table(table, tmp_path / "cache")
    assert json.loads((tmp_path / "cache" / ROOT_JSON).read_text()) == {"root": "images"}
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert read_table(tmp_path / "moved").paths()[0].is_file()


def test_a_table_says_nothing_of_the_machine_and_is_read_without_images(
    write_images: Callable[..., Path], tmp_path: Path
) -> None:
    here, copy = tmp_path / "cache", tmp_path / "there"
    write_table(build(write_images("a.png"), rows("a.png")), here)
    copy.mkdir()
    for name in (IMAGES_CSV, DATASET_JSON):
        assert str(tmp_path) not in (here / name).read_text()
        (copy / name).write_bytes((here / name).read_bytes())
    table = read_table(copy)
    assert table.root is None
    assert table.frame.equals(read_table(here).frame)
    with pytest.raises(
        AgiqaError, match=r"'tiny' came without its images; .* `agiqa prepare tiny`"
    ):
        table.paths()
    (copy / ROOT_JSON).write_text("[]")
    with pytest.raises(AgiqaError, match=r"root.json: damaged .* run `agiqa prepare` again"):
        read_table(copy)


def test_bad_images_stop_everything_or_are_left_out(
    write_images: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_images("a.png", "b.png", "c.png", "d.png")
    (root / "b.png").write_bytes(b"")
    (root / "c.png").write_bytes((root / "c.png").read_bytes()[:300])
    frame = rows("a.png", "b.png", "c.png", "d.png", "e.png", scores=[1, 2, 3, 4, 5])
    with pytest.raises(BadImagesError, match=r"3 of 5 .* b\.png is empty .*--skip-bad") as caught:
        build(root, frame)
    assert [bad.path for bad in caught.value.bad] == ["b.png", "c.png", "e.png"]
    table = build(root, frame, skip_bad=True)
    assert table.frame["path"].tolist() == ["a.png", "d.png"]
    assert table.frame["quality"].tolist() == [1, 4]
    assert (table.targets[0].low, table.targets[0].high) == (1, 4)
    assert table.skipped == caught.value.bad
    write_table(table, tmp_path / "cache")
    assert read_table(tmp_path / "cache").skipped == table.skipped
    with pytest.raises(BadImagesError, match="Nothing would be left"):
        build(root, rows("e.png"), skip_bad=True)


def test_decomposed_letters_are_found(write_images: Callable[..., Path]) -> None:
    root = write_images("Gro\u0308\u00dfe.png")  # o and a combining diaeresis, as macOS stores it
    table = build(root, rows("Gr\u00f6\u00dfe.png"))
    assert table.frame["path"].tolist() == ["Gro\u0308\u00dfe.png"]


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "a/../../b.png", "", ".", "C:/a.png"])
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(AgiqaError, match="not inside the data folder"):
        inner_path(path, "test.csv")


@given(st.lists(st.sampled_from(["a", "..", ".", "ü", "b.png"]), min_size=1, max_size=6))
def test_accepted_paths_stay_inside(parts: list[str]) -> None:
    try:
        plain = inner_path("/".join(parts), "test.csv")
    except AgiqaError:
        depth = [0]
        for part in parts:
            depth.append(depth[-1] + {"..": -1, ".": 0}.get(part, 1))
        assert min(depth) < 0 or depth[-1] == 0
    else:
        assert (Path("/root") / plain) == Path("/root", *parts).resolve()
        assert inner_path(plain, "test.csv") == plain


# What a damaged or foreign table gets


@pytest.fixture
def stored(write_images: Callable[..., Path], tmp_path: Path) -> Path:
    names = ["a.png", "b.png"]
    write_table(build(write_images(*names), rows(*names, scores=[1, 2])), tmp_path / "cache")
    return tmp_path / "cache"


def alter(stored: Path, old: str, new: str) -> None:
    """Edit images.csv and make dataset.json agree with the edit."""
    text = (stored / IMAGES_CSV).read_text("utf-8")
    assert old in text
    (stored / IMAGES_CSV).write_text(text.replace(old, new), "utf-8")
    about = json.loads((stored / DATASET_JSON).read_text())
    sha256 = hashlib.sha256((stored / IMAGES_CSV).read_bytes()).hexdigest()
    (stored / DATASET_JSON).write_text(json.dumps(about | {"images_csv_sha256": sha256}))


@pytest.mark.parametrize("name", [IMAGES_CSV, DATASET_JSON])
def test_missing_file(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(AgiqaError, match=f"expected {name}, found .*agiqa prepare"):
        read_table(stored)


def test_half_of_a_pair(stored: Path) -> None:
    (stored / IMAGES_CSV).write_text((stored / IMAGES_CSV).read_text() + "\n")
    with pytest.raises(AgiqaError, match="not the file that dataset"):
        read_table(stored)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layout": 4}', "nonsense"])
def test_damaged_description(stored: Path, text: str) -> None:
    (stored / DATASET_JSON).write_text(text)
    with pytest.raises(AgiqaError, match="damaged"):
        read_table(stored)


@pytest.mark.parametrize("layout", [3, 99])
def test_another_layout(stored: Path, layout: int) -> None:
    about = json.loads((stored / DATASET_JSON).read_text())
    (stored / DATASET_JSON).write_text(json.dumps(about | {"layout": layout}))
    message = rf"layout {layout} is not the one .* reads \(4\): .* run `agiqa prepare` again"
    with pytest.raises(AgiqaError, match=message):
        read_table(stored)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prompt", "promt", "expected the column prompt; found image_id, path, promt"),
        (",2.0\n", ",?\n", r"column quality .* row 2 \(b.png\): '\?'"),
        (",2.0", ",inf", r"row 2 \(b.png\): 'inf'"),
    ],
)
def test_damaged_rows(stored: Path, old: str, new: str, message: str) -> None:
    """What strangers' tables get besides stands in tests/hostile/test_tables.py."""
    alter(stored, old, new)
    with pytest.raises(AgiqaError, match=message):
        read_table(stored)


def test_no_room_leaves_what_was_there(stored: Path, write_images: Callable[..., Path]) -> None:
    before = {path.name: path.read_bytes() for path in stored.iterdir()}
    table = folder.prepare(write_images("y.png", "z.png"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(AgiqaError, match=r"cannot write .*images\.csv: .* left as it was"):
            write_table(table, stored)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == before


def test_folder_that_cannot_be_made(stored: Path, write_images: Callable[..., Path]) -> None:
    with pytest.raises(AgiqaError, match="cannot write"):
        write_table(folder.prepare(write_images("z.png")), stored / IMAGES_CSV / "cache")
