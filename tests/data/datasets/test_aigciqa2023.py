import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.official import Download, prepare_download
from agiqa.data.datasets.table import read_table, write_table
from kit import official_downloads

AIGCIQA2023 = OFFICIAL["aigciqa2023"]
TARGETS = ["quality", "authenticity", "correspondence"]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The download with numbered images; not to be changed."""
    return official_downloads.aigciqa2023(tmp_path_factory.mktemp("numbered") / "aigciqa2023")


@pytest.fixture(scope="module")
def by_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The download with a folder for each generator; not to be changed."""
    folder = tmp_path_factory.mktemp("generators") / "aigciqa2023"
    return official_downloads.aigciqa2023(folder, "generators")


@pytest.fixture
def labels(numbered: Path, tmp_path: Path) -> Path:
    """The numbered images, linked, with labels that a test may change."""
    for name in ("DATA", "AIGCIQA2023_Prompts.xlsx", "pic-index.xlsx"):
        copy = shutil.copytree if (numbered / name).is_dir() else shutil.copy
        copy(numbered / name, tmp_path / name)
    (tmp_path / "Image").symlink_to(numbered / "Image")
    return tmp_path


def read_labels(folder: Path) -> Download:
    return AIGCIQA2023.read(AIGCIQA2023.find(folder))


def _check(frame: pd.DataFrame) -> None:
    """Rows in the order of the scores, with the right generator and prompt."""
    scores = official_downloads.aigciqa_scores()
    for target, expected in zip(TARGETS, scores, strict=True):
        np.testing.assert_array_equal(frame[target], expected)
    order = official_downloads.aigciqa_order()
    assert frame["generator"].tolist() == [generator for generator, _ in order]
    assert frame["prompt"].tolist()[:5] == ["a corgi"] * 4 + ["prompt 1"]
    assert frame["prompt"].iloc[400] == "a corgi"
    assert frame["prompt"].value_counts().unique().tolist() == [24]


def test_numbered_images(numbered: Path, tmp_path: Path) -> None:
    table = prepare_download(AIGCIQA2023, numbered)
    _check(table.frame)
    assert table.frame["path"].iloc[2399] == "2399.png"
    assert table.frame.loc[0, TARGETS].tolist() == list(official_downloads.AIGCIQA_FIRST)
    assert [t.name for t in table.targets] == TARGETS
    assert {t.scale for t in table.targets} == {(0, 5)}
    write_table(table, tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path).frame, table.frame, check_exact=True)


def test_a_folder_for_each_generator(by_generator: Path, tmp_path: Path) -> None:
    download = read_labels(by_generator)
    _check(download.rows)
    assert download.rows["path"].iloc[-1] == "Unidiffuser/099-4.png"
    assert set(download.present) == set(download.rows["path"])
    shutil.copytree(by_generator / "DATA", tmp_path / "DATA")
    for name in ("AIGCIQA2023_Prompts.xlsx", "pic-index.xlsx"):
        shutil.copy(by_generator / name, tmp_path)
    for folder in (by_generator / "Image").iterdir():  # without Image/, twice nested
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / folder.name).symlink_to(folder)
    nested = read_labels(tmp_path)
    _check(nested.rows)
    assert nested.rows["path"].iloc[0] == "Controlnet/Controlnet/000-1.png"
    assert len(prepare_download(AIGCIQA2023, tmp_path).frame) == 2400


def test_the_authors_hub_copy(numbered: Path, tmp_path: Path) -> None:
    for number, scores in enumerate(official_downloads.aigciqa_scores(), start=1):
        np.savetxt(tmp_path / f"moz{number}.txt", scores, fmt="%.15f")
    for name in ("AIGCIQA2023_Prompts.xlsx", "pic-index.xlsx"):
        shutil.copy(numbered / name, tmp_path)
    (tmp_path / "allimg").symlink_to(numbered / "Image" / "allimg")
    download = read_labels(tmp_path)
    np.testing.assert_allclose(download.rows["quality"], official_downloads.aigciqa_scores()[0])
    assert download.rows["generator"].iloc[0] == "Controlnet"


def test_prompts_without_a_header(labels: Path) -> None:
    path = labels / "AIGCIQA2023_Prompts.xlsx"
    pd.read_excel(path).to_excel(path, index=False, header=False)
    _check(read_labels(labels).rows)


def _rewrite_prompts(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / "AIGCIQA2023_Prompts.xlsx"
    change(pd.read_excel(path)).to_excel(path, index=False)


def _off_the_scale(folder: Path) -> None:
    scores = official_downloads.aigciqa_scores()[1]
    scores[7] = 5.5
    savemat(folder / "DATA/MOS/mosz2.mat", {"MOSz": scores})


def _on_a_scale_to_100(folder: Path) -> None:
    scores = official_downloads.aigciqa_scores()[0]
    savemat(folder / "DATA/MOS/mosz1.mat", {"MOSz": 20 * scores})  # as an earlier release


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: _rewrite_prompts(f, lambda p: p.rename(columns={"prompt": "text"})),
            r"expected the columns Style, Object, prompt; found Style, Obj.*text$",
        ),
        (lambda f: _rewrite_prompts(f, lambda p: p.head(99)), "expected 100 prompts, found 99"),
        (
            lambda f: pd.DataFrame([["a"] * 2]).to_excel(f / "pic-index.xlsx", header=False),
            "expected 2,400 rows of generator and file, found 1 rows",
        ),
        (
            lambda f: savemat(f / "DATA/MOS/mosz2.mat", {"MOS": np.ones(2400)}),
            r"mosz2.mat: expected the key MOSz; found MOS: take",
        ),
        (
            _off_the_scale,
            r"authenticity must be from 0 to 5; found others in 1 of 2,400 rows \(7.png: 5.5\)",
        ),
        (_on_a_scale_to_100, r"quality must be from 0 to 5; found others in 2,400 of 2,400 rows"),
        (
            lambda f: (f / "pic-index.xlsx").unlink(),
            r"expected pic-index.xlsx of AIGCIQA2023, found AIGCIQA.*github",
        ),
        (
            lambda f: (f / "DATA/MOS/mosz3.mat").unlink(),
            r"expected mosz3.mat of AIGCIQA2023, found AIGCIQA.*github",
        ),
        (lambda f: (f / "Image").unlink(), "expected the images, in Image/allimg or 6 generators'"),
    ],
)
def test_another_download_is_refused(
    labels: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(labels)
    with pytest.raises(AgiqaError, match=message):
        prepare_download(AIGCIQA2023, labels)


def test_a_generator_is_missing(by_generator: Path, tmp_path: Path) -> None:
    official_downloads.write_aigciqa_labels(tmp_path)
    for folder in sorted((by_generator / "Image").iterdir())[:5]:
        (tmp_path / folder.name).symlink_to(folder)
    shutil.copy(by_generator / "pic-index.xlsx", tmp_path)
    with pytest.raises(AgiqaError, match=r"400 of the 2,400 that it lists do not exist"):
        prepare_download(AIGCIQA2023, tmp_path)


def test_images_counted_from_one_are_not_taken_for_their_neighbours(
    labels: Path, numbered: Path
) -> None:
    (labels / "Image").unlink()
    (labels / "Image" / "allimg").mkdir(parents=True)
    for row in range(2400):
        (labels / f"Image/allimg/{row + 1}.png").symlink_to(numbered / f"Image/allimg/{row}.png")
    with pytest.raises(
        AgiqaError, match=r"lists does not exist \(0.png\); 1 has no row .*2400.png"
    ):
        prepare_download(AIGCIQA2023, labels)
